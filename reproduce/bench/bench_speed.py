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
from matplotlib.figure import Figure as Picture

from reproduce.bench.comparison import OURS
from reproduce.bench.networks_race import as_csv, network_goals, race_networks
from reproduce.bench.occlusion_race import choice, occlusion
from reproduce.bench.projection_race import projection
from reproduce.bench.races import grow, search
from reproduce.bench.speed_plot import draw_growth, draw_networks, draw_tasks
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result

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
    return {
        "bench_speed.png": draw_tasks(result.measured, list(GOALS)),
        "growth.png": draw_growth(result.arrays),
        "networks.png": draw_networks(result.measured[NETWORKS]),
        "networks.csv": as_csv(result.measured[NETWORKS]),
    }
