"""The network cut down to the receptive fields of some units: what a unit sees is all that its projection needs.

A unit of layer 3 sees 75 x 75 pixels of 224 x 224, of layer 5 139 x 139. The receptive fields of M units, cut out, pass
through the network's own convolutions and poolings without padding, down to the single cell of each unit. Near a border a
field reaches outside the image: there each layer sees its own padding, not a continued image. Cells that lie outside a map for
all M units are not computed but padded before the next layer; those outside for some are set to what that layer pads with. So
units of like position, taken together, cost least. The result is a `Trace` of patches, with switches inside the patch, and
`deconv.backproject` carries signals down through it as through any other.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.activations import Step, Trace, apply, layout, max_pool, sizes
from zfnet.windows import Window

BORDER = "border of "


class Border(nn.Module):
    """What a layer pads with, around a window that reaches outside its map; a signal on the way down is cut back.

    `outside` (M, h', w') bool, or None, are set; `sides` (left, right, top, bottom) are added. The way down through a pooling
    brings no signal there, for no switch points at minus infinity.
    """

    def __init__(self, sides: tuple[int, int, int, int], outside: Tensor | None, value: float):
        super().__init__()
        self.sides, self.cells, self.value = sides, () if outside is None else outside.nonzero(as_tuple=True), value

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, h', w') -> (M, C, h, w); x may be overwritten."""
        x = self._set(x) if self.cells else x
        return F.pad(x, self.sides, value=self.value) if any(self.sides) else x

    def down(self, signal: Tensor) -> Tensor:
        """(M, C, h, w) -> (M, C, h', w'); the signal may be overwritten."""
        left, right, top, bottom = self.sides
        signal = signal[:, :, top : signal.shape[2] - bottom, left : signal.shape[3] - right]
        return self._set(signal) if self.cells and self.value == 0 else signal

    def _set(self, maps: Tensor) -> Tensor:
        maps.permute(0, 2, 3, 1)[self.cells] = self.value  # few cells: far faster than a mask over all
        return maps


def trace_fields(
    steps: list[Step], x: Tensor, image: Tensor, position: Tensor, *, only_switches: bool = False
) -> tuple[Trace, Window]:
    """Pass through the network only what M units see: units at position (M, 2) of image (M,) of x (N, 3, H, W).

    `steps` end with the units' layer, whose output in the trace is (M, C, 1, 1); `only_switches` stops after the last pooling,
    which is all that the way down needs. Returns the windows of pixels as well.
    """
    chain, seen = _fields(steps, sizes(steps, (x.shape[2], x.shape[3])), position)
    first = next(i for i, step in enumerate(chain) if isinstance(step.module, (Border, nn.Conv2d, nn.MaxPool2d)))
    for step in chain[:first]:  # pixel by pixel, on the whole image: a mean image has its place
        x = apply(step.module, x)
    window = seen[chain[first].name]
    signal = cut_window(x, window, image).contiguous(memory_format=layout(x))  # so the switches are those of the whole image
    pools = [i for i, step in enumerate(chain) if isinstance(step.module, nn.MaxPool2d)]
    end = max(pools, default=-1) + 1 if only_switches else len(chain)
    switches = {}
    for step in chain[first:end]:
        if isinstance(step.module, nn.MaxPool2d):
            signal, switches[step.name] = max_pool(step.module, signal)
        else:
            signal = signal.relu_() if isinstance(step.module, nn.ReLU) else apply(step.module, signal)
    outputs = {} if only_switches else {chain[-1].name: signal}
    return Trace(tuple(chain), outputs, switches, _shapes(seen), x, None), window


