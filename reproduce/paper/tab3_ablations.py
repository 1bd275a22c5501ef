"""Table 3: what each part of the architecture contributes.

The paper's claims: without layers 3 and 4, or 6 and 7, little is lost; without all four, almost
everything, so depth matters. The width of layers 6 and 7 matters little. Wider layers 3-5 help;
with wider 6 and 7 too they overfit. ZFNet beats AlexNet.

Ours: every row from scratch by one configuration, at the scale of `--scale` (PLANS in
ablations.py). "paper" is the paper's configuration, configs/imagenet.yaml. "subset", the default,
takes miniImageNet's 98 classes at 96 pixels, and 50 images per class held out as test images. On a
CPU it trains two rows side by side, 6 to 8 hours of two cores. A run that is interrupted
continues where it was, also within a row.

AlexNet and ZFNet are trained with two seeds. Their spread tells which differences are larger than
those between two trainings of one row.
"""

import numpy as np
import torch
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import above, below, every, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablations import (
    FILES,
    NO_TREE,
    REPEATED,
    ROWS,
    SETTINGS,
    WIDE,
    Plan,
    load_images,
    plan_for,
    trainings,
)
from reproduce.paper.contrasts import (
    Rows,
    contrast,
    seed_spread,
    training_misses,
    validation_misses,
)
from reproduce.paper.learning_curves import draw_learning_curves
from reproduce.paper.rows import diverged_trainings, paper_scale_note, training_speed
from reproduce.paper.trained_rows import train_rows
from zfnet.analysis.faithfulness import rank_correlation

