"""Table 2: the classification error of ZFNet, Krizhevsky's network, and ensembles.

The paper's claims: ZFNet beats its replica of AlexNet. Several ZFNets of different seeds, averaged,
beat one. So does ZFNet with wider layers 3-5, and all of them together beat every other row.

Ours are the networks of Table 3, trained by its configuration on a part of ImageNet; see there. The
bundled network with BatchNorm is not used. Krizhevsky's numbers are the paper's only.
"""

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablations import (
    ENSEMBLE,
    FILES,
    NO_TREE,
    SETTINGS,
    WIDE,
    Plan,
    load_images,
    plan_for,
    trainings,
)
from reproduce.paper.rows import Row, diverged_trainings, paper_scale_note, ranks
from reproduce.paper.trained_rows import train_rows
from zfnet.analysis.intervals import mean_interval

ERROR = "error, %: val top-1, val top-5"
FIGURE = Figure(
    id="tab2",
    title="ImageNet 2012 classification error",
    claim="ZFNet beats AlexNet, an ensemble of ZFNets beats one, wider layers 3-5 lower the error, "
    "and all together are best.",
    inputs=("tree", "device"),
    seed=0,
    time_budget=3 * 3600,
    version=2,
    paper={
        ERROR: {
            "Krizhevsky et al., 1 net": [40.7, 18.2],
            "Krizhevsky et al., 5 nets": [38.1, 16.4],
            "AlexNet, the replica": [40.5, 18.1],
            "ZFNet": [38.4, 16.5],
            "ZFNets (a)": [36.7, 15.3],
            "ZFNet with wider layers 3-5 (b)": [37.5, 16.0],
            "(a) and (b)": [36.0, 14.7],
        },
        "test top-5": {
            "Krizhevsky et al., 5 nets": 16.4, "ZFNets (a)": 15.3,
            "ZFNet with wider layers 3-5 (b)": 16.1, "(a) and (b)": 14.8,
        },
        "nets": {"ZFNets (a)": 5, "(a) and (b)": 6},
    },
    config=SETTINGS | {"times chance": 3},
    files=FILES,
    manual=True,
    trains=True,
    scales=("paper", "subset", "smoke"),
)  # fmt: skip
ONE, MANY, WIDER, ALL = "ZFNet", "ZFNets (a)", "ZFNet with wider layers 3-5 (b)", "(a) and (b)"
REPLICA = "AlexNet, the replica"


STEPS = {  # claim -> the better row and the worse one
    "ZFNet beats AlexNet": (ONE, REPLICA),
    "wider layers 3-5 lower the error": (WIDER, ONE),
    "several ZFNets beat one": (MANY, ONE),
    "several ZFNets and the wider one together beat several ZFNets": (ALL, MANY),
    "several ZFNets and the wider one together beat the wider one": (ALL, WIDER),
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
    diverged = diverged_trainings({REPLICA: [alexnet], "ZFNet": zfnets, WIDER: [wide]})
    converged = [row for row in zfnets if not row.about["diverged"]]
    rank = {
        REPLICA: ensemble_ranks([alexnet]),
        ONE: ensemble_ranks(zfnets[:1]),
        WIDER: ensemble_ranks([wide]),
    }
    if len(converged) > 1:
        rank[MANY] = ensemble_ranks(converged)
        if not wide.about["diverged"]:
            rank[ALL] = ensemble_ranks([*converged, wide])
    errors = {
        name: [round(100 * float((of_row > k).mean()), 2) for k in (1, 5)]
        for name, of_row in rank.items()
    }
    nets = {MANY: len(converged), ALL: len(converged) + 1}
    gains = {
        claim: mean_interval(100.0 * ((rank[worse] > 1).astype(float) - (rank[better] > 1)))
        for claim, (better, worse) in STEPS.items()
        if better in rank
    }
    classes, times = len(np.unique(alexnet.label)), FIGURE.config["times chance"]
    worst = min(100 - errors[name][0] for name in (REPLICA, ONE, WIDER))
    learned = worst >= times * 100 / classes
    claims, summary = verdict({c: above(gain) for c, gain in gains.items()} if learned else {})
    measured = {
        ERROR: errors,
        "nets": {name: count for name, count in nets.items() if name in rank},
        "gain in val top-1, points, with its 95 % interval": gains,
        "classes": classes,
        "epochs": plan.epochs,
        "trainings that diverged": diverged,
        "claims": claims,
    }
    crops = "ten crops" if plan.views == 10 else "one center crop"
    note = (
        f"The networks of Table 3 on {classes} classes, {plan.scale} scale, {len(zfnets)} "
        f"seed{'s' * (len(zfnets) > 1)}; {crops}; intervals over validation images. The test set's "
        "labels are not public. "
    )
    if diverged:
        trainings = "; ".join(f"{name}: {where}" for name, where in diverged.items())
        note += f"Diverged, and left out of the means: {trainings}. "
    if not learned:
        note += f"The networks are not {times} times as good as chance: nothing is compared. "
    note += paper_scale_note(zfnets[0], plan.size)
    summary = summary if plan.scale != "smoke" else "not comparable"
    paper = FIGURE.paper[ERROR]
    finding = (
        f"On {classes} classes, the top-1 error is {errors[ONE][0]:.1f} % for ZFNet and "
        f"{errors[REPLICA][0]:.1f} % for AlexNet; in the paper it is {paper[ONE][0]} % and "
        f"{paper[REPLICA][0]} % on 1000 classes."
    )
    return Result({}, measured, summary, len(alexnet.label), note, plan.scale, finding)


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
