"""Figure 6: layer 1 without and with clipped filters, and layers 1 and 2 of AlexNet and ZFNet.

The paper's claims: (a) without clipping their RMS a few filters dominate layer 1, (c) with it they
do not. (b), (d) AlexNet's stride of 4 and filters of 11 pixels leave dead filters, a mix of very
high and very low frequencies, and aliasing in layer 2. (c), (e) ZFNet's 2 and 7 do not.

Ours: three trainings on miniImageNet's 98 classes at 96 pixels, from the paper's initial weights,
with its range of inputs and its crops. On a CPU (a) and (b) are trained side by side, then (c). A
run that is interrupted continues where it was.

    python -m reproduce run fig6 --data PATH

Without clipping, the largest filter of so short a training may stay below the paper's limit of 0.1.
So (c) is clipped at half the largest RMS of (a), and at most at 0.1. AlexNet is not clipped, as
Krizhevsky's was not.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import higher, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper import filter_statistics as stats
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import FILES, NO_TREE, SETTINGS, Plan
from reproduce.paper.filter_training import (
    PLANS,
    TILE,
    Arrays,
    result_path,
    train_filters,
    train_missing,
    training_config,
)
from reproduce.paper.side_by_side import run_side_by_side
from zfnet.analysis.intervals import mean_interval
from zfnet.data.dataset import Images
from zfnet.plot import LINES, enlarge, mosaic, new_figure, show
from zfnet.training.loop import DivergedError

FREE, ALEXNET, OURS = "ZFNet, not clipped", "AlexNet", "ZFNet"
RUNS = {FREE: "ZFNet", ALEXNET: "AlexNet", OURS: "ZFNet"}  # panel -> row of Table 3
FIGURE = Figure(
    id="fig6",
    title="Features of layers 1 and 2, before and after the paper's changes",
    claim="Without clipping one filter of layer 1 dominates. AlexNet's layer 1 has more dead "
    "filters and fewer middle frequencies than ZFNet's, and its layer 2 more aliasing.",
    inputs=("tree", "device"),
    seed=6,
    time_budget=5 * 3600,
    config=SETTINGS | {
        "fig6 plans": {scale: asdict(plan) for scale, plan in PLANS.items()},
        "flat below": stats.FLAT, "untrained above": stats.UNTRAINED,
        "low": 0.1, "high": 0.25, "times chance": 3, "stands out": 1.1,
    },
    paper={"limit": 0.1},
    files=FILES,
    manual=True,
    version=2,
    trains=True,
    scales=("paper", "subset", "smoke"),
)  # fmt: skip
BY_EPOCH = "largest RMS of layer 1 over the median, by epoch"
DEAD = "dead filters of layer 1: flat or never trained"
MIDDLE = "in middle frequencies, %, with its 95 % interval"
ALIASING = "layer-2 projections: energy in high frequencies, %"


def compute(ctx: Context) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = PLANS[ctx.requested_scale or "subset"]
    images = load_images(ctx, plan)
    try:
        arrays, limit = _train(ctx, plan, images)
    except DivergedError as error:
        note = f"Nothing to analyze: {error}."
        return Result({}, {}, "not comparable", n=0, note=note, scale=plan.scale)
    return judge(arrays, limit, plan, len(images["val"]), len(images["val"].classes))


def _train(ctx: Context, plan: Plan, images: dict[str, Images]) -> tuple[Arrays, float]:
    """The arrays of the three networks, and the limit of the RMS of (c)."""
    configs = {
        name: training_config(plan, RUNS[name], 0.0, FIGURE.seed) for name in (FREE, ALEXNET)
    }
    missing = [name for name in configs if not result_path(configs[name], images).exists()]
    if plan.parallel > 1 and len(missing) > 1 and ctx.device_type == "cpu":
        tasks = [(ctx.model_name, ctx.data, plan, RUNS[name], 0.0, FIGURE.seed) for name in missing]
        run_side_by_side(train_missing, tasks, plan.parallel, ctx.progress)
    runs = {name: train_filters(ctx, images, config) for name, config in configs.items()}
    largest = float(stats.rms(runs[FREE]["filters"][-1]).max())
    limit = float(f"{min(FIGURE.paper['limit'], largest / 2):.2g}")
    config = training_config(plan, RUNS[OURS], limit, FIGURE.seed)
    runs[OURS] = train_filters(ctx, images, config)
    return {f"{n}.{key}": v for n, run in runs.items() for key, v in run.items()}, limit


def judge(arrays: Arrays, limit: float, plan: Plan, n: int, classes: int) -> Result:
    """Measure the filters of the three networks, and judge the claims.

    Args:
        arrays: The arrays of `train_filters`, by network.
        limit: The limit of the RMS of (c).
        plan: The size of the trainings.
        n: Number of validation images.
        classes: Number of classes.
    """
    config = FIGURE.config
    measured: dict[str, Any] = {**_measure(arrays), "limit": limit}
    learned = min(measured["val top-1, %"].values()) >= config["times chance"] * 100 / classes
    measured["claims"], summary = verdict(_judgments(measured, len(arrays[f"{OURS}.initial"])))
    if not learned or plan.scale == "smoke":
        summary = "not comparable"
    note = _note(plan, n, measured)
    if not learned:
        note += f" Some network is not {config['times chance']} times as good as chance."
    if diverged := measured["trainings that diverged"]:
        runs = "; ".join(f"{name}: {where}" for name, where in diverged.items())
        note += f" Up to the last good epoch: {runs}."
    return Result(arrays, measured, summary, n=n, note=note, scale=plan.scale)


def _measure(arrays: Arrays) -> dict[str, Any]:
    """The measured numbers by network."""
    limits = (FIGURE.config["low"], FIGURE.config["high"])
    filters = {name: arrays[f"{name}.filters"][-1] for name in RUNS}
    bands = {
        name: stats.band_shares(stats.center(of_run), limits) for name, of_run in filters.items()
    }
    flat = {name: stats.flat(of_run) for name, of_run in filters.items()}
    untrained = {
        name: stats.untrained(of_run, arrays[f"{name}.initial"]) for name, of_run in filters.items()
    }
    diverged = {name: str(arrays[f"{name}.diverged"]) for name in RUNS}
    high = {name: arrays[f"{name}.high"] for name in RUNS if arrays[f"{name}.high"].size}
    return {
        "val top-1, %": {name: 100 - float(arrays[f"{name}.error"]) for name in RUNS},
        "trainings that diverged": {name: where for name, where in diverged.items() if where},
        "largest RMS of a filter of layer 1": {
            name: float(stats.rms(of_run).max()) for name, of_run in filters.items()
        },
        BY_EPOCH: {name: stats.dominance(arrays[f"{name}.filters"]) for name in RUNS},
        "epochs": {name: arrays[f"{name}.epochs"].tolist() for name in RUNS},
        DEAD: {name: int((flat[name] | untrained[name]).sum()) for name in RUNS},
        "flat filters of layer 1": {name: int(flat[name].sum()) for name in RUNS},
        "filters of layer 1 that never trained": {
            name: int(untrained[name].sum()) for name in RUNS
        },
        "maps of layers 1 and 2 that no image excites": {
            name: [int(arrays[f"{name}.dead.{layer}"].sum()) for layer in ("conv1", "conv2")]
            for name in RUNS
        },
        "energy of layer 1's filters in low, middle, high frequencies, %": {
            name: [float(v) for v in 100 * shares.mean(0)] for name, shares in bands.items()
        },
        MIDDLE: {n: mean_interval(100 * s[:, 1], seed=FIGURE.seed) for n, s in bands.items()},
        ALIASING: {n: mean_interval(100 * s, seed=FIGURE.seed) for n, s in high.items()},
    }


def _judgments(measured: dict, count: int) -> dict[str, bool | None]:
    """The claims; `count` is the number of filters of layer 1."""
    ratio, dead, middle, high = (measured[key] for key in (BY_EPOCH, DEAD, MIDDLE, ALIASING))
    larger = ratio[FREE][-1] / ratio[OURS][-1]
    differs = max(larger, 1 / larger) > FIGURE.config["stands out"]
    return {
        "the largest filter stands out more without clipping": larger > 1 if differs else None,
        "AlexNet has more dead filters in layer 1 than ZFNet": stats.larger_share(
            dead[ALEXNET], count, dead[OURS], count
        ),
        "ZFNet's layer-1 filters have more energy in middle frequencies than AlexNet's": higher(
            middle[OURS], middle[ALEXNET]
        ),
        "AlexNet's layer-2 projections have more energy in high frequencies than ZFNet's": higher(
            high.get(ALEXNET), high.get(OURS)
        ),
    }


def _note(plan: Plan, n: int, measured: dict) -> str:
    config, largest = FIGURE.config, measured["largest RMS of a filter of layer 1"][FREE]
    return (
        f"{plan.epochs} epochs at {plan.size} pixels, {plan.scale} scale, with the paper's inputs, "
        "initial weights and crops. Without clipping, the largest RMS of a filter is "
        f"{largest:.2g}; (c) is clipped at {measured['limit']:g}, the paper's network at "
        f"{FIGURE.paper['limit']:g}. Low is below {config['low']:g}, high above "
        f"{config['high']:g} cycles per pixel in either direction, the most that a stride of 2 "
        f"carries (a stride of 4, half of that). Of all filters the middle {stats.WINDOW} pixels "
        f"count. A filter is dead if its RMS is below {stats.FLAT:g} of the layer's median (flat), "
        f"or if more than {stats.UNTRAINED:.0%} of its energy is that of its initial weights "
        "(never trained); counts are compared by Fisher's exact test. A filter stands out more by "
        f"a factor of {config['stands out']:g}, our choice, because each network is trained once. "
        f"Maps that none of {n:,} validation images excites are counted too. Layer 2 is shown by "
        "units whose receptive field is inside the image."
    )


def draw(result: Result) -> dict[str, Picture]:
    if not result.arrays:
        return {}
    figure = new_figure(8.4, 9.4)
    grid = figure.add_gridspec(4, 6, height_ratios=(2.0, 2.4, 2.4, 1.5))
    measured, count = result.measured, len(result.arrays[f"{OURS}.initial"])
    dead = {name: f"{number} of {count} filters dead" for name, number in measured[DEAD].items()}
    titles = {
        FREE: f"(a) {FREE}:\nlargest filter {measured[BY_EPOCH][FREE][-1]:.1f} x the median",
        ALEXNET: f"(b) {ALEXNET}:\n{dead[ALEXNET]}",
        OURS: f"(c) {OURS}, RMS at most {measured['limit']:g}:\n{dead[OURS]}",
    }
    for i, (name, title) in enumerate(titles.items()):
        axes = figure.add_subplot(grid[0, 2 * i : 2 * i + 2])
        _draw_filters(axes, result.arrays[f"{name}.filters"][-1], title)
    for row, letter, name in ((1, "d", ALEXNET), (2, "e", OURS)):
        high = measured[ALIASING].get(name)
        share = f": {high[0]:.0f} % of energy in high frequencies" if high else ""
        title = f"({letter}) {name}, layer 2{share}"
        for half, key, text in ((0, "projections", title), (1, "patches", "their image patches")):
            axes = figure.add_subplot(grid[row, 3 * half : 3 * half + 3])
            _draw_blocks(axes, result.arrays, name, key, text)
    _draw_dominance(figure.add_subplot(grid[3, :]), measured)
    free, clipped = (measured[BY_EPOCH][name][-1] for name in (FREE, OURS))
    figure.suptitle(
        f"Without clipping the largest filter is {free:.1f} times the median, with it {clipped:.1f}"
        f"; dead filters: AlexNet {measured[DEAD][ALEXNET]}, ZFNet {measured[DEAD][OURS]}",
        fontsize=10,
    )
    return {"fig6.jpg": figure}


def _draw_filters(axes: Axes, filters: np.ndarray, title: str) -> None:
    """All filters on one scale, so that the largest stands out and flat ones are gray."""
    tiles = 0.5 + 0.5 * filters.transpose(0, 2, 3, 1) / max(float(np.abs(filters).max()), 1e-12)
    show(axes, mosaic(enlarge(tiles.astype(np.float32), 34), 12, gap=3))
    axes.set_title(title, fontsize=9)


def _draw_blocks(axes: Axes, arrays: Arrays, name: str, key: str, title: str) -> None:
    """Nine tiles per feature as a block, with its channel above."""
    tiles, columns, gap = arrays[f"{name}.{key}"], 4, 26
    if not len(tiles):
        tiles = np.full((1, 1, TILE, TILE, 3), 0.5, np.float32)
    blocks = np.stack([mosaic(nine, 3, gap=1) for nine in tiles])
    show(axes, mosaic(blocks, columns, gap=gap))
    axes.set_title(title, fontsize=9, pad=14)
    height, width = blocks.shape[1] + gap, blocks.shape[2] + gap
    for i, channel in enumerate(arrays[f"{name}.channels"]):
        left, top = i % columns * width, i // columns * height
        axes.text(left, top - 3, f"conv2/{channel}", fontsize=7.5, va="bottom")


def _draw_dominance(axes: Axes, measured: dict) -> None:
    for (name, ratios), color in zip(measured[BY_EPOCH].items(), LINES, strict=False):
        axes.plot(measured["epochs"][name], ratios, "o-", ms=3, color=color, label=name)
    axes.set(xlabel="epoch", ylabel="largest RMS / median")
    axes.set_title("How far the largest filter of layer 1 stands out", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
