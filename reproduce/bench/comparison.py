"""Shared by the races of bench_speed: method names, reports, and memory layout."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from reproduce.bench.timing import Timing, spread

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
OURS, PROJECT, PLAIN, CAPTUM, ZENNIT = "ours", "project", "plain", "Captum", "zennit"


def installed(name: str) -> bool:
    """Return whether a library is installed."""
    return importlib.util.find_spec(name.lower()) is not None


def report(timings: dict[str, Timing], errors: dict[str, float]) -> dict:
    """Return seconds, memory, ratios to ours and the largest relative difference of each method."""
    ours = timings[OURS].seconds
    entries: dict = {f"{name}, seconds": t.summary() for name, t in timings.items()}
    entries |= {f"{name}, MiB": t.memory for name, t in timings.items()}
    for name, timing in timings.items():
        if name != OURS:
            ratios = [b / a for a, b in zip(ours, timing.seconds, strict=True)]
            entries[f"{name} over {OURS}"] = spread(ratios)
    for name, error in errors.items():
        entries[f"{name}, largest relative difference"] = error
    return entries


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference divided by the largest absolute value of b."""
    return float((a - b).abs().max() / b.abs().max())


def channels_last(x: Tensor) -> Tensor:
    """Return x in the layout in which all methods are fastest."""
    return x.contiguous(memory_format=torch.channels_last)
