"""Time the top-k search, and our functions as the size of the task grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.bench.comparison import LAYERS, channels_last
from reproduce.bench.projection_race import choose_units
from reproduce.bench.timing import clock, race, spread
from reproduce.core.context import Context
from zfnet.data.dataset import Images
from zfnet.graph import network_steps
from zfnet.occlusion import occlude
from zfnet.projection import project

# Tasks of a minute or more run only once.
LONG = {("stride", 2), ("images", 1000), ("images", 10_000)}


class Repeated(torch.utils.data.Dataset):
    """The first n images, repeated if there are fewer than n."""

    def __init__(self, images: Images, n: int):
        self.images, self.n = images, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i % len(self.images)][0]


def search(ctx: Context, config: dict) -> dict:
    """Time the search over all layers and a forward pass over the same images."""
    n = config["search"]
    images: Any = ctx.images.batch(np.arange(n) % len(ctx.images))
    steps = network_steps(ctx.model, images[:1].to(ctx.device), LAYERS[-1])

    def forward() -> None:
        with torch.no_grad():
            for x in images.split(64):
                signal = channels_last(x.to(ctx.device))
                for step in steps:
                    signal = step.module(signal)

    methods: dict[str, Callable] = {"forward pass": forward}
    for k in (9, 1000):
        methods[f"k = {k}"] = lambda k=k: zfnet.top_activations(ctx.model, images, LAYERS, k)
    timings = race(methods, config["repeats"], ctx.device)
    forward_timing = timings.pop("forward pass")
    entries = {"forward pass, seconds": forward_timing.summary(), "images": n}
    for name, timing in timings.items():
        entries |= {f"{name}, seconds": timing.summary(), f"{name}, MiB": timing.memory}
        ratios = [b / a for a, b in zip(forward_timing.seconds, timing.seconds, strict=True)]
        entries[f"ours over the forward pass, {name}"] = spread(ratios)
    return entries


def grow(ctx: Context, x: Tensor, config: dict) -> dict[str, dict[int, list[float]]]:
    """Return our [median, minimum, maximum] seconds at each size of each task."""
    size, stride, model = config["size"], config["stride"], ctx.model
    units = choose_units(ctx.top["conv5"], max(config["features"]))
    channel, position = units.channel, units.position
    photographs = channels_last(ctx.images.batch(units.image).to(ctx.device))
    tasks = {
        "stride": {
            s: lambda s=s: occlude(model, x, size=size, stride=s) for s in config["strides"]
        },
        "occluder": {
            s: lambda s=s: occlude(model, x, size=s, stride=stride) for s in config["sizes"]
        },
        "features": {
            n: lambda n=n: project(model, photographs[:n], "conv5", channel[:n], position[:n])
            for n in config["features"]
        },
        "images": {
            n: lambda n=n: zfnet.top_activations(model, Repeated(ctx.images, n), LAYERS)
            for n in config["images"]
        },
    }
    seconds: dict[str, dict[int, list[float]]] = {}
    for name, runs in tasks.items():
        seconds[name] = {}
        for task_size, task in runs.items():
            repeats = 1 if (name, task_size) in LONG else config["repeats"]
            if ctx.device != "cpu":
                task()  # the first pass on a GPU selects kernels
            seconds[name][task_size] = spread([clock(task, ctx.device) for _ in range(repeats)])
    return seconds
