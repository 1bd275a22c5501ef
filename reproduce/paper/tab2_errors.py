"""Table 2: the classification error of ZFNet, Krizhevsky's network, and ensembles.

The paper's claims: ZFNet beats its replica of AlexNet. Several ZFNets of different seeds, averaged,
beat one. So does ZFNet with wider layers 3-5, and all of them together beat every other row.

Ours are the networks of Table 3, trained by its configuration on a part of ImageNet; see there. The
bundled network with BatchNorm is not used. Krizhevsky's numbers are the paper's only.
"""

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import above, explain, points, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import (
    ENSEMBLE,
    FILES,
    NO_TREE,
    SETTINGS,
    TOO_SMALL,
    WIDE,
    Plan,
    plan_for,
    trainings,
)
from reproduce.paper.rows import Row, diverged_trainings, paper_scale_note, ranks
from reproduce.paper.trained_rows import train_rows
from zfnet.analysis.intervals import mean_interval

ERROR = "error, %: val top-1, val top-5"
GAIN = "gain in val top-1, points, with 95 % interval"
FIGURE = Figure(
    id="tab2",
    title="ImageNet 2012 classification error",
    claim="ZFNet beats AlexNet. An ensemble of ZFNets beats one ZFNet, wider layers 3-5 lower the "
    "error, and an ensemble of all of them is best.",
    inputs=("tree", "device"),
    seed=0,
    time_budget=3 * 3600,
    version=3,
    paper={
        ERROR: {
            "Krizhevsky et al., 1 network": [40.7, 18.2],
            "Krizhevsky et al., 5 networks": [38.1, 16.4],
            "AlexNet (replica)": [40.5, 18.1],
            "ZFNet": [38.4, 16.5],
            "ensemble of ZFNets (a)": [36.7, 15.3],
            "ZFNet with wider layers 3-5 (b)": [37.5, 16.0],
            "ensemble of (a) and (b)": [36.0, 14.7],
        },
        "test top-5": {
            "Krizhevsky et al., 5 networks": 16.4, "ensemble of ZFNets (a)": 15.3,
            "ZFNet with wider layers 3-5 (b)": 16.1, "ensemble of (a) and (b)": 14.8,
        },
        "networks": {"ensemble of ZFNets (a)": 5, "ensemble of (a) and (b)": 6},
    },
    config=SETTINGS | {"times chance": 3},
    files=FILES,
    manual=True,
    trains=True,
    scales=("paper", "subset", "smoke"),
)  # fmt: skip
REPLICA, ONE, MANY = "AlexNet (replica)", "ZFNet", "ensemble of ZFNets (a)"
WIDER, ALL = "ZFNet with wider layers 3-5 (b)", "ensemble of (a) and (b)"
STEPS = {  # claim -> the better row and the worse one
    "ZFNet beats AlexNet": (ONE, REPLICA),
    "wider layers 3-5 lower the error": (WIDER, ONE),
    "an ensemble of ZFNets beats one ZFNet": (MANY, ONE),
    "the ensemble with the wider ZFNet beats the ensemble of ZFNets": (ALL, MANY),
    "the ensemble with the wider ZFNet beats the wider ZFNet alone": (ALL, WIDER),
}


def compute(ctx: Context) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = plan_for(ctx)
    chosen = [training for training in trainings(plan) if training[0] in ENSEMBLE]
    rows = train_rows(ctx, plan, load_images(ctx, plan), chosen)
    return judge(rows["AlexNet"][0], rows["ZFNet"], rows[f"ZFNet, {WIDE}"][0], plan)


def judge(alexnet: Row, zfnets: list[Row], wide: Row, plan: Plan) -> Result:
    """Compare single networks and ensembles, which average probabilities."""
    diverged = diverged_trainings({REPLICA: [alexnet], ONE: zfnets, WIDER: [wide]})
    rank, networks = _ranks(alexnet, zfnets, wide)
    errors = {
        name: [round(100 * float((of_row > k).mean()), 2) for k in (1, 5)]
        for name, of_row in rank.items()
    }
    gains = {
        claim: mean_interval(100.0 * ((rank[worse] > 1).astype(float) - (rank[better] > 1)))
        for claim, (better, worse) in STEPS.items()
        if better in rank
    }
    classes, times = len(np.unique(alexnet.label)), FIGURE.config["times chance"]
    worst = min(100 - errors[name][0] for name in (REPLICA, ONE, WIDER))
    learned = worst >= times * 100 / classes
    judgments = {claim: above(gain) for claim, gain in gains.items()} if learned else {}
    claims, summary = verdict(judgments)
    reason = explain(judgments, {c: _gain_text(c, gain) for c, gain in gains.items()})
    if not learned:
        reason = f"A network is not {times} times as good as chance, so nothing is compared."
    if plan.scale == "smoke":
        summary, reason = "not comparable", TOO_SMALL
    measured = {
        ERROR: errors,
        "networks": networks,
        GAIN: gains,
        "classes": classes,
        "epochs": plan.epochs,
        "trainings that diverged": diverged,
        "claims": claims,
    }
    best = min(errors, key=lambda name: errors[name][0])
    finding = (
        f"ZFNet's top-1 error is {errors[ONE][0]:.1f} % and AlexNet's {errors[REPLICA][0]:.1f} %; "
        f"the lowest is {errors[best][0]:.1f} % ({best})."
    )
    note = _note(zfnets, plan, classes, diverged)
    return Result({}, measured, summary, len(alexnet.label), note, plan.scale, finding, reason)


def _ranks(
    alexnet: Row, zfnets: list[Row], wide: Row
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The ranks of the true class by row of the table, and the sizes of the ensembles."""
    converged = [row for row in zfnets if not row.about["diverged"]]
    rank = {
        REPLICA: ensemble_ranks([alexnet]),
        ONE: ensemble_ranks(zfnets[:1]),
        WIDER: ensemble_ranks([wide]),
    }
    networks = {}
    if len(converged) > 1:
        rank[MANY], networks[MANY] = ensemble_ranks(converged), len(converged)
        if not wide.about["diverged"]:
            rank[ALL], networks[ALL] = ensemble_ranks([*converged, wide]), len(converged) + 1
    return rank, networks


def _gain_text(claim: str, gain: list[float]) -> str:
    """What was measured for a claim."""
    better, worse = STEPS[claim]
    return f"{better} is more accurate than {worse} by {points(gain)}"


def _note(zfnets: list[Row], plan: Plan, classes: int, diverged: dict[str, str]) -> str:
    crops = "ten crops" if plan.views == 10 else "one center crop"
    note = (
        f"The networks of Table 3 on {classes} classes, {plan.scale} scale, {len(zfnets)} "
        f"seed{'s' * (len(zfnets) > 1)}; {crops}; intervals over validation images. The test set's "
        "labels are not public. "
    )
    if diverged:
        trainings = "; ".join(f"{name}: {where}" for name, where in diverged.items())
        note += f"Diverged, and left out of the means: {trainings}. "
    return note + paper_scale_note(zfnets[0], plan.size)


def ensemble_ranks(rows: list[Row]) -> np.ndarray:
    """The rank of the true class by the mean of the networks' probabilities: (N,).

    Beyond the last if a training diverged.
    """
    diverged = [row.rank for row in rows if row.about["diverged"]]
    if diverged:
        return diverged[0]
    return ranks(np.mean([row.probability for row in rows], axis=0), rows[0].label)


def draw(result: Result) -> dict[str, Picture]:
    """No picture: the pages show the numbers as a table."""
    return {}
