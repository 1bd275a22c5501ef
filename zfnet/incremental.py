"""What an occluder changes, and nothing else: the exact incremental forward pass behind `occlude`.

The maps of the unoccluded image are kept. For each position of the occluder, a convolution or pooling computes only the
window of its map that depends on the occluded pixels, from the window below it and a halo of unoccluded cells. Positions
whose windows have the same shape go through a layer together. The first dense layer adds to its unoccluded output what
the changed cells contribute. Nothing is approximated: only the order of floating-point sums differs. Krypton (Nakandala et al.,
SIGMOD 2019) has the same idea.

A table holds the cells of one layer as rows of C channels: row 0 is what lies outside the map (zero, or minus infinity
for a pooling), then come the unoccluded cells in reading order, then the changed windows, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.activations import BATCHNORMS, NORMS, PASSED, Step, apply
from zfnet.windows import UnsupportedNetwork, Window, geometry, output_size

POINTWISE = (nn.ReLU, *NORMS, *PASSED, *BATCHNORMS)  # a cell of the output depends on the same cell of the input
VALUE = 160  # multiply-adds in the time of moving one number through memory: about this on two cores with AVX-512
# Multiply-adds in the time of one call of a layer for one group of windows. A GPU's is an estimate, not measured: 0.15 ms to
# launch its kernels and to send the windows' places, at 30e12 a second.
CALL = {"cpu": 2e7, "cuda": 5e9}


@dataclass(frozen=True, eq=False)
class Stage:
    """A convolution or pooling with the pointwise steps that follow it. `weight` is a convolution's, channels last."""

    steps: tuple[Step, ...]
    weight: Tensor | None

    @property
    def module(self) -> nn.Module:
        return self.steps[0].module

    def window(self, patch: Tensor) -> Tensor:
        """The module without its padding: (M, C, h, w), halo included, to (M, C', h', w')."""
        module = self.module
        if isinstance(module, nn.Conv2d):
            return F.conv2d(patch, self.weight, module.bias, module.stride, 0, module.dilation, module.groups)  # pyright: ignore
        return F.max_pool2d(patch, module.kernel_size, module.stride, 0, module.dilation)  # pyright: ignore

    def macs(self) -> int:
        """Multiply-adds for one cell of the output."""
        return 0 if self.weight is None else self.weight.numel()


@dataclass(frozen=True, eq=False)
class Unoccluded:
    """The maps of one image. `tables[i]` (1 + h w, C) is the input of stage i, the last one what leaves the stages.

    `fill` (H W, 3) are the occluder's pixels; `map` (h, w) float64 is the feature map `channel`, whose total is wanted;
    `hidden` (1, F) the first dense layer's output, None where more than a flattening lies before it.
    """

    tables: list[Tensor]
    fill: Tensor
    channel: int
    map: Tensor
    hidden: Tensor | None


@dataclass(frozen=True, eq=False)
class Changed:
    """Where M changed windows are in a table: window m's cell (r, c) is row start[m] + r pitch[m] + c, from its corner."""

    window: Window
    start: Tensor
    pitch: Tensor

    def __getitem__(self, index: Tensor) -> Changed:
        return Changed(self.window[index], self.start[index], self.pitch[index])

    def rows(self, patch: Window, size: tuple[int, int]) -> Tensor:
        """The table's row of each cell of M patches of one shape (h, w), in a map of `size`: (M, h, w)."""
        r, c = patch.rows_and_columns()
        low, high = self.window.low, self.window.high
        r_changed, c_changed = (r >= low[:, :1]) & (r < high[:, :1]), (c >= low[:, 1:]) & (c < high[:, 1:])
        new = (self.start[:, None] + (r - low[:, :1]) * self.pitch[:, None])[:, :, None] + (c - low[:, 1:])[:, None]
        old = (1 + r * size[1])[:, :, None] + c[:, None]
        old = old.masked_fill(patch.outside(size), 0)
        return torch.where(r_changed[:, :, None] & c_changed[:, None], new, old)


