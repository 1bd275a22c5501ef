"""The speed of training and the share of data loading, compared with torchvision's AlexNet.

All loops run in one process and alternate after a warm-up. They use the same photographs, device,
precision and threads. A ratio has its median, minimum and maximum over repetitions.
Published speeds of AlexNet: 9,319 images/s on a V100, 16,487 on an A100.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Patch

import zfnet
from reproduce import REPOSITORY
from reproduce.bench.loops import (
    DATA_LOADING,
    PHOTOGRAPHS,
    RANDOM_TENSORS,
    SEED,
    compilable,
    our_loops,
    resized,
)
from reproduce.bench.timing import Timing, race, spread
from reproduce.bench.torchvision_loops import (
    ALEXNET_OUR_PIPELINE,
    TORCHVISION,
    cores,
    torchvision_loops,
)
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import interval_bars, new_page, set_finding
from reproduce.site.text import number
from zfnet.data.dataset import Images
from zfnet.plot import LINES
from zfnet.training.config import Config, load_config
from zfnet.training.setup import new_model, resolve_precision

SHARE = f"{PHOTOGRAPHS} over {RANDOM_TENSORS}"
FASTER = "photographs, compiled or not, images/s"
FIGURE = Figure(
    id="bench_train",
    title="Speed of training",
    claim="Reading and augmenting costs almost nothing: a step on photographs is as fast as one "
    "on random tensors.",
    inputs=("images", "device"),
    seed=SEED,
    time_budget=600,
    manual=True,
    files=("../../configs/imagenet65k.yaml",),
    config={
        "cpu": {
            "batch": 128, "size": 128, "side": 146, "steps": 2, "repeats": 15, "precision": "auto",
        },
        "cuda": {
            "batch": 256, "size": 224, "side": 256, "steps": 30, "repeats": 5, "precision": "auto",
        },
        "goals": {"cpu": {SHARE: 0.9}, "cuda": {SHARE: 0.9, FASTER: 30_000}},
        # bfloat16 without sparsity, from the data sheets
        "peak, TFLOP/s": {"H100": 989, "H200": 989, "A100": 312},
    },
    trains=True,
)  # fmt: skip
ALEXNET = f"{TORCHVISION}, {PHOTOGRAPHS}"
RATIOS = {  # the speed of the first loop divided by that of the second
    SHARE: (PHOTOGRAPHS, RANDOM_TENSORS),
    f"{SHARE}, both compiled": (f"{PHOTOGRAPHS}, compiled", f"{RANDOM_TENSORS}, compiled"),
    f"{TORCHVISION}, {SHARE}": (ALEXNET, f"{TORCHVISION}, {RANDOM_TENSORS}"),
    f"{TORCHVISION}, our pipeline over torchvision's": (ALEXNET_OUR_PIPELINE, ALEXNET),
    f"ours over {ALEXNET}": (PHOTOGRAPHS, ALEXNET),
}


def compute(ctx: Context) -> Result:
    kind = ctx.device_type
    settings, device = FIGURE.config[kind], torch.device(ctx.device)
    config = load_config(REPOSITORY / "configs" / "imagenet65k.yaml")
    # The network is that of 224 pixels, whatever the input size.
    config = resolve_precision(replace(config, precision=settings["precision"]), device)
    settings = settings | {"precision": config.precision}
    images = photographs(ctx, settings)
    with torch.enable_grad(), tempfile.TemporaryDirectory() as folder:
        loops = our_loops(config, images, settings, device)
        loops |= torchvision_loops(config, images, settings, device, Path(folder))
        compiled, error = {}, ""
        if kind == "cuda":
            compiled, error = compilable(config, images, settings, device)
        timings = race(loops | compiled, settings["repeats"], ctx.device)
    measured: dict = rates(timings, len(images)) | ratios(timings)
    measured["parameters"] = count_parameters(config, images)
    if kind == "cuda":
        names = (f"{name}, images/s" for name in (PHOTOGRAPHS, f"{PHOTOGRAPHS}, compiled"))
        measured[FASTER] = max((measured[n] for n in names if n in measured), key=itemgetter(0))
        measured |= roofline(config, measured[FASTER][0], torch.cuda.get_device_name(device))
    measured["goals"] = {
        f"{quantity}: at least {goal:,}": "reached"
        if measured[quantity][0] >= goal
        else "not reached"
        for quantity, goal in FIGURE.config["goals"][kind].items()
    }
    reached = all(goal == "reached" for goal in measured["goals"].values())
    summary = "reproduced" if reached else "differs"
    return Result({}, measured, summary, n=settings["repeats"], note=describe_run(settings, error))


def photographs(ctx: Context, settings: dict) -> Images:
    """Return the images of a loop's batches, spread over the data, and repeated if it is small."""
    count = settings["batch"] * settings["steps"]
    spaced = np.linspace(0, len(ctx.images) - 1, min(count, len(ctx.images))).astype(int)
    return resized(ctx.images.subset(np.resize(spaced, count)), settings["side"])


