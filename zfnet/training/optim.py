"""Optimizer, learning rate schedule and averaged weights of a run, from PyTorch's own parts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zfnet.training.config import Optim

Schedule = LambdaLR | ReduceLROnPlateau


def new_optimizer(model: nn.Module, options: Optim) -> torch.optim.SGD:
    """Create SGD with weight decay on weights, but not on biases and BatchNorm."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov, fused=True
    )
    if options.momentum:
        # The fused step needs all buffers or none, but frozen layers would get none.
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def reset_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zero the momentum of frozen layers, which would move them once they are unfrozen."""
    for parameter, state in optimizer.state.items():
        if not parameter.requires_grad and "momentum_buffer" in state:
            state["momentum_buffer"].zero_()


def new_schedule(optimizer: torch.optim.Optimizer, options: Optim, steps: int) -> Schedule:
    """Create the learning rate schedule of a cycle.

    "one_cycle" advances at each step. "plateau" advances at each evaluation: it divides the rate by
    10 when the validation error has not improved for `patience` epochs. The paper did so by hand.

    Args:
        optimizer: Its learning rate is scheduled.
        options: The schedule's options.
        steps: Number of steps in the cycle.
    """
    if options.schedule == "one_cycle":
        return LambdaLR(optimizer, lambda step: one_cycle(step / steps, options.warmup))
    return ReduceLROnPlateau(
        optimizer, "min", factor=0.1, patience=options.patience - 1, threshold=0, eps=0
    )


def one_cycle(share: float, warmup: float) -> float:
    """Return the learning rate relative to its peak: a linear rise from 0.1, then a cosine to 0.

    Args:
        share: Share of the cycle's steps that have been made, 0 to 1.
        warmup: Share of the steps in which the rate rises.

    Example:
        >>> [round(one_cycle(share, 0.2), 2) for share in (0, 0.1, 0.2, 0.6, 1)]
        [0.1, 0.55, 1.0, 0.5, 0.0]
    """
    if share < warmup:
        return 0.1 + 0.9 * share / warmup
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


def new_average(model: nn.Module, decay: float) -> AveragedModel:
    """Create an exponential moving average of weights and buffers.

    The decay of the n-th update is min(decay, n / (n + 9)), so early weights are soon forgotten.

    Args:
        model: The network. Its present weights are the average's start.
        decay: The decay per update, 0 to 1.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> average = new_average(layer, 0.9)
        >>> _ = nn.init.constant_(layer.weight, 1.0)
        >>> average.update_parameters(layer)
    """

    @torch.no_grad()
    def update(averages: Any, values: Any, _: Tensor | int) -> None:
        # The third argument is n on the weights' device; reading it would synchronize a GPU.
        n = int(average.n_averaged)
        if averages[0].is_floating_point():
            get_ema_multi_avg_fn(min(decay, n / (n + 9)))(averages, values, n)
        else:  # BatchNorm's counters
            for counter, value in zip(averages, values, strict=True):
                counter.copy_(value)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)  # pyright: ignore
    average.n_averaged.fill_(1)  # else the first update would copy the weights
    return average
