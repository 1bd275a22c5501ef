"""Variants of the deconvnet with one of its rules changed.

`project` follows the paper. Here each rule can be replaced: the rectification, the switches, the
sum where windows share a maximum, and the normalization that the paper skips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.deconv import backproject, invert, unpool
from zfnet.forward import Trace, apply, run
from zfnet.graph import NORMS, RECTIFIERS, Step, geometry, steps_until, with_inputs
from zfnet.model import evaluating

RECTIFICATIONS = ("deconvnet", "guided", "gradient", "none")
COLLISIONS = ("sum", "overwrite")


@dataclass(frozen=True)
class Rules:
    """How a signal is projected to pixels. The defaults are the paper's.

    Attributes:
        rectification: What passes a ReLU in the backward pass: "deconvnet" the positive signal,
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
    values: dict[str, Tensor] = {"": t.x}  # of every step; a trace keeps one per layer
    with evaluating(model), torch.no_grad():
        part = run(
            steps_until(t.steps, layer),
            t.x,
            visit=lambda step, out: values.update({step.name: out}),
        )
        signal = torch.zeros_like(part.output)  # (1, C, H, W) or (1, C)
        at = (0, channel, *position)[: signal.ndim]
        signal[at] = part.output[at]
        below = {step.name: values[inputs[0]] for step, inputs in with_inputs(part.steps) if inputs}

        def rule(step: Step, signal: Tensor, t: Trace, collision: str) -> Tensor | tuple:
            return _invert(step, signal, t, rules, values[step.name], below.get(step.name))

        return backproject(part, signal, rule=rule)


def _invert(
    step: Step, signal: Tensor, t: Trace, rules: Rules, output: Tensor, below: Tensor | None
) -> Tensor | tuple:
    """Carry a signal down through one step; `output` and `below` are what it returned and read."""
    module = step.module
    if isinstance(module, RECTIFIERS) and rules.rectification != "deconvnet":
        return _rectify(module, signal, output, rules)
    if isinstance(module, nn.MaxPool2d):
        size = (t.inputs[step.name][-2], t.inputs[step.name][-1])
        switches = t.switches[step.name]
        if not rules.switches:
            switches = corner_switches(module, size, switches)
        return unpool(signal, switches, size, module, rules.collision)
    if rules.normalization and isinstance(module, NORMS) and below is not None:
        return _gradient(module, below, signal)
    return invert(step, signal, t)


def _rectify(module: nn.Module, signal: Tensor, output: Tensor, rules: Rules) -> Tensor:
    """Replace the rectification; a rectifier's slope at its output is that at its input."""
    if rules.rectification == "none":
        return signal
    signal = signal.relu() if rules.rectification == "guided" else signal
    return _gradient(module, output, signal)


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
        return torch.autograd.grad(apply(module, point), point, signal)[0]
