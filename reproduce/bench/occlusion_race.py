"""Time occlusion: ours, full forward passes in batches, Captum and zennit."""

from __future__ import annotations

import copy
import functools
import statistics
import unittest.mock
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import zfnet
import zfnet.fast
from reproduce.bench.comparison import (
    CAPTUM,
    OURS,
    PLAIN,
    ZENNIT,
    channels_last,
    installed,
    relative_difference,
    report,
)
from reproduce.bench.timing import Timing, best, race
from zfnet.occlusion import occlude


def occlusion(model: nn.Module, x: Tensor, config: dict, device: str) -> dict:
    """Time ours and full forward passes in batches; for a single image, also Captum and zennit.

    zennit processes positions one by one.
    """
    size, stride, batches = config["size"], config["stride"], config["batches"]
    few = config["tuning stride"]  # fewer positions are enough to choose the batch size
    batch = best(batches, lambda n: plain(model, x[:1], size, few, n), device)
    methods: dict[str, Callable] = {
        OURS: lambda: occlude(model, x, size=size, stride=stride),
        PLAIN: lambda: plain(model, x, size, stride, batch),
    }
    if len(x) == 1 and installed(CAPTUM):
        methods[CAPTUM] = by_captum(model, x, config, device)
    if len(x) == 1 and installed(ZENNIT):
        methods[ZENNIT] = _by_zennit(model, x, config)
    timings = race(methods, config["repeats"], device)
    logit = timings[OURS].result.logit
    errors = {PLAIN: relative_difference(logit, timings[PLAIN].result.logit)}
    if len(x) == 1:
        errors |= _picture_errors(timings, x, size)
    return report(timings, errors)


def plain(model: nn.Module, x: Tensor, size: int, stride: int, batch: int = 64):
    """Occlude with full forward passes."""
    with zfnet.fast.disabled():
        return occlude(model, channels_last(x), size=size, stride=stride, batch=batch)


def by_captum(model: nn.Module, x: Tensor, config: dict, device: str) -> Callable:
    from captum.attr import Occlusion

    target, copied = int(model(x).argmax()), copy.deepcopy(model)
    copied = copied.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    shape = (3, config["size"], config["size"])

    def run(batch: int, stride: int) -> Tensor:
        return Occlusion(copied).attribute(
            x, shape, (3, stride, stride), target=target, perturbations_per_eval=batch
        )

    batch = best(config["batches"], lambda n: run(n, config["tuning stride"]), device)
    return lambda: run(batch, config["stride"])


def _by_zennit(model: nn.Module, x: Tensor, config: dict) -> Callable:
    from zennit.attribution import Occlusion, occlude_independent

    window, step = config["size"], config["stride"]
    fill = functools.partial(occlude_independent, fill_fn=torch.zeros_like, invert=True)
    target = functional.one_hot(model(x).argmax(1), model(x).shape[1])
    options: Any = {"window": (window, window), "stride": (step, step)}
    method = Occlusion(model, None, lambda y: y * target, fill, **options)
    return lambda: method(x)[1]  # pyright: ignore[reportOptionalSubscript]


def _picture_errors(timings: dict[str, Timing], x: Tensor, size: int) -> dict[str, float]:
    """Compare with Captum and zennit, which return maps of the image size.

    A pixel of Captum's map is the mean drop of the logit over the positions that cover it. In
    zennit's map, it is the sum of the logits.
    """
    ours = timings[OURS].result
    total, count = torch.zeros(2, *x.shape[2:], device=x.device)
    boxes, logits = ours.boxes.view(-1, 4).tolist(), ours.logit.flatten()
    for (top, left, bottom, right), logit in zip(boxes, logits, strict=True):
        total[top:bottom, left:right] += logit
        count[top:bottom, left:right] += 1
    errors = {}
    if CAPTUM in timings:
        drop = ours.baseline.logit - total / count
        errors[CAPTUM] = relative_difference(drop, timings[CAPTUM].result[0, 0])
    if ZENNIT in timings:  # its windows wrap around at the border
        inner = slice(size, -size)
        picture = timings[ZENNIT].result[0, 0, inner, inner]
        errors[ZENNIT] = relative_difference(total[inner, inner], picture)
    return errors


def choice(model: nn.Module, x: Tensor, config: dict, device: str) -> dict:
    """Divide the time of the automatically chosen method by that of the faster method.

    A ratio of 1 means that the choice was right.
    """
    stride, ratios = config["choice stride"], {}
    tiny = zfnet.zfnet(10, norm="none", channels=(4, 4, 4, 4, 4), fc_units=8).to(device)
    for name, network in (("this network", model), ("a network of 4 maps a layer", tiny)):
        for size in [s for s in (*config["sizes"], 192) if s >= stride]:
            methods = {
                "chosen": functools.partial(occlude, network, x, size=size, stride=stride),
                "incremental": functools.partial(_incremental, network, x, size, stride),
                "plain": functools.partial(plain, network, x, size, stride),
            }
            timings = race(methods, 3, device)
            chosen, *forced = (statistics.median(t.seconds) for t in timings.values())
            ratios[f"{name}, occluder of {size}"] = chosen / min(forced)
    return ratios


def _incremental(model: nn.Module, x: Tensor, size: int, stride: int) -> None:
    """Occlude incrementally, whatever the predicted cost."""
    with unittest.mock.patch("zfnet.fast.incremental.pays", return_value=True):
        occlude(model, x, size=size, stride=stride)
