"""The speed of training, and the share of data loading; the same for torchvision's AlexNet.

All loops run in one process, alternating, after a warm-up, on the same photographs, device,
precision and threads. A ratio is the median over repetitions, with the least and the most.
Published speeds of AlexNet: 9,319 images/s on a V100, 16,487 on an A100.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure as Picture

import zfnet
from reproduce import REPOSITORY
from reproduce.bench.loops import (
    BARE,
    DATA,
    OURS_BEFORE,
    SEED,
    TORCHVISION,
    WHOLE,
    cores,
    our_loops,
    resized,
    torchvision_loops,
)
from reproduce.bench.timing import race, spread
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.site.text import number
from zfnet.data.dataset import Images
from zfnet.plot import LINES, new_figure
from zfnet.training.config import Config, load_config
from zfnet.training.setup import new_model, resolve_precision

SHARE = f"{WHOLE} over {BARE}"
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
            "batch": 128,
            "size": 128,
            "side": 146,
            "steps": 2,
            "repeats": 15,
            "precision": "auto",
        },
        "cuda": {
            "batch": 256,
            "size": 224,
            "side": 256,
            "steps": 30,
            "repeats": 5,
            "precision": "auto",
        },
        "goals": {"cpu": {SHARE: 0.9}, "cuda": {SHARE: 0.9, FASTER: 30_000}},
        "peak, TFLOP/s": {
            "H100": 989,
            "H200": 989,
            "A100": 312,
        },  # bfloat16 without sparsity, from the data sheets
    },
    trains=True,
)
RATIOS = {  # the speed of the first loop over that of the second
    SHARE: (WHOLE, BARE),
    f"{SHARE}, both compiled": (f"{WHOLE}, compiled", f"{BARE}, compiled"),
    f"{TORCHVISION}, {SHARE}": (f"{TORCHVISION}, {WHOLE}", f"{TORCHVISION}, {BARE}"),
    f"{TORCHVISION}, our pipeline over torchvision's": (OURS_BEFORE, f"{TORCHVISION}, {WHOLE}"),
    f"ours over {TORCHVISION}, {WHOLE}": (WHOLE, f"{TORCHVISION}, {WHOLE}"),
}


def compute(ctx: Context) -> Result:
    kind = ctx.device_type
    of, device = FIGURE.config[kind], torch.device(ctx.device)
    config = load_config(REPOSITORY / "configs" / "imagenet65k.yaml")
    # The network of 224 pixels, whatever the size of its input.
    config = resolve_precision(replace(config, precision=of["precision"]), device)
    of = of | {"precision": config.precision}
    count = of["batch"] * of["steps"]
    chosen = np.resize(
        np.linspace(0, len(ctx.images) - 1, min(count, len(ctx.images))).astype(int), count
    )
    images = resized(ctx.images.subset(chosen), of["side"])
    with torch.enable_grad(), tempfile.TemporaryDirectory() as folder:
        loops = our_loops(config, images, of, device)
        loops |= torchvision_loops(config, images, of, device, Path(folder))
        compiled, why = compilable(config, images, of, device) if kind == "cuda" else ({}, "")
        loops |= compiled
        timings = race(loops, of["repeats"], ctx.device)
    measured: dict = {
        f"{name}, images/s": spread([count / s for s in timing.seconds])
        for name, timing in timings.items()
    }
    if kind == "cuda":
        rates = [measured.get(f"{name}, images/s", [0.0]) for name in (WHOLE, f"{WHOLE}, compiled")]
        measured[FASTER] = max(rates, key=lambda rate: rate[0])
    for name, (one, other) in RATIOS.items():
        if one not in timings:  # compiled loops, on a CPU or without a compiler
            continue
        measured[name] = spread(
            [b / a for a, b in zip(timings[one].seconds, timings[other].seconds, strict=True)]
        )
    share = [a / b for a, b in zip(timings[DATA].seconds, timings[WHOLE].seconds, strict=True)]
    measured["time of reading and augmenting over a step's"] = spread(share)
    with torch.device("meta"):
        networks = {"ZFNet": new_model(config, images), TORCHVISION: torchvision.models.alexnet()}
    measured["parameters"] = {
        name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
    }
    if kind == "cuda":
        measured |= roofline(config, measured[FASTER][0], torch.cuda.get_device_name(device))
    goals = {
        f"{what}: at least {least:,}": "reached" if measured[what][0] >= least else "not reached"
        for what, least in FIGURE.config["goals"][kind].items()
    }
    measured["goals"] = goals
    note = (
        f"ZFNet by configs/imagenet65k.yaml, batches of {of['batch']} at {of['size']} pixels, "
        f"{of['precision']}, {torch.get_num_threads()} threads; median, least and most of "
        f"{of['repeats']} alternating repetitions of {of['steps']} steps. torchvision: an "
        f"ImageFolder of the same squares of {of['side']} pixels as JPEG, random resized crops, a "
        f"DataLoader with {cores()} persistent workers."
    )
    if why:
        note += f" torch.compile failed here: {why}."
    reached = [goal == "reached" for goal in goals.values()]
    return Result(
        {}, measured, "reproduced" if all(reached) else "differs", n=of["repeats"], note=note
    )


def compilable(
    config: Config, images: Images, of: dict, device: torch.device
) -> tuple[dict[str, Callable], str]:
    """Our compiled loops, after a first run; or none, and why: Triton needs a C compiler."""
    loops = our_loops(replace(config, compile=True), images, of, device)
    chosen = {f"{name}, compiled": loops[name] for name in (WHOLE, BARE)}
    try:
        for loop in chosen.values():
            loop()
    except Exception as error:  # whatever a compiler raises, the other loops are timed
        return {}, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return chosen, ""


def roofline(config: Config, speed: float, name: str) -> dict:
    """TFLOP/s of a training step, and its share of a GPU's peak.

    The backward pass costs twice the forward pass; a multiply-add is two operations.
    """
    rows = list(
        zfnet.describe(
            zfnet.zfnet(1000, norm="batch", fc_units=config.model.fc_units, size=config.model.size)
        )
    )
    tera = 3 * 2 * sum(row.macs for row in rows) * speed / 1e12
    peak = next((peak for gpu, peak in FIGURE.config["peak, TFLOP/s"].items() if gpu in name), None)
    return {"TFLOP/s": tera} | ({"share of the peak": tera / peak} if peak else {})


def draw(result: Result) -> dict[str, Picture]:
    rates = {
        name: values for name, values in result.measured.items() if name.endswith(", images/s")
    }
    axes = (figure := new_figure(9, 0.42 * len(rates) + 0.9)).subplots()
    for i, (name, (median, least, most)) in enumerate(rates.items()):
        color = LINES[1] if name.startswith(TORCHVISION) else LINES[0]
        axes.errorbar(
            median, i, xerr=[[median - least], [most - median]], color=color, fmt="o", capsize=3
        )
        axes.text(most, i, f" {number(float(median))}", va="center", fontsize=9)
    axes.set_yticks(range(len(rates)), [name.removesuffix(", images/s") for name in rates])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=2 * max(values[2] for values in rates.values()))
    axes.set_xlabel("images per second, logarithmic: median, least and most")
    axes.grid(axis="x", alpha=0.3)
    return {"bench_train.png": figure}
