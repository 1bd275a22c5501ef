"""What an occluder changes, and nothing else: the exact incremental forward pass.

The maps of the unoccluded image are kept. For each position of the occluder, a convolution or
pooling computes only the window of its map that depends on the occluded pixels, from the window
below it and a halo of unoccluded cells. Positions whose windows have the same shape go through a
layer together. The first dense layer adds to its unoccluded output what the changed cells
contribute. Nothing is approximated: only the order of floating-point sums differs. Krypton
(Nakandala et al., SIGMOD 2019) has the same idea.

A table holds the cells of one layer as rows of C channels: row 0 is what is outside the map (zero,
or minus infinity for a pooling), then come the unoccluded cells in reading order, then the changed
windows, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet import occlusion
from zfnet.fast.cost import predict
from zfnet.forward import apply, run
from zfnet.graph import Step, UnsupportedNetwork, conv_layers
from zfnet.operations import BATCHNORMS, IDENTITIES, NORMS
from zfnet.outputs import probability_function
from zfnet.receptive_field import Window
from zfnet.shapes import Size, geometry, output_size

POINTWISE = (
    nn.ReLU,
    *NORMS,
    *IDENTITIES,
    *BATCHNORMS,
)  # a cell depends on the same cell of the input


def measure_covered(
    model: nn.Module, steps: Sequence[Step], x: Tensor, fill: Tensor, boxes: Tensor,
    channel: Tensor | None, target: Tensor, *, batch: int, progress: Callable,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:  # fmt: skip
    """Accelerate `occlusion.measure_covered`, where the count of operations says that it pays.

    Elsewhere the reference passes whole images.
    """
    network, share, positions = None, 1.0, batch
    with suppress(UnsupportedNetwork):
        network = Incremental(steps, x, fill, channel)
        share, positions = predict(network, boxes, batch)
    if network is None or not pays(share):
        reference = occlusion.measure_covered.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
        return reference(
            model, steps, x, fill, boxes, channel, target, batch=batch, progress=progress
        )
    jobs = [(n, part) for n in range(len(x)) for part in boxes.split(positions)]
    activations, measured, to_probabilities = [], [], probability_function(model)
    for n, part in progress(jobs, total=len(jobs), desc="occluding"):
        activation, logits = network(n, part)
        activations.append(activation)
        row = occlusion.measure(logits, target[n].expand(len(part)), to_probabilities)
        measured.append(row)
    columns = [torch.cat(column).view(len(x), len(boxes)) for column in zip(*measured, strict=True)]
    return torch.cat(activations).view(len(x), len(boxes)), *columns  # pyright: ignore


def pays(share: float) -> bool:
    """Whether the incremental pass is faster, at this share of the time of whole passes."""
    return share < 1


@dataclass(frozen=True, eq=False)
class Stage:
    """A convolution or pooling with its pointwise steps; `weight` is channels last."""

    steps: tuple[Step, ...]
    weight: Tensor | None

    @staticmethod
    def of(steps: Sequence[Step]) -> Stage:
        module = steps[0].module
        geometry(module)  # pyright: ignore  # raises where it has no plain windows
        weight = (
            module.weight.contiguous(memory_format=torch.channels_last)
            if isinstance(module, nn.Conv2d)
            else None
        )
        return Stage(tuple(steps), weight)

    @property
    def module(self) -> nn.Module:
        return self.steps[0].module

    def without_padding(self, patch: Tensor) -> Tensor:
        """Apply the module to patches that hold their halo: (M, C, h, w) to (M, C', h', w')."""
        module = self.module
        if isinstance(module, nn.Conv2d) and self.weight is not None:
            return F.conv2d(
                patch, self.weight, module.bias, module.stride, 0, module.dilation, module.groups
            )
        window = (module.kernel_size, module.stride, 0, module.dilation)
        return F.max_pool2d(patch, *window)  # pyright: ignore

    def multiplications(self) -> int:
        """Multiply-adds for one cell of the output."""
        return 0 if self.weight is None else self.weight.numel()


@dataclass(frozen=True, eq=False)
class Unoccluded:
    """The maps of one image.

    Attributes:
        tables: (1 + h w, C), the input of each stage, and last the output of the last stage.
        fill: (H W, 3), the occluder's pixels.
        channel: The feature map whose sum is wanted.
        map: (h, w) float64, that map.
        hidden: (1, F), the first dense layer's output; None where more than a flattening precedes
            it.
    """

    tables: list[Tensor]
    fill: Tensor
    channel: int
    map: Tensor
    hidden: Tensor | None


@dataclass(frozen=True, eq=False)
class Changed:
    """M changed windows in a table: cell (r, c) of window m is row start[m] + r pitch[m] + c."""

    window: Window
    start: Tensor
    pitch: Tensor

    def __getitem__(self, index: Tensor) -> Changed:
        return Changed(self.window[index], self.start[index], self.pitch[index])

    def rows(self, patch: Window, size: Size) -> Tensor:
        """The table's row of each cell of M patches of one shape, in a map of `size`: (M, h, w)."""
        r, c = patch.rows_and_columns()
        low, high = self.window.low, self.window.high
        r_changed, c_changed = (
            (r >= low[:, :1]) & (r < high[:, :1]),
            (c >= low[:, 1:]) & (c < high[:, 1:]),
        )
        new = (self.start[:, None] + (r - low[:, :1]) * self.pitch[:, None])[:, :, None] + (
            c - low[:, 1:]
        )[:, None]
        old = (1 + r * size[1])[:, :, None] + c[:, None]
        old = old.masked_fill(patch.outside(size), 0)
        return torch.where(r_changed[:, :, None] & c_changed[:, None], new, old)


class Incremental:
    """The incremental forward pass for images x (N, 3, H, W) and the occluder's pixels `fill`.

    `channel` (N,) is the map of the last convolutional layer to sum up. Call the object with the
    number of an image and boxes (M, 4): it returns that sum (M,) and the logits (M, classes), with
    each box covered. Raises UnsupportedNetwork where it is impossible.
    """

    def __init__(self, steps: Sequence[Step], x: Tensor, fill: Tensor, channel: Tensor | None):
        if channel is None:
            raise UnsupportedNetwork(
                "a network that is not a chain of modules needs a whole pass per position"
            )
        self.layer = conv_layers(steps)[-1]
        self.lead, self.stages, self.tail = _split(steps)
        if self.layer not in [step.layer for stage in self.stages for step in stage.steps]:
            raise UnsupportedNetwork(f"{self.layer} is not below the dense layers")
        dense = [i for i, step in enumerate(self.tail) if isinstance(step.module, nn.Linear)]
        self.dense = dense[0] if dense else len(self.tail)
        self.shapes = [
            (x.shape[1], (x.shape[2], x.shape[3]))
        ]  # of each stage's input, and of the last output
        for stage in self.stages:
            channels = self.shapes[-1][0] if stage.weight is None else len(stage.weight)
            self.shapes.append((channels, output_size(stage.module, self.shapes[-1][1])))
        self.flat = bool(dense) and _only_flattens(self.tail[: self.dense], self.shapes[-1][1])
        self.x, self.fill, self.channel = x, fill, channel
        self.number, self.base = -1, None
        self.weight_by_cell: Tensor | None = None
        self.buffers: dict[str, Tensor] = {}

    def __call__(self, n: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
        if self.base is None or n != self.number:
            self.number, self.base = n, self._unoccluded(n)
        base, low = self.base, boxes[:, :2]
        (height, width), table = self.shapes[0][1], torch.cat([base.tables[0], base.fill])
        start = (
            1 + height * width + low[:, 0] * width + low[:, 1]
        )  # the occluder is a window of the picture `fill`
        changed = Changed(Window(low, boxes[:, 2:]), start, torch.full_like(start, width))
        total = base.map.sum().expand(len(boxes)).clone()
        for i, stage in enumerate(self.stages):
            table, changed = self._apply_stage(i, stage, base, table, changed, total)
        return total.to(table.dtype), self._logits(base, table, changed)

    def _unoccluded(self, n: int) -> Unoccluded:
        """Pass one image through the network, and keep what the occluded passes need."""
        x, fill, channel = self.x[n : n + 1], self.fill[n : n + 1], int(self.channel[n])
        # The lead works pixel by pixel, so it may come before the occluder.
        x, fill = (run(self.lead, pixels, keep=()).output for pixels in (x, fill))
        tables, wanted = [], x
        for stage in self.stages:
            tables.append(_table(x, stage.module))
            t = run(stage.steps, x, keep=(self.layer,), switches=False)
            x, wanted = t.output, t.outputs.get(self.layer, wanted)
        tables.append(_table(x, None))
        hidden = apply(self.tail[self.dense].module, x.flatten(1)) if self.flat else None
        return Unoccluded(tables, _cells(fill), channel, wanted[0, channel].double(), hidden)

    def _apply_stage(
        self, i: int, stage: Stage, base: Unoccluded, table: Tensor, changed: Changed, total: Tensor
    ) -> tuple[Tensor, Changed]:
        """Compute the changed windows of a stage's output: its table, and where they are in it."""
        window = changed.window.above(stage.module, self.shapes[i + 1][1])  # pyright: ignore
        cells = window.size.prod(1)
        known = base.tables[i + 1]
        above = self._buffer(
            f"table {i % 2}", len(known) + int(cells.sum()), known.shape[1]
        )  # the other holds `table`
        above[: len(known)] = known
        start, end = torch.empty_like(cells), len(known)
        for members, (height, width) in group_by_shape(window.size):
            patch = window[members].below(stage.module)  # pyright: ignore[reportArgumentType]
            rows = changed[members].rows(patch, self.shapes[i][1])
            patches = self._buffer("patches", rows.numel(), table.shape[1])
            y = (
                torch.index_select(table, 0, rows.flatten(), out=patches)
                .view(*rows.shape, -1)
                .permute(0, 3, 1, 2)
            )
            for step in stage.steps:
                if step is stage.steps[0]:
                    y = stage.without_padding(y)
                else:
                    y = y.relu_() if isinstance(step.module, nn.ReLU) else apply(step.module, y)
                if step.layer == self.layer:
                    total[members] += _difference(base, window[members], y)
            count = len(members) * height * width
            above[end : end + count].view(len(members), height, width, -1).copy_(
                y.permute(0, 2, 3, 1)
            )
            start[members] = end + torch.arange(0, count, height * width, device=start.device)
            end += count
        return above, Changed(window, start, window.size[:, 1])

    def _buffer(self, name: str, rows: int, channels: int) -> Tensor:
        """Reusable memory for a table (rows, channels): allocation costs as much as filling it."""
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < rows * channels:
            buffer = self.buffers[name] = self.x.new_empty(rows * channels)
        return buffer[: rows * channels].view(rows, channels)

    def _logits(self, base: Unoccluded, table: Tensor, changed: Changed) -> Tensor:
        """The logits (M, classes), from the changed windows of the last stage."""
        size, window = self.shapes[-1][1], changed.window
        if base.hidden is None:  # not a plain flattening: assemble the whole maps
            full_window = Window(
                torch.zeros_like(window.low),
                torch.zeros_like(window.low) + window.low.new_tensor(size),
            )
            rows, rest = changed.rows(full_window, size), self.tail
            y = (
                table.index_select(0, rows.flatten())
                .view(*rows.shape, -1)
                .permute(0, 3, 1, 2)
                .contiguous()
            )
        else:
            y, rest = base.hidden.repeat(len(window.low), 1), self.tail[self.dense + 1 :]
            for cell, weight in enumerate(self._weight_by_cell(size)):
                position = window.low.new_tensor(divmod(cell, size[1]))
                members = (
                    ((window.low <= position) & (position < window.high)).all(1).nonzero()[:, 0]
                )
                r, c = (position - window.low[members]).unbind(1)
                rows = changed.start[members] + r * changed.pitch[members] + c
                y[members] += (table[rows] - table[1 + cell]) @ weight  # each position once
        return run(rest, y, keep=(), switches=False).output

    def _weight_by_cell(self, size: Size) -> Tensor:
        """The first dense layer's weights for each cell of the maps below it: (h w, C, F)."""
        if self.weight_by_cell is None:
            weight: Tensor = self.tail[self.dense].module.weight  # pyright: ignore
            self.weight_by_cell = (
                weight.unflatten(1, (-1, size[0] * size[1])).permute(2, 1, 0).contiguous()
            )
        return self.weight_by_cell


def _split(steps: Sequence[Step]) -> tuple[Sequence[Step], list[Stage], Sequence[Step]]:
    """Split the steps: before the first convolution or pooling, the stages, and the rest."""
    windowed = [isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)) for step in steps]
    first = windowed.index(True)
    end = first
    while end < len(steps) and (windowed[end] or isinstance(steps[end].module, POINTWISE)):
        end += 1
    starts = [i for i in range(first, end) if windowed[i]]
    stages = [Stage.of(steps[i:j]) for i, j in zip(starts, [*starts[1:], end], strict=True)]
    return steps[:first], stages, steps[end:]


