"""Window arithmetic: the pixels that a unit sees, the cells that a pixel reaches.

A convolution or pooling with kernel k, stride s, padding p and dilation d computes its cell o from
the cells o s - p to o s - p + d (k - 1) of the map below. Followed down, this gives receptive
fields; followed up, the cells that depend on a window of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.graph import (
    BATCHNORMS,
    IDENTITIES,
    NORMS,
    RECTIFIERS,
    Add,
    Call,
    Concat,
    Expression,
    Size,
    Step,
    UnsupportedNetwork,
    Windowed,
    conv_layers,
    geometry,
    layers_of,
    spatial_size,
    steps_until,
    unknown_layer,
    with_inputs,
)
from zfnet.normalization import PaperInput

# Modules whose output at a position depends on their input at that position alone.
CELLWISE = (
    *RECTIFIERS, *BATCHNORMS, *NORMS, *IDENTITIES, PaperInput, Add, nn.Hardtanh, nn.SiLU, nn.GELU,
    nn.ELU, nn.CELU, nn.SELU,
    nn.Softplus, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Threshold,
    nn.Softmax2d,
)  # fmt: skip
ARITHMETIC = {
    "add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "truediv", "itruediv",
    "div", "div_", "neg", "pow", "sqrt",
    "rsqrt", "abs", "exp", "log", "maximum", "minimum", "where", "clamp", "clamp_", "sigmoid",
    "softmax", "stochastic_depth",
}  # fmt: skip
# Functions that move channels; at a position too, where the last two dimensions stay.
RESHAPES = {
    "view", "reshape", "transpose", "permute", "chunk", "split", "unbind", "getitem", "stack",
    "squeeze", "unsqueeze", "narrow",
    "select", "mean", "sum", "amax", "flatten", "channel_shuffle", "expand", "layer_norm",
    "contiguous", "cat",
}  # fmt: skip


@dataclass(frozen=True)
class ReceptiveField:
    """What a layer's units see: the unit in row r, `size` pixels from `offset` + r `stride`.

    `offset` is negative where padding reaches outside the image. A field that is not square, as
    above a 1 x 7 convolution, is enlarged to the smallest square around it.
    """

    size: int
    stride: int
    offset: int


class WholeImage(UnsupportedNetwork):
    """A layer whose units do not see windows of one size at one stride."""


def receptive_field(steps: Sequence[Step], layer: str) -> ReceptiveField:
    """Compute the receptive field of a layer of maps. ZFNet's are 7, 27, 75, 107 and 139 pixels.

    Raises:
        UnknownLayer: If a chain has no such convolutional layer.
        UnsupportedNetwork: If the strides of rows and columns differ, or if units of the layer see
            windows of several sizes, as above an adaptive pooling.
    """
    if all(step.inputs is None for step in steps) and layer not in conv_layers(steps):
        raise unknown_layer(layer, layers_of(steps))
    cells = torch.tensor([[0, 0], [1, 1]], device="cpu")
    below = steps_until(steps, layer)
    window = follow_down(below, Window(cells, cells + 1))  # the first unit, and its neighbor
    sizes, strides = window.size[0].tolist(), (window.low[1] - window.low[0]).tolist()
    if strides[0] != strides[1]:
        raise WholeImage(f"the strides of rows and columns differ below {layer}")
    return enclosing(list(map(ReceptiveField, sizes, strides, window.low[0].tolist())))


def enclosing(fields: Sequence[ReceptiveField]) -> ReceptiveField:
    """The smallest field around fields of one stride."""
    low = min(field.offset for field in fields)
    high = max(field.offset + field.size for field in fields)
    return ReceptiveField(high - low, fields[0].stride, low)


def field_or_image(steps: Sequence[Step], layer: str) -> ReceptiveField | None:
    """Return a layer's receptive field, or None if its units see the whole image."""
    is_dense = len(steps_until(steps, layer)[-1].shape or (0, 0, 0)) == 1
    if (all(step.inputs is None for step in steps) and layer not in conv_layers(steps)) or is_dense:
        return None
    try:
        return receptive_field(steps, layer)
    except WholeImage:
        return None


