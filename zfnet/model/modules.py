"""Helpers for any `nn.Module`: its device, its mode, and the network inside a wrapper."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's first weight or buffer; the CPU if it has none."""
    return next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0)).device


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, AveragedModel, torch.compile and the like."""
    while isinstance(model, WRAPPERS) or hasattr(model, "_orig_mod"):
        inner = model.module if isinstance(model, WRAPPERS) else model._orig_mod
        model = inner  # pyright: ignore[reportAssignmentType]
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore the mode of each module afterwards."""
    training = [module for module in model.modules() if module.training]
    if not training:
        yield
        return
    model.eval()
    for module in model.modules():
        module.training = False  # also if `train` is overridden to keep the training mode
    try:
        yield
    finally:
        for module in training:
            if type(module).train is not nn.Module.train:
                module.train()  # merged adapters do more than set the flag
        training_modules = set(training)
        for module in model.modules():
            module.training = module in training_modules