def _only_flattens(steps: Sequence[Step], size: Size) -> bool:
    """Whether the steps only flatten maps of a size."""
    return all(
        isinstance(step.module, (nn.Flatten, *IDENTITIES))
        or (
            isinstance(step.module, nn.AdaptiveAvgPool2d)
            and step.module.output_size in (size, size[0] if size[0] == size[1] else None)
        )
        for step in steps
    )


def _difference(base: Unoccluded, window: Window, y: Tensor) -> Tensor:
    """The change of the wanted map's sum: (M,) float64."""
    r, c = window.rows_and_columns()
    return y[:, base.channel].double().sum((1, 2)) - base.map[r[:, :, None], c[:, None]].sum((1, 2))


def _cells(maps: Tensor) -> Tensor:
    """The cells of one image's maps as rows: (1, C, h, w) to (h w, C)."""
    return maps[0].flatten(1).T


def _table(maps: Tensor, reader: nn.Module | None) -> Tensor:
    """The cells, after a row for what is outside, as the module that reads them pads."""
    outside = -torch.inf if isinstance(reader, nn.MaxPool2d) else 0.0
    return torch.cat([maps.new_full((1, maps.shape[1]), outside), _cells(maps)])


def group_by_shape(sizes: Tensor) -> list[tuple[Tensor, Size]]:
    """Group M windows by shape: for each shape, their numbers and (height, width)."""
    shapes, group = torch.unique(sizes, dim=0, return_inverse=True)
    return [((group == i).nonzero()[:, 0], (h, w)) for i, (h, w) in enumerate(shapes.tolist())]