def receptive_field_box(
    steps: Sequence[Step], sizes: Mapping[str, Size], position: Tensor
) -> Tensor:
    """Return the pixels that units of the last step see.

    The window is clipped to each map in turn, because at a border a unit sees padding.

    Args:
        steps: The steps up to the units' layer.
        sizes: The size of the map that enters each step, from `map_sizes`.
        position: Positions (..., 2) as (row, column).

    Returns:
        Boxes (..., 4) as (top, left, bottom, right), clipped to the image.
    """
    window = follow_down(steps, Window(position, position + 1), sizes)
    return torch.cat([window.low, window.high], -1)


def follow_down(
    steps: Sequence[Step], window: Window, sizes: Mapping[str, Size] | None = None
) -> Window:
    """Return the windows of images that windows of the last step's maps depend on.

    Where branches join, it is the union. With `sizes` windows are clipped to each map, and a step
    that looks everywhere is allowed.
    """
    windows = {steps[-1].name: window}
    for step, inputs in reversed(list(with_inputs(steps))):
        window = windows.pop(step.name, None)  # pyright: ignore[reportAssignmentType]
        if window is None:
            continue
        size = sizes[step.name] if sizes else None
        if not is_cellwise(step):
            window = _window_below(step, window, size)
        for name in inputs:
            windows[name] = windows[name].union(window) if name in windows else window
    return windows[""]


def _window_below(step: Step, window: Window, size: Size | None) -> Window:
    """The cells that a step reads for a window of its output. Raises UnsupportedNetwork."""
    module = step.module
    if isinstance(module, Windowed):
        window = window.below(module)
        return window.clip(size) if size else window
    if size is None:
        name = module.extra_repr() if isinstance(module, Call) else str(module)
        raise WholeImage(
            f"{step.name} ({name}) is below the layer: its cells have windows of several sizes"
        )
    zero = torch.zeros_like(window.low)
    return Window(zero, zero + zero.new_tensor(size))


def is_cellwise(step: Step) -> bool:
    """Whether each position of a step's output depends on the same position of its inputs."""
    module = step.module
    keeps = [spatial_size(shape) == spatial_size(step.shape or ()) for shape in step.input_shapes]
    match module:
        case Concat():
            return all(keeps) and (module.dim % 4 == 1 or len(step.shape or ()) != 3)
        case nn.AdaptiveAvgPool2d():
            return bool(keeps) and all(keeps)
        case nn.Softmax() | nn.LayerNorm():
            return False
        case Call():
            expression, ndim = module.expression, 1 + len(step.shape or ())
            moves_channels = expression.name in RESHAPES and _keeps_positions(expression, ndim)
            return expression.name in ARITHMETIC or (moves_channels and all(keeps))
    return isinstance(module, CELLWISE)


def _keeps_positions(expression: Expression, ndim: int) -> bool:
    """Whether a reshaping to `ndim` dimensions leaves the last two in place."""
    dims = [d for d in (*expression.args[1:], *expression.kwargs.values()) if isinstance(d, int)]
    if expression.name == "transpose":
        return all(0 <= d % ndim < ndim - 2 for d in dims)
    if expression.name == "permute":
        order = expression.args[1] if isinstance(expression.args[1], (tuple, list)) else dims
        return [d % len(order) for d in order[-2:]] == [len(order) - 2, len(order) - 1]
    return True


def cut(maps: Tensor, corner: Tensor, size: int | Size) -> Tensor:
    """Cut one patch out of each map, with zeros outside the map.

    Args:
        maps: Maps or images (N, C, H, W).
        corner: The top left cell of each patch (N, 2).
        size: The side, or (height, width), of the patches.

    Returns:
        Patches (N, C, height, width).
    """
    return cut_windows(maps, Window(corner, corner + corner.new_tensor(size))).contiguous()


