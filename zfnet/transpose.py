"""The way down through modules that the paper's network does not have.

Each is linear in evaluation mode, so it is inverted by its transpose, as the filters are. The
normalization across feature maps is skipped, as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zfnet.graph import IDENTITIES, NORMS, Step, UnsupportedNetwork
from zfnet.normalization import PaperInput


def transpose(step: Step, signal: Tensor, size: torch.Size) -> Tensor:
    """Carry a signal down through a step; `size` is the shape that entered it.

    Raises:
        UnsupportedNetwork: If there is no rule for the module.
    """
    module = step.module
    match module:
        case nn.BatchNorm1d() | nn.BatchNorm2d() if module.running_var is not None:
            # As if folded into the filters below: w' = w gain / sqrt(variance + eps).
            gain = torch.rsqrt(module.running_var + module.eps)
            gain = gain if module.weight is None else gain * module.weight
            return signal * gain.view(-1, *[1] * (signal.ndim - 2))
        case PaperInput():
            return signal * module.scale
        case nn.AdaptiveAvgPool2d():
            return _average(module, signal, size)
    if isinstance(module, (*NORMS, *IDENTITIES)):
        return signal
    raise UnsupportedNetwork(
        f"{step.name} is a {type(module).__name__}, which the deconvnet cannot invert"
    )


def _average(pool: nn.AdaptiveAvgPool2d, signal: Tensor, size: torch.Size) -> Tensor:
    """Spread each average over its window. The gradient of a linear function is its transpose."""
    if signal.shape[-2:] == size[-2:]:
        return signal
    with torch.inference_mode(False), torch.enable_grad():
        below = torch.zeros(
            len(signal), *size[1:], dtype=signal.dtype, device=signal.device, requires_grad=True
        )
        return torch.autograd.grad(pool(below), below, signal.clone())[0]
