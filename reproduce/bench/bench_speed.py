"""How fast occlusion, projection and search are, against the plain batched computation and against other libraries.

All methods run in one process on the same network, images, precision and threads, in turn, after a warm-up; a ratio is the
median over repetitions of the other method's time over ours, with the least and the most. The plain computation passes whole
images in batches, channels last, at its best batch size; Captum likewise at its best setting. What each returns is compared.
torch-cam has none of the three. It takes half an hour on two cores, for the plain computations are slow.
"""

from __future__ import annotations

import numpy as np
import torch

from reproduce.bench.races import (
    CAPTUM,
    OURS,
    PLAIN,
    ZENNIT,
    choice,
    grow,
    occlusion,
    projection,
    search,
)
from reproduce.core.figure import Figure, Result
from reproduce.gallery import number
from zfnet.plot import LINES, new_figure

FIGURE = Figure(
    id="bench_speed",
    title="Speed of occlusion, projection and search",
    claim="Computing only what changed, or only what a unit sees, is exact and several times faster than the plain batched "
    "computation; the search costs hardly more than the forward pass.",
    inputs=("model", "images", "top", "device"),
    seed=11,
    time_budget=1500,
    manual=True,
    config={
        "batches": {"cpu": [4, 8, 64], "cuda": [8, 64, 256]},
        "repeats": 5, "size": 32, "stride": 8, "strides": [16, 8, 4, 2], "sizes": [8, 16, 32, 64, 96],
        "search": 256, "images": [100, 1000, 10000], "features": [1, 4, 16, 64, 256], "units": 32, "one by one": 4,
        "choice stride": 16,
    },
    network="chain",
)  # fmt: skip
GOALS = {  # set by ourselves
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


def compute(ctx) -> Result:
    batches = FIGURE.config["batches"][ctx.device_type]
    config, arrays, measured = FIGURE.config | {"batches": batches}, {}, {}
    x = ctx.images.batch(np.linspace(0, len(ctx.images) - 1, 16).astype(int)).to(ctx.device)
    for name, part in (("occlusion, 1 image", x[:1]), ("occlusion, 16 images", x)):
        measured[name] = occlusion(ctx.model, part, config, ctx.device)
    measured["projection, all features"] = projection(ctx, config)
    measured["search"] = search(ctx, config)
    measured["the chosen way's time over the faster way's"] = choice(
        ctx.model, x[:1], config, ctx.device
    )
    for name, settings in grow(ctx, x[:1], config).items():
        arrays |= {
            f"{name}.at": np.array(list(settings)),
            f"{name}.seconds": np.array(list(settings.values())),
        }
    reached = {}
    for name, goals in GOALS.items():
        for what, goal in goals.items():
            value = measured[name][what][0]
            least = what.endswith(f"over {OURS}")
            reached[f"{name}: {what} {'at least' if least else 'at most'} {goal:g}"] = (
                value >= goal if least else value <= goal
            )
    measured["goals"] = {goal: "reached" if yes else "not reached" for goal, yes in reached.items()}
    verdict = (
        "reproduced" if all(reached.values()) else "partial" if any(reached.values()) else "differs"
    )
    note = (
        f"Median, least and most of {config['repeats']} repetitions in turn; a goal is reached by the median. "
        f"{torch.get_num_threads()} threads, float32. Captum was not run on 16 images. "
        "Ours projects every unit of Fig. 2; the others project some of each layer, weighted by the layers' numbers, Captum "
        "one by one. 'seconds for all features' is measured once more, with the reading of the images."
    )
    return Result(arrays, measured, verdict, n=config["repeats"], note=note)


def draw(result: Result):
    tasks = {name: result.measured[name] for name in GOALS}
    figure = new_figure(11, 6.2)
    grid = figure.subplots(2, 4)
    labels = {
        f"{OURS}, seconds": LINES[0],
        f"{PLAIN}, seconds": LINES[1],
        f"{ZENNIT}, seconds": LINES[2],
        f"{CAPTUM}, seconds": LINES[3],
    }
    labels |= {
        "forward pass, seconds": LINES[1],
        "k = 9, seconds": LINES[0],
        "k = 1000, seconds": LINES[5],
    }
    for axes, (name, task) in zip(grid[0], tasks.items(), strict=True):
        shown = [
            (label.removesuffix(", seconds"), *task[label], colour)
            for label, colour in labels.items()
            if label in task
        ]
        for i, (_, median, least, most, colour) in enumerate(shown):
            axes.bar(
                i, median, 0.7, color=colour, yerr=[[median - least], [most - median]], capsize=3
            )
            axes.annotate(
                f"{number(float(median))} s",
                (i, most),
                ha="center",
                va="bottom",
                xytext=(0, 3),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set_xticks(range(len(shown)), [label for label, *_ in shown])
        axes.set_ylim(0, 1.15 * max(most for _, _, _, most, _ in shown))
        axes.set_title(name)
    grid[0, 0].set_ylabel("seconds: median, least and most")
    words = {
        "stride": "occlusion: stride, pixels",
        "occluder": "occlusion: occluder, pixels",
        "features": "projection: features of layer 5",
        "images": "search: images",
    }
    for axes, (name, label) in zip(grid[1], words.items(), strict=True):
        at, seconds = result.arrays[f"{name}.at"], result.arrays[f"{name}.seconds"]
        axes.fill_between(at, seconds[:, 1], seconds[:, 2], color=LINES[0], alpha=0.25, linewidth=0)
        axes.loglog(at, seconds[:, 0], color=LINES[0], marker="o", markersize=4)
        axes.set_xticks(at, [f"{v:,}" for v in at])
        for i, (place, median) in enumerate(zip(at, seconds[:, 0], strict=True)):
            below = (
                i > 0 and at[i - 1] < place < 2 * at[i - 1]
            )  # beside its neighbour's there is no room
            axes.annotate(
                f"{number(float(median))} s",
                (place, median),
                xytext=(0, -14 if below else 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            )
        axes.margins(x=0.14, y=0.15)
        axes.minorticks_off()
        axes.set_yticks([])
        axes.set_title(label)
        axes.grid(alpha=0.3)
    grid[1, 0].set_ylabel("ours, logarithmic scales")
    return {"bench_speed.png": figure}
