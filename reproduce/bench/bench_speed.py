"""The speed of occlusion, projection and search, compared with plain computation and libraries.

All methods run in one process on the same network, images, precision and threads, alternating,
after a warm-up. A ratio is the median over repetitions of the other method's time over ours, with
the least and the most. The plain computation passes whole images in batches, channels last, at its
best batch size; Captum likewise at its best setting. Results are compared. torch-cam has none of
the three. The race of occlusion is run on other networks, too, beside the bound by counted
operations; networks.csv has its table. It takes an hour and a half on two cores, because the plain
computations are slow.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.bench.comparison import CAPTUM, OURS, PLAIN, ZENNIT
from reproduce.bench.networks_race import (
    BOUND,
    as_csv,
    network_goals,
    race_networks,
)
from reproduce.bench.occlusion_race import choice, occlusion
from reproduce.bench.projection_race import projection
from reproduce.bench.races import grow, search
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.site.text import number
from zfnet.plot import LINES, new_figure

FIGURE = Figure(
    id="bench_speed",
    title="Speed of occlusion, projection and search",
    claim="Computing only what changes, or only a unit's receptive field, is exact and several "
    "times faster than the plain batched computation. The search costs hardly more than the "
    "forward pass.",
    inputs=("model", "images", "top", "device"),
    seed=11,
    version=2,
    time_budget=5400,
    manual=True,
    config={
        "batches": {"cpu": [4, 8, 64], "cuda": [8, 64, 256]},
        "repeats": 5, "size": 32, "stride": 8, "strides": [16, 8, 4, 2],
        "sizes": [8, 16, 32, 64, 96], "search": 256, "images": [100, 1000, 10000],
        "features": [1, 4, 16, 64, 256], "units": 32, "one by one": 4, "choice stride": 16,
        "tuning stride": 32, "network race": {"repeats": 3},
        "networks": ["vgg16", "resnet18", "resnet50", "alexnet", "our alexnet", "zfnet"],
    },
    network="chain",
)  # fmt: skip
GOALS = {  # our own
    "occlusion, 1 image": {"plain over ours": 3.5, "Captum over ours": 3.5},
    "occlusion, 16 images": {"plain over ours": 4.5},
    "projection, all features": {
        "plain over ours": 8,
        "Captum over ours": 50,
        "seconds for all features": 60,
    },
    "search": {
        "ours over the forward pass, k = 9": 1.1,
        "ours over the forward pass, k = 1000": 1.1,
    },
}
NETWORK_GOALS, SHARE_OF_BOUND = {"VGG-16": 4.0}, 0.7  # Captum over ours
NETWORKS = "occlusion of networks"

COLORS = {  # of the bars
    OURS: LINES[0],
    PLAIN: LINES[1],
    ZENNIT: LINES[2],
    CAPTUM: LINES[3],
    "forward pass": LINES[1],
    "k = 9": LINES[0],
    "k = 1000": LINES[5],
}
SIZES = {  # of the tasks that grow
    "stride": "occlusion: stride, pixels",
    "occluder": "occlusion: occluder, pixels",
    "features": "projection: features of layer 5",
    "images": "search: images",
}


def compute(ctx: Context) -> Result:
    batches = FIGURE.config["batches"][ctx.device_type]
    config = FIGURE.config | {"batches": batches}
    rows = np.linspace(0, len(ctx.images) - 1, 16).astype(int)
    x = ctx.images.batch(rows).to(ctx.device)
    measured: dict = {
        "occlusion, 1 image": occlusion(ctx.model, x[:1], config, ctx.device),
        "occlusion, 16 images": occlusion(ctx.model, x, config, ctx.device),
        "projection, all features": projection(ctx, config),
        "search": search(ctx, config),
        "the chosen way's time over the faster way's": choice(ctx.model, x[:1], config, ctx.device),
        NETWORKS: race_networks(x[:1], config, ctx.device),
    }
    arrays = {}
    for name, seconds in grow(ctx, x[:1], config).items():
        arrays[f"{name}.at"] = np.array(list(seconds))
        arrays[f"{name}.seconds"] = np.array(list(seconds.values()))
    reached = _goals(measured)
    measured["goals"] = {goal: "reached" if yes else "not reached" for goal, yes in reached.items()}
    verdict = "partial" if any(reached.values()) else "differs"
    verdict = "reproduced" if all(reached.values()) else verdict
    note = (
        f"Median, least and most of {config['repeats']} alternating repetitions; a goal is reached "
        f"by the median. {torch.get_num_threads()} threads, float32. Captum was not run on 16 "
        "images. Ours projects every unit of Fig. 2. The others project some units of each layer, "
        "weighted by the layers' numbers; Captum one by one. 'seconds for all features' is "
        "measured once more, with the reading of the images."
    )
    return Result(arrays, measured, verdict, n=config["repeats"], note=note)


def _goals(measured: dict) -> dict[str, bool]:
    """Whether each goal is reached."""
    reached = {}
    for name, goals in GOALS.items():
        for quantity, goal in goals.items():
            value = measured[name][quantity][0]
            if quantity.endswith(f"over {OURS}"):
                reached[f"{name}: {quantity} at least {goal:g}"] = value >= goal
            else:
                reached[f"{name}: {quantity} at most {goal:g}"] = value <= goal
    return reached | network_goals(measured[NETWORKS], NETWORK_GOALS, SHARE_OF_BOUND)


def draw(result: Result) -> dict[str, Picture | str]:
    networks = result.measured[NETWORKS]
    figure = new_figure(11, 8.6)
    upper, lower = figure.subfigures(2, 1, height_ratios=[6.2, 2.4])  # pyright: ignore
    grid = upper.subplots(2, 4)
    for axes, name in zip(grid[0], GOALS, strict=True):
        _draw_bars(axes, result.measured[name])
        axes.set_title(name)
    grid[0, 0].set_ylabel("seconds: median, least and most")
    for axes, (name, label) in zip(grid[1], SIZES.items(), strict=True):
        _draw_growth(axes, result.arrays[f"{name}.at"], result.arrays[f"{name}.seconds"])
        axes.set_title(label)
    grid[1, 0].set_ylabel("ours, logarithmic scales")
    _draw_networks(lower.subplots(), networks)
    return {"bench_speed.png": figure, "networks.csv": as_csv(networks)}


def _draw_networks(axes: Axes, networks: dict[str, dict]) -> None:
    """The other methods' times over ours, by network, and the bound as a black line."""
    first = next(iter(networks.values()))
    methods = [name for name in (PLAIN, CAPTUM, ZENNIT) if f"{name} over {OURS}" in first]
    width = 0.8 / len(methods)
    for i, entry in enumerate(networks.values()):
        for j, method in enumerate(methods):
            median, least, most = entry[f"{method} over {OURS}"]
            place, error = i - 0.4 + (j + 0.5) * width, [[median - least], [most - median]]
            label = f"{method} over {OURS}" if i == 0 else None
            axes.bar(place, median, width, color=COLORS[method], yerr=error, capsize=2, label=label)
            axes.annotate(number(float(median)), (place, most), (0, 2), "data", "offset points",
                          ha="center", fontsize=8)  # fmt: skip
        label = BOUND if i == 0 else None
        axes.plot([i - 0.42, i + 0.42], [entry[BOUND]] * 2, color="black", label=label)
    axes.set_xticks(range(len(networks)), list(networks))
    axes.set_ylabel("time over ours")
    axes.set_title("Occlusion of networks: 1 image")
    axes.legend(fontsize=8)


