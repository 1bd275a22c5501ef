"""What changes weights or rate beside the gradient: clipped filters, shared and frozen layers, schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from zfnet.model import Network
from zfnet.training.config import Optim
from zfnet.training.evaluate import first_dense
from zfnet.training.setup import TrainingError


@torch.no_grad()
def clip_filters(model: nn.Module, limit: float) -> None:
    """Scale each convolution filter whose RMS exceeds `limit` back to it (section 3: "crucial"); not those of frozen layers."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            rms = module.weight.pow(2).mean((1, 2, 3), keepdim=True).sqrt()
            module.weight.mul_((limit / rms.clamp_min(1e-12)).clamp_max(1))


@torch.no_grad()
def tie_places(model: Network) -> None:
    """Give layer 6 one weight a map and unit, the mean over the places of the last maps: it sees each map's mean.

    After every step it is the projection onto such weights, as `clip_filters` is one. It is what makes a classifier of a
    global average pool (Lin et al. 2014, section 3.2) generalise where images are few, without another architecture.
    """
    layer = first_dense(model)
    weight = layer.weight.view(layer.out_features, model.table[-1].maps, -1)
    weight.copy_(weight.mean(2, keepdim=True).expand_as(weight))


def freeze(model: Network, layers: int) -> None:
    """Let the first layers, so many of them, keep their weights; BatchNorm's running means go on, for they depend on the size.

    Raises TrainingError where none would be left to train.
    """
    there = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model)
    if layers >= there:
        raise TrainingError(f"frozen: {layers} of a network's {there} layers leaves none to train")
    number = 0
    for module in model:
        number += isinstance(module, (nn.Conv2d, nn.Linear))
        module.requires_grad_(number > layers)


def reset_momentum(optimizer: torch.optim.SGD) -> None:
    """Set the momentum of frozen layers to zero: one that is thawed later begins anew, not with gradients of long ago."""
    for parameter, state in optimizer.state.items():
        if not parameter.requires_grad and "momentum_buffer" in state:
            state["momentum_buffer"].zero_()


def one_cycle(share: float, peak: float, warmup: float) -> float:
    """Learning rate at a share of the run: a linear rise from a tenth, then a cosine to zero."""
    if share < warmup:
        return peak * (0.1 + 0.9 * share / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


def anneal(progress: dict, error: float, options: Optim) -> None:
    """Divide the rate by 10 when validation error has not fallen for `patience` epochs: the paper did so by hand."""
    if error < progress["best"]:
        progress["best"], progress["bad_epochs"] = error, 0
        return
    progress["bad_epochs"] += 1
    if progress["bad_epochs"] >= options.patience:
        progress["lr"], progress["bad_epochs"] = progress["lr"] / 10, 0