def rates(timings: dict[str, Timing], count: int) -> dict[str, list[float]]:
    """Return the images per second of each loop over `count` images."""
    return {
        f"{name}, images/s": spread([count / s for s in timing.seconds])
        for name, timing in timings.items()
    }


def ratios(timings: dict[str, Timing]) -> dict[str, list[float]]:
    """Return the ratios of speeds, and the share of loading in a step's time."""
    pairs = RATIOS | {"time of reading and augmenting over a step's": (PHOTOGRAPHS, DATA_LOADING)}
    return {
        name: spread(
            [b / a for a, b in zip(timings[first].seconds, timings[second].seconds, strict=True)]
        )
        for name, (first, second) in pairs.items()
        if first in timings  # no compiled loops on a CPU or without a compiler
    }


def count_parameters(config: Config, images: Images) -> dict[str, int]:
    """Return the number of parameters of both networks."""
    from torchvision.models import alexnet

    with torch.device("meta"):
        networks = {"ZFNet": new_model(config, images), TORCHVISION: alexnet()}
    return {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}


def describe_run(settings: dict, error: str) -> str:
    """Return the note of the record; `error` is that of torch.compile, if it failed."""
    note = (
        f"ZFNet of configs/imagenet65k.yaml, batches of {settings['batch']} at {settings['size']} "
        f"pixels, {settings['precision']}, {torch.get_num_threads()} threads. Median, minimum and "
        f"maximum of {settings['repeats']} alternating repetitions of {settings['steps']} steps. "
        f"torchvision reads the same squares of {settings['side']} pixels as JPEG files with an "
        f"ImageFolder, random resized crops, and a DataLoader with {cores()} persistent workers."
    )
    return f"{note} torch.compile failed: {error}." if error else note


def roofline(config: Config, speed: float, name: str) -> dict:
    """Return the TFLOP/s of a training step, and its share of the peak of the GPU.

    The backward pass costs twice the forward pass, and a multiply-add is two operations.
    """
    options = {"fc_units": config.model.fc_units, "size": config.model.size}
    rows = zfnet.describe(zfnet.zfnet(1000, norm="batch", **options))
    tera = 3 * 2 * sum(row.macs for row in rows) * speed / 1e12
    peak = next((peak for gpu, peak in FIGURE.config["peak, TFLOP/s"].items() if gpu in name), None)
    return {"TFLOP/s": tera} | ({"share of the peak": tera / peak} if peak else {})


def draw(result: Result) -> dict[str, Picture]:
    suffix = ", images/s"
    speeds = {
        name.removesuffix(suffix): values
        for name, values in result.measured.items()
        if name.endswith(suffix)
    }
    figure = new_page(0.32 * len(speeds) + 1.3)
    axes = figure.subplots()
    colors = [LINES[1] if name.startswith(TORCHVISION) else LINES[0] for name in speeds]
    interval_bars(axes, speeds, colors, "")
    for row, values in enumerate(speeds.values()):
        text = number(float(values[0]))
        axes.annotate(text, (values[2], row), (4, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xlim(right=2 * max(values[2] for values in speeds.values()))
    axes.set_xlabel("images per second, logarithmic: median, least and most")
    handles = [Patch(color=LINES[n], label=name) for n, name in enumerate(("ZFNet", TORCHVISION))]
    figure.legend(handles=handles, loc="outside lower right", ncols=2, frameon=False)
    share, least, most = result.measured[SHARE]
    set_finding(
        figure,
        f"A training step on photographs has {share:.0%} of the speed of one on random tensors "
        f"({least:.0%} to {most:.0%})",
    )
    return {"bench_train.png": figure}
