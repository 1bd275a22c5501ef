"""Table 3: what each part of the architecture contributes.

The paper's claims: without layers 3 and 4, or 6 and 7, little is lost; without all four, almost
everything, so depth matters. The width of layers 6 and 7 matters little. Wider layers 3-5 help;
with wider 6 and 7 too they overfit. ZFNet beats AlexNet.

Ours: every row from scratch by one configuration, at the scale of `--scale` (PLANS in
ablations.py). "paper" is the paper's configuration, configs/imagenet.yaml. "subset", the default,
takes miniImageNet's 98 classes at 96 pixels, and 50 images per class held out as test images. On a
CPU it trains two rows side by side, 6 to 8 hours of two cores. A run that is interrupted
continues where it was, also within a row.

AlexNet and ZFNet have two seeds. Differences below the spread of seeds decide nothing.
"""

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import explain, points, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablation_claims import judge_costs
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import (
    FILES,
    NO_TREE,
    REPEATED,
    ROWS,
    SETTINGS,
    TOO_SMALL,
    Plan,
    plan_for,
    trainings,
)
from reproduce.paper.contrasts import (
    ALL_FOUR,
    COSTS,
    ZFNET,
    A,
    Z,
    costs,
    overfitting,
    paper_costs,
    rank_agreement,
    seed_spread,
    validation_misses,
)
from reproduce.paper.learning_curves import draw_learning_curves
from reproduce.paper.rows import (
    Rows,
    diverged_trainings,
    paper_scale_note,
    training_facts,
    validation_curves,
)
from reproduce.paper.trained_rows import train_rows

PAPER = (  # in percent, in the order of ROWS
    (35.1, 40.5, 18.1), (41.8, 45.4, 22.1), (27.4, 40.0, 18.4), (27.4, 44.8, 22.4),
    (71.1, 71.3, 50.1), (40.3, 41.7, 18.8), (26.8, 40.0, 18.1), (33.1, 38.4, 16.5),
    (38.2, 40.2, 17.6), (22.0, 38.8, 17.0), (18.8, 37.5, 16.0), (10.0, 38.3, 16.9),
)  # fmt: skip
ERROR = "error, %: train, val top-1, val top-5"
FIGURE = Figure(
    id="tab3",
    title="ImageNet 2012 error of changed architectures",
    claim="Removing layers 3 and 4, or 6 and 7, costs little; removing all four costs almost "
    "everything. The width of layers 6 and 7 matters little. Wider layers 3-5 help, but overfit "
    "if layers 6 and 7 are wider too. ZFNet beats AlexNet.",
    inputs=("tree", "device"),
    seed=0,
    time_budget=8 * 3600,
    version=3,
    paper={ERROR: {name: list(errors) for name, errors in zip(ROWS, PAPER, strict=True)}},
    config=SETTINGS | {"little": 0.5, "hardly": 0.25, "times chance": 3, "underfit": 5},
    files=FILES,
    manual=True,
    trains=True,
    scales=("paper", "subset", "smoke"),
    headline=(
        "error, %: train, val top-1, val top-5: AlexNet",
        "error, %: train, val top-1, val top-5: AlexNet without layers 3, 4",
        "error, %: train, val top-1, val top-5: AlexNet without layers 6, 7",
        "error, %: train, val top-1, val top-5: AlexNet without layers 3, 4, 6, 7",
        "error, %: train, val top-1, val top-5: ZFNet",
        "error, %: train, val top-1, val top-5: ZFNet, layers 6, 7 of 8192",
        "error, %: train, val top-1, val top-5: ZFNet, layers 3-5 of 512, 1024, 512",
    ),
)
COST = "cost in val top-1, points, with 95 % interval"
PAPER_COST = "cost in val top-1 in the paper, points"
OVERFIT = "training error: widest network minus that with wider layers 3-5 only, points"
DIVERGED = "trainings that diverged"
RANKS = "rank correlation with the paper's rows, val top-1 (Spearman)"
SLOW = "rows with a training error within 5 points of the validation error"


def compute(ctx: Context) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = plan_for(ctx)
    rows = train_rows(ctx, plan, load_images(ctx, plan), trainings(plan))
    return judge(rows, plan, FIGURE)