PAPER = (  # in percent, in the order of ROWS
    (35.1, 40.5, 18.1), (41.8, 45.4, 22.1), (27.4, 40.0, 18.4), (27.4, 44.8, 22.4),
    (71.1, 71.3, 50.1), (40.3, 41.7, 18.8), (26.8, 40.0, 18.1), (33.1, 38.4, 16.5),
    (38.2, 40.2, 17.6), (22.0, 38.8, 17.0), (18.8, 37.5, 16.0), (10.0, 38.3, 16.9),
)  # fmt: skip
ERROR = "error, %: train, val top-1, val top-5"
FIGURE = Figure(
    id="tab3",
    title="ImageNet 2012 error of changed architectures",
    claim="Removing layers 3, 4 or 6, 7 costs little, removing all four almost everything. The "
    "width of layers 6, 7 matters little. Wider layers 3-5 help, and overfit with wider 6, 7. "
    "ZFNet beats AlexNet.",
    inputs=("tree", "device"),
    seed=0,
    time_budget=8 * 3600,
    version=2,
    paper={ERROR: {name: list(errors) for name, errors in zip(ROWS, PAPER, strict=True)}},
    config=SETTINGS | {"little": 0.5, "hardly": 0.25, "times chance": 3, "underfit": 5},
    files=FILES,
    manual=True,
    trains=True,
    scales=("paper", "subset", "smoke"),
)
A, Z = "AlexNet", "ZFNet"
NEITHER = f"{A} without layers 3, 4, 6, 7"
FOUR = (NEITHER, f"{A} without layers 3, 4", f"{A} without layers 6, 7", A)
WIDEST = "ZFNet, wider layers 3-5: and 6, 7 of 8192"
BEYOND = "without layers 3, 4, 6, 7, beyond what 3, 4 and 6, 7 cost one by one"
COSTS = {  # change -> the changed row, and the row that it changes
    "without layers 3, 4": (f"{A} without layers 3, 4", A),
    "without layers 6, 7": (f"{A} without layers 6, 7", A),
    "without layers 3, 4, 6, 7": (NEITHER, A),
    "AlexNet, layers 6, 7 of 2048": (f"{A}, layers 6, 7 of 2048", A),
    "AlexNet, layers 6, 7 of 8192": (f"{A}, layers 6, 7 of 8192", A),
    "ZFNet, layers 6, 7 of 2048": (f"{Z}, layers 6, 7 of 2048", Z),
    "ZFNet, layers 6, 7 of 8192": (f"{Z}, layers 6, 7 of 8192", Z),
    "ZFNet, wider layers 3-5": (f"{Z}, {WIDE}", Z),
    WIDEST: (f"{Z}, {WIDE}, and 6, 7 of 8192", f"{Z}, {WIDE}"),
    "ZFNet instead of AlexNet": (Z, A),
}
COST = "cost in val top-1, points, with its 95 % interval"
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
    first, times = rows[Z][0], figure.config["times chance"]
    classes = len(np.unique(first.label))
    means = {
        name: np.mean([[r.train_error(), r.error(), r.error(5)] for r in seeds], axis=0)
        for name, seeds in rows.items()
    }
    errors = {name: [round(float(v), 2) for v in of_row] for name, of_row in means.items()}
    costs = _costs(rows)
    widest, wide = COSTS[WIDEST]
    overfit = contrast(rows, [(1, widest), (-1, wide)], training_misses)
    spread, _ = seed_spread(rows, validation_misses)
    diverged = diverged_trainings(rows)
    slow = [n for n, (train, val, _) in means.items() if val - train < figure.config["underfit"]]
    measured: dict = {
        ERROR: errors,
        "order of the rows, val top-1, Spearman": _rank_agreement(errors, figure.paper[ERROR]),
        COST: costs,
        "the same in the paper": _paper_costs(figure.paper[ERROR]),
        "seeds": {name: len(seeds) for name, seeds in rows.items() if len(seeds) > 1},
        "standard deviation of val top-1 between seeds, points": spread,
        SLOW: slow,
        "validation images": len(first.label),
        "classes": classes,
        "epochs": plan.epochs,
        "accuracy by chance, %": 100 / classes,
        **_training_facts(rows),
        "trainings that diverged": diverged,
        "training error of the widest network above that with only layers 3-5 wider, points": (
            overfit
        ),
    }
    lowest = min(100 - means[name][1] for name in rows if name != NEITHER)
    learned = lowest >= times * 100 / classes
    judgments = claims(costs, overfit, figure.config) if learned else {}
    measured["claims"], summary = verdict(judgments)
    summary = summary if plan.scale != "smoke" else "not comparable"
    note = _protocol_note(rows, plan, classes)
    if not learned:
        note += (
            "A row other than the one without layers 3, 4, 6, 7 is not "
            f"{times} times as good as chance: no claim is tested. "
        )
    if diverged:
        trainings = "; ".join(f"{name}: {where}" for name, where in diverged.items())
        note += f"Diverged, and counted as wrong on every image: {trainings}. "
    if slow:
        note += (
            f"In {len(slow)} of {len(rows)} rows the training error is within "
            f"{figure.config['underfit']} points of the validation error: these compare how fast "
            "networks learn, not how well they generalize. "
        )
    note += paper_scale_note(first, plan.size)
    arrays = {"curves": _curves(rows, plan.epochs)}
    return Result(arrays, measured, summary, n=len(first.label), note=note, scale=plan.scale)


def _curves(rows: Rows, epochs: int) -> np.ndarray:
    """Validation error of each row's first seed by epoch: (rows, epochs), NaN where diverged."""
    curves = np.full((len(rows), epochs), np.nan)
    for curve, seeds in zip(curves, rows.values(), strict=True):
        log = [line["val_top1_error"] for line in seeds[0].about["log"]]
        curve[: len(log)] = log
    return curves


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


def _training_facts(rows: Rows) -> dict:
    """Speeds, hours, commits and devices of the trainings."""
    trainings = [row for seeds in rows.values() for row in seeds]
    speeds = {name: training_speed(seeds[0]) for name, seeds in rows.items()}
    return {
        "training images per second, each row at its time": {
            name: round(speed, 1) for name, speed in speeds.items() if speed
        },
        "hours of training, all rows": sum(row.about["seconds"] for row in trainings) / 3600,
        "commits": sorted({row.about["commit"] for row in trainings}),
        "devices": sorted({row.about["device"] for row in trainings}),
    }


