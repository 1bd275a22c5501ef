"""The deconvnet taken apart: the same way down with one of its rules changed.

`project` follows the paper. Here each rule can be replaced: the rectification, the switches, the
sum where windows share a maximum, and the normalization that the paper skips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.deconv import invert, unpool
from zfnet.forward import Trace, evaluating
from zfnet.graph import NORMS, Step, steps_until
from zfnet.receptive_field import geometry

RECTIFICATIONS = ("deconvnet", "guided", "gradient", "none")
COLLISIONS = ("sum", "overwrite")


@dataclass(frozen=True)
class Rules:
    """How a signal is carried down to pixels. The defaults are the paper's.

    Attributes:
        rectification: What passes a ReLU on the way down: "deconvnet" the positive signal,
            "gradient" the signal where the forward activation was positive, "guided" both
            conditions at once (Springenberg et al. 2015), "none" everything.
        switches: Whether values are unpooled to the recorded maxima. Otherwise each value goes to
            the top left corner of its window.
        collision: Where windows share a maximum: "sum" or "overwrite", as in `zfnet.project`.
        normalization: Whether contrast normalization is inverted by its gradient. The paper's
            deconvnet skips it.
    """

    rectification: str = "deconvnet"
    switches: bool = True
    collision: str = "sum"
    normalization: bool = False

    def __post_init__(self):
        for name, choices in (("rectification", RECTIFICATIONS), ("collision", COLLISIONS)):
            if getattr(self, name) not in choices:
                value = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def project_variant(
    model: nn.Module,
    t: Trace,
    layer: str,
    channel: int,
    position: tuple[int, int],
    rules: Rules,
) -> Tensor:
    """Carry one activation down to pixels by changed rules.

    Args:
        model: The traced network.
        t: The trace of one image, from `zfnet.trace`.
        layer: A layer with weights: conv1, ..., fc8.
        channel: The feature map.
        position: (row, column); (0, 0) for a dense layer.
        rules: What to change. `Rules()` gives `zfnet.project`'s pixels.

    Returns:
        Pixels (1, 3, H, W), signed. With "gradient" and normalization: the gradient of the
        activation times the activation.

    Example:
        >>> import zfnet
        >>> model, x = zfnet.mnist().eval(), torch.rand(1, 3, 28, 28)
        >>> t = zfnet.trace(model, x)
        >>> pixels = project_variant(model, t, "conv2", 3, (2, 2), Rules())
        >>> torch.testing.assert_close(pixels, zfnet.project(model, x, "conv2", 3, (2, 2)).pixels)
    """
    maps = t[layer]
    signal = torch.zeros_like(maps)  # (1, C, H, W) or (1, C)
    at = (0, channel, *position)[: maps.ndim]
    signal[at] = maps[at]
    steps = steps_until(t.steps, layer)
    with evaluating(model), torch.no_grad():
        for i in reversed(range(len(steps))):
            below = t.outputs[_output_name(steps[i - 1], t)] if i else t.x
            signal = _invert(steps[i], signal, below, t, rules)
    return signal


def _invert(step: Step, signal: Tensor, below: Tensor, t: Trace, rules: Rules) -> Tensor:
    """Carry a signal down through one step; `below` is what entered the step."""
    module = step.module
    if isinstance(module, nn.ReLU):
        return _rectify(signal, t.outputs[_output_name(step, t)] > 0, rules.rectification)
    if isinstance(module, nn.MaxPool2d):
        size = (below.shape[2], below.shape[3])
        switches = t.switches[step.name]
        if not rules.switches:
            switches = corner_switches(module, size, switches)
        return unpool(signal, switches, size, module, rules.collision)
    if rules.normalization and isinstance(module, NORMS):
        return _gradient(module, below, signal)
    return invert(step, signal, t)


def _rectify(signal: Tensor, active: Tensor, rule: str) -> Tensor:
    if rule in ("deconvnet", "guided"):
        signal = signal.relu()
    return signal * active if rule in ("gradient", "guided") else signal


def corner_switches(pool: nn.MaxPool2d, size: tuple[int, int], like: Tensor) -> Tensor:
    """Switches (N, C, h, w) that point to the top left corner of each window, inside the map.

    Args:
        pool: The pooling.
        size: (H, W) of the map below.
        like: The recorded switches, whose shape is returned.
    """
    _, stride, padding, _ = geometry(pool)
    row, column = (
        (torch.arange(n, device=like.device) * s - p).clamp(0, full - 1)
        for n, s, p, full in zip(like.shape[2:], stride, padding, size, strict=True)
    )
    return (row[:, None] * size[1] + column).expand_as(like)


def _gradient(module: nn.Module, below: Tensor, signal: Tensor) -> Tensor:
    """Multiply a signal by the transposed Jacobian of a module at its input."""
    with torch.enable_grad():
        point = below.detach().clone().requires_grad_()
        return torch.autograd.grad(module(point), point, signal)[0]


def _output_name(step: Step, t: Trace) -> str:
    """The name under which a trace holds a step's output."""
    return step.layer if step.layer and step.layer in t.outputs else step.name
