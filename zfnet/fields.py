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
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Switches:
    """A pooling's switches in B windows of its maps, which may differ in size, in one `table` (cells, C) int32 or int64.

    Cell (r, c) of window b, of size[b], is row start[b] + r size[b, 1] + c. It is the pooled map's cell above[b] + (r, c), and
    its switch an index into a window of the map below, width[b] cells wide, that begins at below[b]. All but `table`, `start`
    and `width` are (B, 2).
    """

    table: Tensor
    start: Tensor
    size: Tensor
    width: Tensor
    above: Tensor
    below: Tensor

    @staticmethod
    def of(index: Tensor, above: Tensor, below: Tensor, width: int) -> Switches:
        """From the switches (B, C, h, w) of windows of one size."""
        b, c, h, w = index.shape
        start = h * w * torch.arange(b, device=index.device)
        table = index.permute(0, 2, 3, 1).reshape(-1, c)
        size = torch.tensor([h, w], device=index.device).expand(b, 2)
        return Switches(table, start, size, torch.full_like(start, width), above, below)

    @staticmethod
    def cat(parts: Sequence[Switches]) -> Switches:
        """The same windows, one part after the other."""
        before = [0, *itertools.accumulate(len(part.table) for part in parts)]
        moved = [part.start + n for part, n in zip(parts, before, strict=False)]
        table, _, *others = (torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True))
        return Switches(table, torch.cat(moved), *others)


def trace_fields(
    steps: list[Step], x: Tensor, image: Tensor, position: Tensor, *, only_switches: bool = False
) -> tuple[Trace, Window]:
    """Pass through the network only what M units see: units at position (M, 2) of image (M,) of x (N, 3, H, W).

    `steps` end with the units' layer, whose output in the trace is (M, C, 1, 1); `only_switches` stops after the last pooling,
    which is all that the way down needs. Returns the windows of pixels as well.
    """
    chain, seen = _fields(steps, sizes(steps, (x.shape[2], x.shape[3])), Window(position, position + 1))
    pools = [i for i, step in enumerate(chain) if isinstance(step.module, nn.MaxPool2d)]
    end = max(pools, default=-1) + 1 if only_switches else len(chain)
    signal, switches = _pass(chain[:end], x, image, seen)
    outputs = {} if only_switches else {chain[-1].name: signal}
    return Trace(tuple(chain), outputs, switches, _shapes(seen), x, None), seen[chain[0].name]


def trace_windows(steps: list[Step], x: Tensor, image: Tensor, window: Window) -> dict[str, Switches]:
    """The switches of all poolings below B windows of one size: cells of the last step's output, for image (B,) of x.

    What several units of an image see is passed through the network once so; `cut_switches` gives each its part.
    """
    chain, seen = _fields(steps, sizes(steps, (x.shape[2], x.shape[3])), window)
    above = _above(chain, seen) | {chain[-1].name: window}
    index = _pass(chain, x, image, seen)[1]
    return {n: Switches.of(index[n].int(), above[n].low, seen[n].low, int(seen[n].size[0, 1])) for n in index}


def whole_switches(t: Trace) -> dict[str, Switches]:
    """A trace's switches, the whole maps being the windows."""
    origin = torch.zeros(len(t.x), 2, dtype=torch.int64, device=t.x.device)
    return {name: Switches.of(index, origin, origin, t.inputs[name][3]) for name, index in t.switches.items()}