def _draw_bars(axes: Axes, task: dict) -> None:
    """The seconds of each method."""
    names = [name for name in COLORS if f"{name}, seconds" in task]
    top = 0.0
    for i, name in enumerate(names):
        median, least, most = task[f"{name}, seconds"]
        error, top = [[median - least], [most - median]], max(top, most)
        axes.bar(i, median, 0.7, color=COLORS[name], yerr=error, capsize=3)
        _label(axes, (i, most), median, (0, 3), va="bottom")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.15 * top)


def _draw_growth(axes: Axes, at: np.ndarray, seconds: np.ndarray) -> None:
    """Our seconds over the size of a task."""
    median, least, most = seconds.T
    axes.fill_between(at, least, most, color=LINES[0], alpha=0.25, linewidth=0)
    axes.loglog(at, median, color=LINES[0], marker="o", markersize=4)
    axes.set_xticks(at, [f"{v:,}" for v in at])
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5}
    for i, (place, value) in enumerate(zip(at, median, strict=True)):
        crowded = i > 0 and at[i - 1] < place < 2 * at[i - 1]
        _label(axes, (place, value), value, (0, -14 if crowded else 6), bbox=box)
    axes.margins(x=0.14, y=0.15)
    axes.minorticks_off()
    axes.set_yticks([])
    axes.grid(alpha=0.3)


def _label(axes: Axes, at: tuple[float, float], seconds: float, offset, **style) -> None:
    text, coordinates = f"{number(float(seconds))} s", "offset points"
    axes.annotate(text, at, xytext=offset, textcoords=coordinates, ha="center", fontsize=8, **style)