def _rank_agreement(ours: dict[str, list[float]], paper: dict[str, list[float]]) -> float | None:
    """Spearman's correlation of the rows by validation error; None if all rows are alike."""
    order = [torch.tensor([[table[name][1] for name in ours]]).double() for table in (ours, paper)]
    correlation = float(rank_correlation(*order))
    return correlation if np.isfinite(correlation) else None


def _costs(rows: Rows) -> dict[str, list[float]]:
    """[mean, low, high] of the rise in validation error by each change, in points."""
    costs = {
        name: contrast(rows, [(1, changed), (-1, complete)], validation_misses)
        for name, (changed, complete) in COSTS.items()
    }
    signs = zip((1, -1, -1, 1), FOUR, strict=True)
    return costs | {BEYOND: contrast(rows, list(signs), validation_misses)}


def _paper_costs(paper: dict[str, list[float]]) -> dict[str, float]:
    """The same costs by the paper's errors."""
    costs = {name: paper[a][1] - paper[b][1] for name, (a, b) in COSTS.items()}
    one_by_one = costs["without layers 3, 4"] + costs["without layers 6, 7"]
    costs[BEYOND] = costs["without layers 3, 4, 6, 7"] - one_by_one
    return {name: round(points, 1) for name, points in costs.items()}


def claims(
    costs: dict[str, list[float]], overfit: list[float], config: dict
) -> dict[str, bool | None]:
    """Judge the paper's conclusions.

    Args:
        costs: Intervals of the costs of all changes.
        overfit: Interval of the training error of `WIDEST`, above that with layers 3-5 wider.
        config: Shares of the cost of removing four layers that count as "little" and "hardly".
    """
    all_four = costs["without layers 3, 4, 6, 7"]
    costly = all_four[1] > 0

    def less(name: str, share: float) -> bool | None:
        return below(costs[name], share * all_four[0]) if costly else None

    def within(name: str, share: float) -> bool | None:
        limit = share * all_four[0]
        return every((less(name, share), above(costs[name], -limit))) if costly else None

    little, hardly = config["little"], config["hardly"]
    dense = [name for name in costs if "layers 6, 7 of" in name]
    small = f"costs less than {little:g} of removing all four"
    return {
        "removing layers 3, 4, 6, 7 costs more than 3, 4 and 6, 7 do one by one": (
            False if below(all_four) else above(costs[BEYOND])
        ),
        f"removing layers 3, 4 {small}": less("without layers 3, 4", little),
        f"removing layers 6, 7 {small}": less("without layers 6, 7", little),
        f"the width of layers 6, 7 costs less than {hardly:g} of removing all four": every(
            within(name, hardly) for name in dense
        ),
        "wider layers 3-5 lower the error": below(costs["ZFNet, wider layers 3-5"]),
        "with wider layers 3-5, 6, 7 it overfits: less training error, more in validation": every(
            (below(overfit), above(costs[WIDEST]))
        ),
        "ZFNet's error is below AlexNet's": below(costs["ZFNet instead of AlexNet"]),
    }


def draw(result: Result) -> dict[str, Picture]:
    """Learning curves: how fast each row learns, and where it ends."""
    if not result.measured:
        return {}
    errors = {name: of_row[1] for name, of_row in result.measured[ERROR].items()}
    cost, low, high = result.measured[COST]["ZFNet instead of AlexNet"]
    finding = (
        f"ZFNet ends at {errors[Z]:.1f} % validation error, AlexNet at {errors[A]:.1f} % "
        f"(difference {cost:+.1f} [{low:+.1f}, {high:+.1f}])"
    )
    return {"tab3.png": draw_learning_curves(errors, result.arrays["curves"], (A, Z), finding)}