def judge(rows: Rows, plan: Plan, figure: Figure) -> Result:
    """The table, the costs of the changes with their intervals, and the claims.

    No claim is tested if a row other than the smallest network learned nothing.
    """
    measured = _measure(rows, plan, figure)
    errors, classes, times = measured[ERROR], measured["classes"], figure.config["times chance"]
    lowest = min(100 - errors[name][1] for name in rows if name != COSTS[ALL_FOUR][0])
    judgments, evidence = {}, {}
    reason = f"A network is not {times} times as good as chance, so no claim is tested."
    if lowest >= times * 100 / classes:
        judgments, evidence = judge_costs(measured[COST], measured[OVERFIT], figure.config)
        reason = explain(judgments, evidence)
    measured["claims"], summary = verdict(judgments)
    if plan.scale == "smoke":
        summary, reason = "not comparable", TOO_SMALL
    finding = (
        f"ZFNet ends at {errors[Z][1]:.1f} % validation error and AlexNet at {errors[A][1]:.1f} % "
        f"({points(measured[COST][ZFNET])}); removing layers 3, 4, 6 and 7 changes the error by "
        f"{points(measured[COST][ALL_FOUR])}."
    )
    note = _protocol_note(rows, plan, classes) + _limits_note(measured, len(rows), figure)
    note += paper_scale_note(rows[Z][0], plan.size)
    arrays, n = {"curves": validation_curves(rows, plan.epochs)}, measured["validation images"]
    return Result(arrays, measured, summary, n, note, plan.scale, finding, reason)


def _measure(rows: Rows, plan: Plan, figure: Figure) -> dict:
    """The measured numbers."""
    means = {
        name: np.mean([[r.train_error(), r.error(), r.error(5)] for r in seeds], axis=0)
        for name, seeds in rows.items()
    }
    errors = {name: [round(float(v), 2) for v in of_row] for name, of_row in means.items()}
    label, paper = rows[Z][0].label, figure.paper[ERROR]
    classes, (spread, _) = len(np.unique(label)), seed_spread(rows, validation_misses)
    underfit = figure.config["underfit"]
    return {
        ERROR: errors,
        RANKS: rank_agreement(errors, paper),
        COST: costs(rows),
        PAPER_COST: paper_costs(paper),
        "seeds": {name: len(seeds) for name, seeds in rows.items() if len(seeds) > 1},
        "standard deviation of val top-1 between seeds, points": spread,
        SLOW: [name for name, (train, val, _) in means.items() if val - train < underfit],
        "validation images": len(label),
        "classes": classes,
        "epochs": plan.epochs,
        "chance accuracy, %": 100 / classes,
        **training_facts(rows),
        DIVERGED: diverged_trainings(rows),
        OVERFIT: overfitting(rows),
    }


def _limits_note(measured: dict, count: int, figure: Figure) -> str:
    """Sentences on trainings that diverged, and on rows that were trained too little."""
    note, slow = "", measured[SLOW]
    if diverged := measured[DIVERGED]:
        trainings = "; ".join(f"{name}: {where}" for name, where in diverged.items())
        note += f"Diverged, and counted as wrong on every image: {trainings}. "
    if slow:
        note += (
            f"In {len(slow)} of {count} rows the training error is within "
            f"{figure.config['underfit']} points of the validation error: these compare how fast "
            "networks learn, not how well they generalize. "
        )
    return note


def _protocol_note(rows: Rows, plan: Plan, classes: int) -> str:
    seeds, precision = len(rows[Z]), rows[Z][0].about["precision"]
    over = "validation images, of one training per row: other trainings vary beyond them"
    if seeds > 1:
        over = (
            f"validation images and trainings. {' and '.join(REPEATED)} have {seeds} seeds; their "
            "spread counts for all rows"
        )
    held_out = f"{plan.held_out} training images" if plan.held_out else "all images of val/"
    return (
        f"{plan.epochs} epochs of {plan.per_class or 'all'} images per class, {classes} classes, "
        f"{plan.size} pixels, batch {plan.batch}, {precision}. The validation images are "
        f"{held_out} per class, which no network was trained on. One center crop; training error "
        f"without dropout. Intervals are over {over}. Speeds were measured when a row was trained, "
        "and compare only where nothing else ran. "
    )


def draw(result: Result) -> dict[str, Picture]:
    """Learning curves: how fast each row learns, and where it ends."""
    if not result.measured:
        return {}
    errors = {name: of_row[1] for name, of_row in result.measured[ERROR].items()}
    curves = draw_learning_curves(errors, result.arrays["curves"], (A, Z), result.finding)
    return {"tab3.png": curves}