class Incremental:
    """The incremental forward pass of a chain of modules, for images x (N, 3, H, W) and an occluder's pixels `fill`, alike.

    `channel` (N,) says which map of the convolutional layer `layer` is to be summed. Calling the object with an image's number
    and boxes (M, 4) gives that total (M,) and the logits (M, classes), with each of the boxes covered in turn. `expected`
    says whether this is worth while, and how many boxes to pass at once. Raises UnsupportedNetwork where it is impossible.
    """

    def __init__(self, steps: Sequence[Step], layer: str, x: Tensor, fill: Tensor, channel: Tensor):
        windowed = [isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)) for step in steps]
        first = windowed.index(True) if any(windowed) else len(steps)
        end = first
        while end < len(steps) and (windowed[end] or isinstance(steps[end].module, POINTWISE)):
            end += 1
        starts = [i for i in range(first, end) if windowed[i]]
        self.lead, self.tail, self.layer = steps[:first], steps[end:], layer
        self.stages = [_stage(steps[i:j]) for i, j in zip(starts, [*starts[1:], end], strict=True)]
        if layer not in [step.layer for stage in self.stages for step in stage.steps]:
            raise UnsupportedNetwork(f"{layer} does not lie below the dense layers")
        dense = [i for i, step in enumerate(self.tail) if isinstance(step.module, nn.Linear)]
        self.dense = dense[0] if dense else len(self.tail)
        # Channels and size of each stage's input, and of the last output.
        self.shapes = [(x.shape[1], (x.shape[2], x.shape[3]))]
        for stage in self.stages:
            channels = self.shapes[-1][0] if stage.weight is None else len(stage.weight)
            self.shapes.append((channels, output_size(stage.module, self.shapes[-1][1])))
        self.flat = bool(dense) and _flattens(self.tail[: self.dense], self.shapes[-1][1])
        self.x, self.fill, self.channel = x, fill, channel
        self.number, self.base = -1, None
        self.by_cell: Tensor | None = None
        self.buffers: dict[str, Tensor] = {}

    def _unoccluded(self, n: int) -> Unoccluded:
        """Pass one image through the network, and keep what the occluded passes need."""
        x, fill, channel = self.x[n : n + 1], self.fill[n : n + 1], int(self.channel[n])
        for step in self.lead:  # pixel by pixel, so they may come before the occluder
            x, fill = apply(step.module, x), apply(step.module, fill)
        tables, wanted = [], x
        for stage in self.stages:
            tables.append(_table(x, stage.module))
            for step in stage.steps:
                x = apply(step.module, x)
                wanted = x if step.layer == self.layer else wanted
        tables.append(_table(x, None))
        hidden = apply(self.tail[self.dense].module, x.flatten(1)) if self.flat else None
        return Unoccluded(tables, _cells(fill), channel, wanted[0, channel].double(), hidden)

    def __call__(self, n: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
        if self.base is None or n != self.number:
            self.number, self.base = n, self._unoccluded(n)
        base, low = self.base, boxes[:, :2]
        (height, width), table = self.shapes[0][1], torch.cat([base.tables[0], base.fill])
        start = 1 + height * width + low[:, 0] * width + low[:, 1]  # the occluder is a window of the picture `fill`
        changed = Changed(Window(low, boxes[:, 2:]), start, torch.full_like(start, width))
        total = base.map.sum().expand(len(boxes)).clone()
        for i, stage in enumerate(self.stages):
            table, changed = self._climb(i, stage, base, table, changed, total)
        return total.to(table.dtype), self._dense(base, table, changed)

    def _climb(self, i: int, stage: Stage, base: Unoccluded, table: Tensor, changed: Changed, total: Tensor):
        """Compute the changed windows of one stage's output: its table and where they are in it."""
        window = changed.window.above(stage.module, self.shapes[i + 1][1])  # pyright: ignore[reportArgumentType]
        cells = window.size.prod(1)
        known = base.tables[i + 1]
        above = self._buffer(f"table {i % 2}", len(known) + int(cells.sum()), known.shape[1])  # the other holds `table`
        above[: len(known)] = known
        start, end = torch.empty_like(cells), len(known)
        for members, (height, width) in groups(window.size):
            patch = window[members].below(stage.module)  # pyright: ignore[reportArgumentType]
            rows = changed[members].rows(patch, self.shapes[i][1])
            cut = self._buffer("patches", rows.numel(), table.shape[1])
            y = torch.index_select(table, 0, rows.flatten(), out=cut).view(*rows.shape, -1).permute(0, 3, 1, 2)
            for step in stage.steps:
                if step is stage.steps[0]:
                    y = stage.window(y)
                else:
                    y = y.relu_() if isinstance(step.module, nn.ReLU) else apply(step.module, y)
                if step.layer == self.layer:
                    total[members] += self._difference(base, window[members], y)
            here = len(members) * height * width
            above[end : end + here].view(len(members), height, width, -1).copy_(y.permute(0, 2, 3, 1))
            start[members] = end + torch.arange(0, here, height * width, device=start.device)
            end += here
        return above, Changed(window, start, window.size[:, 1])

    def _buffer(self, name: str, rows: int, channels: int) -> Tensor:
        """Memory for a table (rows, channels) that is used again: fresh memory costs as much time as filling it."""
        held = self.buffers.get(name)
        if held is None or held.numel() < rows * channels:
            held = self.buffers[name] = self.x.new_empty(rows * channels)
        return held[: rows * channels].view(rows, channels)

    def _difference(self, base: Unoccluded, window: Window, y: Tensor) -> Tensor:
        """How much the wanted map's total changes: (M,) float64."""
        r, c = window.rows_and_columns()
        return y[:, base.channel].double().sum((1, 2)) - base.map[r[:, :, None], c[:, None]].sum((1, 2))

    def _dense(self, base: Unoccluded, table: Tensor, changed: Changed) -> Tensor:
        """The logits (M, classes), from the changed windows of the last stage."""
        size, window = self.shapes[-1][1], changed.window
        if base.hidden is None:  # not a plain flattening: put the whole maps together
            whole = Window(torch.zeros_like(window.low), torch.zeros_like(window.low) + window.low.new_tensor(size))
            rows, rest = changed.rows(whole, size), self.tail
            y = table.index_select(0, rows.flatten()).view(*rows.shape, -1).permute(0, 3, 1, 2).contiguous()
        else:
            y, rest = base.hidden.repeat(len(window.low), 1), self.tail[self.dense + 1 :]
            for cell, weight in enumerate(self._by_cell(size)):
                position = window.low.new_tensor(divmod(cell, size[1]))
                members = ((window.low <= position) & (position < window.high)).all(1).nonzero()[:, 0]
                r, c = (position - window.low[members]).unbind(1)
                rows = changed.start[members] + r * changed.pitch[members] + c
                y[members] += (table[rows] - table[1 + cell]) @ weight  # each position once
        for step in rest:
            y = apply(step.module, y)
        return y

    def _by_cell(self, size: tuple[int, int]) -> Tensor:
        """The first dense layer's weights, cell by cell of the maps below it: (h w, C, F)."""
        if self.by_cell is None:
            weight: Tensor = self.tail[self.dense].module.weight  # pyright: ignore[reportAssignmentType]
            self.by_cell = weight.unflatten(1, (-1, size[0] * size[1])).permute(2, 1, 0).contiguous()
        return self.by_cell

    def expected(self, boxes: Tensor, batch: int) -> tuple[float, int]:
        """Predict the time for all boxes (P, 4) as a share of the whole computation's, and say how many positions at once
        take no more memory than `batch` whole images.

        Counts multiply-adds, numbers moved through memory (each worth `VALUE` multiply-adds), and calls (worth `CALL`).
        """
        window, count = Window(boxes[:, :2], boxes[:, 2:]), len(boxes)
        work = whole = calls = 0.0
        most = most_whole = 1.0
        for stage, (below, size_below), (channels, size) in zip(self.stages, self.shapes[:-1], self.shapes[1:], strict=True):
            window = window.above(stage.module, size)  # pyright: ignore[reportArgumentType]
            read = window.below(stage.module).size.prod(1) * below  # pyright: ignore[reportArgumentType]
            cells, all_cells = window.size.prod(1), size[0] * size[1]
            made = cells * channels * (len(stage.steps) + 1)
            work += float((cells * stage.macs() + VALUE * (read + made)).sum())
            whole += count * all_cells * (stage.macs() + VALUE * channels * len(stage.steps))
            calls += len(torch.unique(window.size, dim=0))
            most = max(most, float((read + made).max()))
            most_whole = max(most_whole, below * size_below[0] * size_below[1] + all_cells * channels)
        share = float(window.size.prod(1).double().mean()) / (size[0] * size[1])
        dense = [step.module.weight.numel() for step in self.tail if isinstance(step.module, nn.Linear)]
        work += count * (sum(dense) - dense[0] * (1 - share) if self.flat else sum(dense))
        whole += count * sum(dense)
        positions = max(1, min(count, int(batch * most_whole / most)))
        chunks, batches = -(-count // positions), -(-count // batch)
        call = CALL["cpu" if boxes.device.type == "cpu" else "cuda"]
        return (work + call * calls * chunks) / (whole + call * len(self.stages) * batches), positions


def _stage(steps: Sequence[Step]) -> Stage:
    module = steps[0].module
    geometry(module)  # pyright: ignore[reportArgumentType]  # raises where it has no plain windows
    weight = module.weight.contiguous(memory_format=torch.channels_last) if isinstance(module, nn.Conv2d) else None
    return Stage(tuple(steps), weight)


def _flattens(steps: Sequence[Step], size: tuple[int, int]) -> bool:
    """Whether these steps only flatten maps of a size."""
    return all(
        isinstance(step.module, (nn.Flatten, *PASSED))
        or (
            isinstance(step.module, nn.AdaptiveAvgPool2d)
            and step.module.output_size in (size, size[0] if size[0] == size[1] else None)
        )
        for step in steps
    )


def _cells(maps: Tensor) -> Tensor:
    """The cells of one image's maps as rows: (1, C, h, w) to (h w, C)."""
    return maps[0].flatten(1).T


def _table(maps: Tensor, reader: nn.Module | None) -> Tensor:
    """The cells under a row for what lies outside, as the module that reads them pads."""
    outside = -torch.inf if isinstance(reader, nn.MaxPool2d) else 0.0
    return torch.cat([maps.new_full((1, maps.shape[1]), outside), _cells(maps)])


def groups(sizes: Tensor) -> list[tuple[Tensor, tuple[int, int]]]:
    """Which of M windows have one shape: for each, their numbers and (height, width)."""
    shapes, group = torch.unique(sizes, dim=0, return_inverse=True)
    return [((group == i).nonzero()[:, 0], (h, w)) for i, (h, w) in enumerate(shapes.tolist())]
