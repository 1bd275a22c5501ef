"""The network cut down to the receptive fields of some units: what a unit sees is all that its projection needs.

A unit of layer 3 sees 75 x 75 pixels of 224 x 224, of layer 5 139 x 139. The receptive fields of M units, cut out, pass
through the network's own convolutions and poolings without padding, down to the single cell of each unit. Near a border a
field reaches outside the image: there each layer sees its own padding, not a continued image, so before each layer the
cells that lie outside its map are set to what the layer pads with. The result is a `Trace` of patches, with switches inside
the patch, and `deconv.backproject` carries signals down through it as through any other.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from zfnet.activations import Step, Trace, apply, max_pool, sizes
from zfnet.windows import Window

EDGE = "edge of "


class Edge(nn.Module):
    """Sets cells outside the map to `value` on the way up, to zero on the way down; in place. `outside` is (M, h, w) bool."""

    def __init__(self, outside: Tensor, value: float):
        super().__init__()
        self.outside, self.value = outside[:, None], value

    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill_(self.outside, self.value)


def trace_fields(steps: list[Step], x: Tensor, position: Tensor) -> Trace:
    """Pass through the network only what M units see, one in each image of x (M, 3, H, W), at position (M, 2).

    `steps` end with the units' layer, whose output in the trace is (M, C, 1, 1).
    """
    chain, seen = _fields(steps, sizes(steps, (x.shape[2], x.shape[3])), position)
    first = next(i for i, step in enumerate(chain) if isinstance(step.module, (Edge, nn.Conv2d, nn.MaxPool2d)))
    for step in chain[:first]:  # pixel by pixel, on the whole image: a mean image has its place
        x = apply(step.module, x)
    signal = cut_window(x, seen[chain[first].name])
    inputs, switches = {step.name: signal.shape for step in chain[:first]}, {}
    for step in chain[first:]:
        inputs[step.name] = signal.shape
        if isinstance(step.module, nn.MaxPool2d):
            signal, switches[step.name] = max_pool(step.module, signal)
        else:
            signal = signal.relu_() if isinstance(step.module, nn.ReLU) else apply(step.module, signal)
    return Trace(tuple(chain), {chain[-1].name: signal}, switches, inputs, x, None)


def cut_trace(t: Trace, image: Tensor, position: Tensor) -> Trace:
    """The same, cut out of a trace of whole images: units at position (M, 2) of image (M,), in the trace's last layer."""
    chain, seen = _fields(list(t.steps), {name: (shape[2], shape[3]) for name, shape in t.inputs.items()}, position)
    above = [*(seen[step.name] for step in chain[1:]), Window(position, position + 1)]
    inputs, switches = {}, {}
    for step, window in zip(chain, above, strict=True):
        below = seen[step.name]
        channels = t.inputs[step.name.removeprefix(EDGE)][1]
        inputs[step.name] = torch.Size([len(image), channels, *below.size[0].tolist()])
        if isinstance(step.module, nn.MaxPool2d):
            width = t.inputs[step.name][3]
            (r, c), (low_r, low_c) = _indices(window, t.switches[step.name].shape[2:]), below.low[:, :, None, None].unbind(1)
            switch = t.switches[step.name].permute(0, 2, 3, 1)[image[:, None, None], r, c].permute(0, 3, 1, 2)
            local = (switch // width - low_r[:, None]) * below.size[0, 1] + switch % width - low_c[:, None]
            # A pooled cell outside the map has no switch, and its signal is zero.
            switches[step.name] = local.masked_fill(window.outside(t.switches[step.name].shape[2:])[:, None], 0)
    return Trace(tuple(chain), {}, switches, inputs, t.x, None)


def _fields(steps: list[Step], size: dict, position: Tensor) -> tuple[list[Step], dict[str, Window]]:
    """The steps without padding, with an `Edge` before each window that reaches outside; and the cells that come into each."""
    window, chain, seen = Window(position, position + 1), [], {}
    for step in reversed(steps):
        if not isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            chain.append(step)
            seen[step.name] = window
            continue
        window = window.below(step.module)
        chain.append(Step(step.name, _unpadded(step.module), step.layer))
        seen[step.name] = window
        outside = window.outside(size[step.name])
        if outside.any():
            pad = -torch.inf if isinstance(step.module, nn.MaxPool2d) else 0.0
            chain.append(Step(EDGE + step.name, Edge(outside, pad)))
            seen[EDGE + step.name] = window
    return chain[::-1], seen


def largest(steps: list[Step]) -> int:
    """How many numbers the largest map of one unit's field holds."""
    window, most = Window(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64)), 1
    for step in reversed(steps):
        if isinstance(step.module, nn.Conv2d):
            most = max(most, int(window.size.prod()) * step.module.out_channels)
        if isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            window = window.below(step.module)
    return most


def cut_window(maps: Tensor, window: Window) -> Tensor:
    """Cut a window of one size (h, w) out of each of M maps (M, C, H, W), zero outside: (M, C, h, w)."""
    size = maps.shape[2:]
    r, c = _indices(window, size)
    image = torch.arange(len(maps), device=maps.device)[:, None, None]
    patch = maps.permute(0, 2, 3, 1)[image, r, c].permute(0, 3, 1, 2)
    outside = window.outside(size)
    return patch.masked_fill(outside[:, None], 0) if outside.any() else patch


def _indices(window: Window, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Rows (M, h, 1) and columns (M, 1, w) of the cells, those outside moved to the border."""
    r, c = window.rows_and_columns()
    return r.clamp(0, size[0] - 1)[:, :, None], c.clamp(0, size[1] - 1)[:, None]


def _unpadded(module: nn.Conv2d | nn.MaxPool2d) -> nn.Module:
    """The same module, sharing its weights, for patches that hold their own padding."""
    module = copy.copy(module)
    module.padding, module.ceil_mode = (0, 0), False  # pyright: ignore
    return module