def cut_windows(maps: Tensor, window: Window, image: Tensor | None = None) -> Tensor:
    """Cut M windows of one size (h, w) out of maps (N, C, H, W): (M, C, h, w), with zeros outside.

    `image` (M,) says which map each window is cut from; by default, one window per map.
    """
    height, width = maps.shape[2:]
    rows, columns = window.rows_and_columns()
    rows, columns = (
        rows.clamp(0, height - 1)[:, :, None],
        columns.clamp(0, width - 1)[:, None],
    )  # (M, h, 1), (M, 1, w)
    image = torch.arange(len(maps), device=maps.device) if image is None else image
    patch = maps.permute(0, 2, 3, 1)[image[:, None, None], rows, columns].permute(0, 3, 1, 2)
    if not window.reaches_outside((height, width)):
        return patch
    return patch.masked_fill(window.outside((height, width))[:, None], 0)


@dataclass(frozen=True, eq=False)
class Window:
    """Rectangles of cells from `low` (..., 2) to `high` (..., 2), exclusive; int64."""

    low: Tensor
    high: Tensor

    @property
    def size(self) -> Tensor:
        """Heights and widths (..., 2)."""
        return self.high - self.low

    def __getitem__(self, index) -> Window:
        return Window(self.low[index], self.high[index])

    def below(self, module: Windowed) -> Window:
        """The cells that a module reads to compute these; outside the map where it pads."""
        kernel, stride, padding, dilation = (self.low.new_tensor(v) for v in geometry(module))
        low = self.low * stride - padding
        return Window(low, low + (self.size - 1) * stride + dilation * (kernel - 1) + 1)

    def above(self, module: Windowed, size: Sequence[int]) -> Window:
        """The cells of a module's output, of `size` (h, w), that depend on these; never empty."""
        kernel, stride, padding, dilation = (self.low.new_tensor(v) for v in geometry(module))
        low = -((dilation * (kernel - 1) - self.low - padding) // stride)  # rounded up
        high = (self.high - 1 + padding) // stride + 1
        return Window(low, torch.maximum(high, low + 1)).clip(size)

    def clip(self, size: Sequence[int]) -> Window:
        """The part inside a map of `size` (h, w); the nearest cell for a window that is outside."""
        last = self.low.new_tensor(size) - 1
        low = self.low.clamp_min(0).minimum(last)
        return Window(low, (self.high - 1).minimum(last).maximum(low) + 1)

    def union(self, other: Window) -> Window:
        """The smallest windows that hold both."""
        return Window(self.low.minimum(other.low), self.high.maximum(other.high))

    def reaches_outside(self, size: Sequence[int]) -> bool:
        """Whether any cell is outside a map of `size` (h, w)."""
        return bool((self.low < 0).any() or (self.high > self.high.new_tensor(size)).any())

    def outside(self, size: Sequence[int]) -> Tensor:
        """Which cells of M windows of one shape are outside a map of `size`: (M, h, w) bool."""
        rows, columns = self.rows_and_columns()
        return ~(
            ((rows >= 0) & (rows < size[0]))[:, :, None]
            & ((columns >= 0) & (columns < size[1]))[:, None]
        )

    def always_outside(self, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """How many first and last rows and columns are outside a map of `size` in all windows.

        Returns [top, left] and [bottom, right], int64. At least one row and column is never
        counted.
        """
        spare = self.size[0] - 1
        first = (-self.low).amin(0).clamp_min(0).minimum(spare)
        return first, (self.high - self.high.new_tensor(size)).amin(0).clamp_min(0).minimum(
            spare - first
        )

    def rows_and_columns(self) -> tuple[Tensor, Tensor]:
        """The rows (M, h) and columns (M, w) of windows of one size."""
        height, width = self.size[0].tolist()
        new = self.low.new_tensor
        return self.low[:, :1] + new(range(height)), self.low[:, 1:] + new(range(width))
