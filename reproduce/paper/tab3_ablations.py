"""Table 3: what each part of the architecture is for: AlexNet and ZFNet with layers left out, narrowed and widened.

The paper's claims: without layers 3 and 4, or 6 and 7, little is lost; without both, almost everything, so that depth matters;
the width of layers 6 and 7 matters little, wider layers 3-5 help, with wider 6 and 7 too they overfit, and ZFNet beats AlexNet.
Ours: every row from scratch by one recipe, at the scale of --scale (PLANS in ablations.py). `paper` is the paper's recipe,
configs/imagenet.yaml. `subset`, the default on a GPU, takes 20 epochs of all classes at 128 pixels, and further seeds while
time is left (--force continues them). `smoke`, the default on a CPU, takes 32 epochs of 100 classes at 112 pixels.
"""

import time

import numpy as np
import torch
from scipy.stats import t

from reproduce.core.claims import above, below, every, verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablations import (
    NO_TREE,
    ROWS,
    SETTINGS,
    WIDE,
    Row,
    diverged,
    load,
    paper_scale,
    plan_for,
    speed_of,
    trained,
)
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import draw_table, new_figure

ERRORS = ("train top-1", "val top-1", "val top-5")
PAPER = (  # in percent, in the order of ROWS
    (35.1, 40.5, 18.1), (41.8, 45.4, 22.1), (27.4, 40.0, 18.4), (27.4, 44.8, 22.4), (71.1, 71.3, 50.1), (40.3, 41.7, 18.8),
    (26.8, 40.0, 18.1), (33.1, 38.4, 16.5), (38.2, 40.2, 17.6), (22.0, 38.8, 17.0), (18.8, 37.5, 16.0), (10.0, 38.3, 16.9),
)  # fmt: skip
ERROR = "error, %: train, val top-1, val top-5"
FIGURE = Figure(
    id="tab3",
    title="ImageNet 2012 error of changed architectures",
    claim="Removing layers 3, 4 or 6, 7 costs little, removing all four almost everything; the width of layers 6, 7 matters "
    "little; wider layers 3-5 help, and overfit with wider 6, 7; ZFNet beats AlexNet.",
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
COSTS = {  # what a change costs: the changed row, and the row that it changes
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


def compute(ctx) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    began, plan = time.monotonic(), plan_for(ctx)
    images = {split: load(ctx, plan, split) for split in ("train", "val")}
    rows: dict[str, list[Row]] = {name: [] for name in ROWS}
    for seed in range(plan.seeds):
        if seed and time.monotonic() - began > 60 * plan.minutes:
            break
        for name in ctx.progress(ROWS, total=len(ROWS), desc=f"seed {seed}"):
            rows[name].append(trained(ctx, plan, images, name, seed))
    return judge(rows, plan, FIGURE)


def judge(rows: dict[str, list[Row]], plan, figure: Figure) -> Result:
    """The table, the costs of the changes with their 95 % intervals, the claims, and whether anything was learnt at all."""
    seeds, n = len(rows[Z]), len(rows[Z][0].label)
    means = {
        name: np.mean([[r.train_error(), r.error(), r.error(5)] for r in found], axis=0)
        for name, found in rows.items()
    }
    measured: dict = {
        ERROR: {name: [round(float(v), 2) for v in errors] for name, errors in means.items()}
    }
    order = [
        torch.tensor([[table[name][1] for name in rows]])
        for table in (measured[ERROR], figure.paper[ERROR])
    ]
    agreement = float(rank_correlation(order[0].double(), order[1].double()))
    measured["order of the rows, val top-1, Spearman"] = (
        agreement if np.isfinite(agreement) else None
    )  # all rows alike
    costs = {name: cost(rows[changed], rows[whole]) for name, (changed, whole) in COSTS.items()}
    costs[BEYOND] = interval(
        [
            misses(a) - misses(b) - misses(c) + misses(d)
            for a, b, c, d in zip(*(rows[n] for n in FOUR), strict=True)
        ]
    )
    measured["cost in val top-1, points, with its 95 % interval"] = costs
    paper = {name: errors[1] for name, errors in figure.paper[ERROR].items()}
    theirs = {name: paper[a] - paper[b] for name, (a, b) in COSTS.items()}
    theirs[BEYOND] = (
        theirs["without layers 3, 4, 6, 7"]
        - theirs["without layers 3, 4"]
        - theirs["without layers 6, 7"]
    )
    measured["the same in the paper"] = {name: round(points, 1) for name, points in theirs.items()}
    classes = len(np.unique(rows[Z][0].label))
    measured |= {"seeds": seeds, "validation images": n, "classes": classes, "epochs": plan.epochs}
    measured["accuracy by chance, %"] = 100 / classes
    measured["training images a second, each row at its time"] = {
        name: round(speed, 1) for name, found in rows.items() if (speed := speed_of(found[0]))
    }
    measured["trainings that diverged"] = ended = diverged(rows)
    measured["hours of training, all rows"] = (
        sum(row.about["seconds"] for found in rows.values() for row in found) / 3600
    )
    for several, one in (("commits", "commit"), ("devices", "device")):
        measured[several] = sorted({row.about[one] for found in rows.values() for row in found})
    learnt = (
        min(100 - means[name][1] for name in rows if name != NEITHER)
        >= figure.config["times chance"] * 100 / classes
    )
    widest, wide = (rows[name] for name in COSTS[WIDEST])
    fit = interval(
        [100.0 * (a.known > 1) - 100.0 * (b.known > 1) for a, b in zip(widest, wide, strict=True)]
    )
    measured[
        "training error of the widest network above that with only layers 3-5 wider, points"
    ] = fit
    held = claims(costs, fit, figure.config) if learnt else {}
    measured["claims"], found = verdict(held)
    found = found if plan.scale != "smoke" else "not comparable"
    note = (
        f"{plan.epochs} epochs of {plan.per_class or 'all'} images of each of {classes} classes at {plan.size} pixels, batch "
        f"{plan.batch}, {rows[Z][0].about['precision']}, {seeds} seed{'s' * (seeds > 1)}; one centre crop; training error "
        "without dropout. "
        f"Intervals are over {'seeds' if seeds > 1 else 'validation images, of one training a row: others vary beyond them'}. "
        "Speeds are of the hour in which a row was trained, and compare only where nothing else ran. "
    )
    if not learnt:
        limit = f"{figure.config['times chance']} times as good as chance"
        note += f"Some row beside the one without layers 3, 4, 6, 7 is not {limit}: no claim is tested. "
    if ended:
        note += f"Diverged, and counted as wrong on every image: {'; '.join(f'{n}: {w}' for n, w in ended.items())}. "
    if plan.scale == "smoke":
        training = [errors[0] for errors in means.values()]
        note += f"Training errors are from {min(training):.0f} to {max(training):.0f} %: so few images and steps compare "
        note += "how fast networks learn, not how well. "
    note += paper_scale(rows[Z][0], plan.size)
    return Result({}, measured, found, n=n, note=note, scale=plan.scale)


def misses(row: Row) -> np.ndarray:
    """100 for each validation image that the network took for another class, else 0."""
    return 100.0 * (row.rank > 1)


def cost(changed: list[Row], whole: list[Row]) -> list[float]:
    """[mean, low, high] of the rise in val top-1 error, in points."""
    return interval([misses(a) - misses(b) for a, b in zip(changed, whole, strict=True)])


def interval(differences: list[np.ndarray]) -> list[float]:
    """[mean, low, high] of one difference an image and seed: over the seeds where there are several, else over the images."""
    if len(differences) == 1:
        return mean_interval(differences[0])
    means = np.array([d.mean() for d in differences])
    half = float(
        t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
    )  # Student's, for seeds are few
    return [float(means.mean()), float(means.mean()) - half, float(means.mean()) + half]


def claims(costs: dict[str, list[float]], fit: list[float], config: dict) -> dict[str, bool | None]:
    """Each conclusion of the paper: true, false, or None where intervals leave it open; `fit` is `WIDEST`'s in training."""
    costly = (all_four := costs["without layers 3, 4, 6, 7"])[1] > 0

    def less(name: str, share: float) -> bool | None:
        return below(costs[name], share * all_four[0]) if costly else None

    def either_way(name: str, share: float) -> bool | None:
        return (
            every((less(name, share), above(costs[name], -share * all_four[0]))) if costly else None
        )

    more = False if below(all_four) else above(costs[BEYOND])
    overfits = every((below(fit), above(costs[WIDEST])))
    little, hardly = config["little"], config["hardly"]
    dense = [name for name in costs if "layers 6, 7 of" in name]
    return {
        "removing layers 3, 4, 6, 7 costs more than 3, 4 and 6, 7 do one by one": more,
        f"removing layers 3, 4 costs less than {little:g} of that": less(
            "without layers 3, 4", little
        ),
        f"removing layers 6, 7 costs less than {little:g} of that": less(
            "without layers 6, 7", little
        ),
        f"the width of layers 6, 7 changes less than {hardly:g} of that": every(
            either_way(name, hardly) for name in dense
        ),
        "wider layers 3-5 lower the error": below(costs["ZFNet, wider layers 3-5"]),
        "with wider layers 6, 7 too they overfit: less training error, more in validation": overfits,
        "ZFNet's error is below AlexNet's": below(costs["ZFNet instead of AlexNet"]),
    }


def draw(result: Result):
    if not result.measured:
        return {}
    rows = []
    for name, errors in result.measured[ERROR].items():
        paper = FIGURE.paper[ERROR][name]
        rows.append([name, *(f"{v:.1f}" for pair in zip(errors, paper, strict=True) for v in pair)])
    header = ["error, %", *(text for error in ERRORS for text in (f"{error}: ours", "paper"))]
    figure = new_figure(11.5, 4.3)
    axes = figure.subplots()
    draw_table(axes, header, rows, [3.1, *[1.15, 0.85] * 3], (2, 4, 6))
    of = result.measured
    axes.set_title(
        f"{of['classes']} classes, {of['epochs']} epochs, seeds: {of['seeds']}; {result.scale} scale"
    )
    return {"tab3.png": figure}