def cut_switches(
    steps: list[Step], x: Tensor, found: dict[str, Switches], row: Tensor, position: Tensor
) -> tuple[Trace, Window]:
    """What `trace_fields` gives with `only_switches`, for units at position (M, 2), cut out of window row (M,) of `found`."""
    size = sizes(steps, (x.shape[2], x.shape[3]))
    chain, seen = _fields(steps, size, Window(position, position + 1))
    pooled, pooled_size = _above(chain, seen), _above(steps, size)
    switches = {}
    for step in chain:
        if isinstance(step.module, nn.MaxPool2d):
            whole, window, below = found[step.name], pooled[step.name], seen[step.name]
            width, last = int(below.size[0, 1]), whole.size[row] - 1
            # No signal comes to cells outside the map, nor to those that only they read, which may lie outside a found window.
            r, c = (part - low for part, low in zip(window.rows_and_columns(), whole.above[row].split(1, 1), strict=True))
            r, c = (part.clamp_min(0).minimum(end) for part, end in zip((r, c), last.split(1, 1), strict=True))
            cells = (whole.start[row, None] + r * whole.size[row, 1:])[:, :, None] + c[:, None]
            switch = whole.table[cells]  # (M, h, w, C), in windows of whole.width
            (down, right), wider = (whole.below[row] - below.low).unbind(1), width - whole.width[row]
            if wider.any():
                at = whole.width[row].to(switch.dtype)[:, None, None, None]
                switch += torch.div(switch, at, rounding_mode="trunc").mul_(wider.to(switch.dtype)[:, None, None, None])
            shift = down * width + right
            if shift.any():
                switch += shift.to(switch.dtype)[:, None, None, None]
            if window.reaches_outside(pooled_size[step.name]):  # such a cell has no switch
                switch.masked_fill_(window.outside(pooled_size[step.name])[..., None], 0)
            switches[step.name] = switch.long().permute(0, 3, 1, 2)
    return Trace(tuple(chain), {}, switches, _shapes(seen), x, None), seen[chain[0].name]


def _pass(chain: list[Step], x: Tensor, image: Tensor, seen: dict[str, Window]) -> tuple[Tensor, dict[str, Tensor]]:
    """Pass windows of pixels of image (M,) of x through a chain of `_fields`: what comes out, and the switches."""
    first = next((i for i, s in enumerate(chain) if isinstance(s.module, (Border, nn.Conv2d, nn.MaxPool2d))), len(chain))
    for step in chain[:first]:  # pixel by pixel, on the whole image: a mean image has its place
        x = apply(step.module, x)
    if first == len(chain):
        return x, {}
    signal = cut_window(x, seen[chain[first].name], image)
    signal = signal.contiguous(memory_format=layout(x))  # so the switches are those of the whole image
    switches = {}
    for step in chain[first:]:
        if isinstance(step.module, nn.MaxPool2d):
            signal, switches[step.name] = max_pool(step.module, signal)
        else:
            signal = signal.relu_() if isinstance(step.module, nn.ReLU) else apply(step.module, signal)
    return signal, switches


def _above(steps: Sequence[Step], into: dict) -> dict:
    """What comes out of each step but the last, by what comes `into` each."""
    return {step.name: into[above.name] for step, above in itertools.pairwise(steps)}


def _shapes(seen: dict[str, Window]) -> dict[str, torch.Size]:
    """What the way down needs of the shapes that came into each step: (h, w)."""
    return {name: torch.Size(window.size[0].tolist()) for name, window in seen.items()}


def _fields(steps: list[Step], size: dict, window: Window) -> tuple[list[Step], dict[str, Window]]:
    """The steps without padding, with a `Border` before each window that reaches outside; and the cells that come into each."""
    chain, seen = [], {}
    for step in reversed(steps):
        if not isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            chain.append(step)
            seen[step.name] = window
            continue
        whole = window.below(step.module)
        chain.append(Step(step.name, _unpadded(step.module), step.layer))
        seen[step.name] = window = whole
        if whole.reaches_outside(size[step.name]):
            first, last = whole.always_outside(size[step.name])
            window = Window(whole.low + first, whole.high - last)
            (top, left), (bottom, right) = first.tolist(), last.tolist()
            value = -torch.inf if isinstance(step.module, nn.MaxPool2d) else 0.0
            part = window.outside(size[step.name]) if window.reaches_outside(size[step.name]) else None
            border = Border((left, right, top, bottom), part, value)
            chain.append(Step(BORDER + step.name, border))
            seen[BORDER + step.name] = window
    return chain[::-1], seen


def largest(steps: list[Step], size: tuple[int, int] = (1, 1)) -> int:
    """How many numbers the largest map holds of what a window of the last map sees; of one unit, by default."""
    window, most = Window(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([size])), 1
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
    return patch.masked_fill(window.outside(size)[:, None], 0) if window.reaches_outside(size) else patch


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
