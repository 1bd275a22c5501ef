"""Table 3: what each part of the architecture contributes.

The paper's claims: without layers 3 and 4, or 6 and 7, little is lost; without all four, almost
everything, so depth matters. The width of layers 6 and 7 matters little. Wider layers 3-5 help;
with wider 6 and 7 too they overfit. ZFNet beats AlexNet.

Ours: every row from scratch by one configuration, at the scale of `--scale` (PLANS in
ablations.py). "paper" is the paper's configuration, configs/imagenet.yaml. "subset", the default
on a GPU, takes 20 epochs of all classes at 128 pixels, and further seeds while time is left
(--force continues them). "smoke", the default on a CPU, takes 32 epochs of 100 classes at 112
pixels.
"""

import time

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from scipy.stats import t

from reproduce.core.claims import above, below, every, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablations import NO_TREE, ROWS, SETTINGS, WIDE, Plan, load_images, plan_for
from reproduce.paper.trained_rows import (
    Row,
    diverged_trainings,
    paper_scale_note,
    train_row,
    training_speed,
)
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import draw_table, new_figure

ERRORS = ("train top-1", "val top-1", "val top-5")
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
    time_budget=6000,
    paper={ERROR: {name: list(errors) for name, errors in zip(ROWS, PAPER, strict=True)}},
    config=SETTINGS | {"little": 0.5, "hardly": 0.25, "times chance": 3},
    files=("../../configs/ablations.yaml", "../../configs/imagenet.yaml"),
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


Rows = dict[str, list[Row]]  # one Row per seed


def compute(ctx: Context) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    start, plan = time.monotonic(), plan_for(ctx)
    images = load_images(ctx, plan)
    rows: Rows = {name: [] for name in ROWS}
    for seed in range(plan.seeds):
        if seed and time.monotonic() - start > 60 * plan.minutes:
            break
        for name in ctx.progress(ROWS, total=len(ROWS), desc=f"seed {seed}"):
            rows[name].append(train_row(ctx, plan, images, name, seed))
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
    overfit = _overfit(rows)
    diverged = diverged_trainings(rows)
    measured: dict = {
        ERROR: errors,
        "order of the rows, val top-1, Spearman": _rank_agreement(errors, figure.paper[ERROR]),
        "cost in val top-1, points, with its 95 % interval": costs,
        "the same in the paper": _paper_costs(figure.paper[ERROR]),
        "seeds": len(rows[Z]),
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
    if plan.scale == "smoke":
        training = [of_row[0] for of_row in means.values()]
        note += (
            f"Training errors are from {min(training):.0f} to {max(training):.0f} %: so few images "
            "and steps compare how fast networks learn, not how well. "
        )
    note += paper_scale_note(first, plan.size)
    return Result({}, measured, summary, n=len(first.label), note=note, scale=plan.scale)


def _protocol_note(rows: Rows, plan: Plan, classes: int) -> str:
    seeds, precision = len(rows[Z]), rows[Z][0].about["precision"]
    over = "seeds"
    if seeds == 1:
        over = "validation images, of one training per row: other trainings vary beyond them"
    return (
        f"{plan.epochs} epochs of {plan.per_class or 'all'} images per class, {classes} classes, "
        f"{plan.size} pixels, batch {plan.batch}, {precision}, {seeds} seed{'s' * (seeds > 1)}; "
        f"one center crop; training error without dropout. Intervals are over {over}. Speeds "
        "were measured when a row was trained, and compare only where nothing else ran. "
    )


def _training_facts(rows: Rows) -> dict:
    """Speeds, hours, commits and devices of the trainings."""
    trainings = [row for seeds in rows.values() for row in seeds]
    speeds = {name: training_speed(seeds[0]) for name, seeds in rows.items()}
    return {
        "training images a second, each row at its time": {
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
    costs = {name: cost(rows[changed], rows[whole]) for name, (changed, whole) in COSTS.items()}
    seeds = zip(*(rows[name] for name in FOUR), strict=True)
    interaction = [misses(a) - misses(b) - misses(c) + misses(d) for a, b, c, d in seeds]
    return costs | {BEYOND: interval(interaction)}


def _paper_costs(paper: dict[str, list[float]]) -> dict[str, float]:
    """The same costs by the paper's errors."""
    costs = {name: paper[a][1] - paper[b][1] for name, (a, b) in COSTS.items()}
    one_by_one = costs["without layers 3, 4"] + costs["without layers 6, 7"]
    costs[BEYOND] = costs["without layers 3, 4, 6, 7"] - one_by_one
    return {name: round(points, 1) for name, points in costs.items()}


def _overfit(rows: Rows) -> list[float]:
    """Training error of the widest network minus that with only layers 3-5 wider, in points."""
    widest, wide = (rows[name] for name in COSTS[WIDEST])
    pairs = zip(widest, wide, strict=True)
    return interval([100.0 * (a.train_rank > 1) - 100.0 * (b.train_rank > 1) for a, b in pairs])


def misses(row: Row) -> np.ndarray:
    """100 for each misclassified validation image, else 0."""
    return 100.0 * (row.rank > 1)


def cost(changed: list[Row], whole: list[Row]) -> list[float]:
    """[mean, low, high] of the rise in val top-1 error, in points."""
    return interval([misses(a) - misses(b) for a, b in zip(changed, whole, strict=True)])


def interval(differences: list[np.ndarray]) -> list[float]:
    """[mean, low, high] of differences (N,) per seed: over several seeds, else over images."""
    if len(differences) == 1:
        return mean_interval(differences[0])
    means = np.array([d.mean() for d in differences])
    n, mean = len(means), float(means.mean())
    half = float(t.ppf(0.975, n - 1) * means.std(ddof=1) / n**0.5)  # Student's t: seeds are few
    return [mean, mean - half, mean + half]


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
    small = f"costs less than {little:g} of that"
    return {
        "removing layers 3, 4, 6, 7 costs more than 3, 4 and 6, 7 do one by one": (
            False if below(all_four) else above(costs[BEYOND])
        ),
        f"removing layers 3, 4 {small}": less("without layers 3, 4", little),
        f"removing layers 6, 7 {small}": less("without layers 6, 7", little),
        f"the width of layers 6, 7 changes less than {hardly:g} of that": every(
            within(name, hardly) for name in dense
        ),
        "wider layers 3-5 lower the error": below(costs["ZFNet, wider layers 3-5"]),
        "with wider layers 6, 7 too they overfit: less training error, more in validation": every(
            (below(overfit), above(costs[WIDEST]))
        ),
        "ZFNet's error is below AlexNet's": below(costs["ZFNet instead of AlexNet"]),
    }


def draw(result: Result) -> dict[str, Picture]:
    if not result.measured:
        return {}
    rows = []
    for name, errors in result.measured[ERROR].items():
        paper = FIGURE.paper[ERROR][name]
        cells = [f"{v:.1f}" for pair in zip(errors, paper, strict=True) for v in pair]
        rows.append([name, *cells])
    header = ["error, %", *(text for error in ERRORS for text in (f"{error}: ours", "paper"))]
    figure = new_figure(11.5, 4.3)
    axes = figure.subplots()
    draw_table(axes, header, rows, [3.1, *[1.15, 0.85] * 3], (2, 4, 6))
    classes, epochs, seeds = (result.measured[key] for key in ("classes", "epochs", "seeds"))
    axes.set_title(f"{classes} classes, {epochs} epochs, seeds: {seeds}; {result.scale} scale")
    return {"tab3.png": figure}
