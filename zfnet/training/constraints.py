"""Constraints on weights during training: clipped filters, a shared layer 6, frozen layers."""

from __future__ import annotations

import torch
from torch import nn

from zfnet.model import Network
from zfnet.training.evaluate import first_dense
from zfnet.training.setup import TrainingError


@torch.no_grad()
def clip_filters(model: nn.Module, limit: float) -> None:
    """Scale each convolution filter with an RMS above `limit` back to it (section 3: "crucial").

    Frozen layers do not change.

    Args:
        model: A network with convolutions.
        limit: The largest RMS of a filter's weights.

    Example:
        >>> conv = nn.Conv2d(1, 1, 2, bias=False)
        >>> _ = nn.init.constant_(conv.weight, 0.5)
        >>> clip_filters(conv, 0.1)
        >>> round(conv.weight.max().item(), 6)
        0.1
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            rms = module.weight.pow(2).mean((1, 2, 3), keepdim=True).sqrt()  # (C_out, 1, 1, 1)
            module.weight.mul_((limit / rms.clamp_min(1e-12)).clamp_max(1))


@torch.no_grad()
def share_fc6(model: Network) -> None:
    """Replace the weights of layer 6 by their means over positions: one per channel and unit.

    The layer then sees the mean of each channel, as after global average pooling (Lin et al. 2014,
    section 3.2). This generalizes better with few images, and keeps the architecture.

    Args:
        model: The network.
    """
    layer = first_dense(model)
    # (units, C h w) -> (units, C, h w)
    weight = layer.weight.view(layer.out_features, model.table[-1].channels, -1)
    weight.copy_(weight.mean(2, keepdim=True).expand_as(weight))


def freeze(model: Network, layers: int) -> None:
    """Freeze the weights of the first layers, and unfreeze the others.

    BatchNorm's running statistics of frozen layers still follow the data: they depend on the
    resolution.

    Args:
        model: The network.
        layers: Number of layers with weights to freeze.

    Raises:
        TrainingError: No layer would be left to train.
    """
    total = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model)
    if layers >= total:
        raise TrainingError(f"frozen_layers: {layers} of {total} layers leave none to train")
    number = 0
    for module in model:
        number += isinstance(module, (nn.Conv2d, nn.Linear))
        module.requires_grad_(number > layers)