def cut_trace(t: Trace, image: Tensor, position: Tensor) -> tuple[Trace, Window]:
    """The same, cut out of a trace of whole images: units at position (M, 2) of image (M,), in the trace's last layer."""
    chain, seen = _fields(list(t.steps), {name: (shape[2], shape[3]) for name, shape in t.inputs.items()}, position)
    above = [*(seen[step.name] for step in chain[1:]), Window(position, position + 1)]
    switches = {}
    for step, window in zip(chain, above, strict=True):
        below = seen[step.name]
        if isinstance(step.module, nn.MaxPool2d):
            width = t.inputs[step.name][3]
            (r, c), (low_r, low_c) = _indices(window, t.switches[step.name].shape[2:]), below.low[:, :, None, None].unbind(1)
            switch = t.switches[step.name].permute(0, 2, 3, 1)[image[:, None, None], r, c].permute(0, 3, 1, 2)
            local = (switch // width - low_r[:, None]) * below.size[0, 1] + switch % width - low_c[:, None]
            # A pooled cell outside the map has no switch, and its signal is zero.
            switches[step.name] = local.masked_fill(window.outside(t.switches[step.name].shape[2:])[:, None], 0)
    return Trace(tuple(chain), {}, switches, _shapes(seen), t.x, None), seen[chain[0].name]


def _shapes(seen: dict[str, Window]) -> dict[str, torch.Size]:
    """What the way down needs of the shapes that came into each step: (h, w)."""
    return {name: torch.Size(window.size[0].tolist()) for name, window in seen.items()}


def _fields(steps: list[Step], size: dict, position: Tensor) -> tuple[list[Step], dict[str, Window]]:
    """The steps without padding, with a `Border` before each window that reaches outside; and the cells that come into each."""
    window, chain, seen = Window(position, position + 1), [], {}
    for step in reversed(steps):
        if not isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            chain.append(step)
            seen[step.name] = window
            continue
        whole = window.below(step.module)
        chain.append(Step(step.name, _unpadded(step.module), step.layer))
        seen[step.name] = window = whole
        outside = whole.outside(size[step.name])
        if outside.any():
            first, last = whole.always_outside(size[step.name])
            window = Window(whole.low + first, whole.high - last)
            (top, left), (bottom, right) = first.tolist(), last.tolist()
            value = -torch.inf if isinstance(step.module, nn.MaxPool2d) else 0.0
            part = window.outside(size[step.name])
            border = Border((left, right, top, bottom), part if part.any() else None, value)
            chain.append(Step(BORDER + step.name, border))
            seen[BORDER + step.name] = window
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


def cut_window(maps: Tensor, window: Window, image: Tensor | None = None) -> Tensor:
    """Cut M windows of one size (h, w) out of maps (N, C, H, W), by default one of each, zero outside: (M, C, h, w)."""
    size = maps.shape[2:]
    r, c = _indices(window, size)
    image = torch.arange(len(maps), device=maps.device) if image is None else image
    patch = maps.permute(0, 2, 3, 1)[image[:, None, None], r, c].permute(0, 3, 1, 2)
    outside = window.outside(size)
    return patch.masked_fill(outside[:, None], 0) if outside.any() else patch


def _indices(window: Window, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Rows (M, h, 1) and columns (M, 1, w) of the cells, those outside moved to the border."""
    r, c = window.rows_and_columns()
    return r.clamp(0, size[0] - 1)[:, :, None], c.clamp(0, size[1] - 1)[:, None]


def channels_last(steps: list[Step]) -> list[Step]:
    """The same steps with convolutions whose filters lie channels last, which CPUs otherwise see to at every call."""
    found = []
    for step in steps:
        module = step.module
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
            module = copy.copy(module)
            module._parameters = {**module._parameters, "weight": nn.Parameter(weight, requires_grad=False)}
        found.append(Step(step.name, module, step.layer))
    return found


def _unpadded(module: nn.Conv2d | nn.MaxPool2d) -> nn.Module:
    """The same module, sharing its weights, for patches that hold their own padding."""
    module = copy.copy(module)
    module.padding, module.ceil_mode = (0, 0), False  # pyright: ignore
    return module
