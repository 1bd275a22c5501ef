"""Window arithmetic: the pixels that a unit sees, the cells that a pixel reaches.

A convolution or pooling with kernel k, stride s, padding p and dilation d computes its cell o from
the cells o s - p to o s - p + d (k - 1) of the map below. Followed down, this gives receptive
fields; followed up, the cells that depend on a window of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.graph import Step, UnsupportedNetwork, conv_layers, layers_of, unknown_layer
from zfnet.normalization import PaperInput

Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class ReceptiveField:
    """What a layer's units see: the unit in row r, `size` pixels from `offset` + r `stride`.

    `offset` is negative where padding reaches outside the image.
    """

    size: int
    stride: int
    offset: int


def receptive_field(steps: Sequence[Step], layer: str) -> ReceptiveField:
    """Compute a convolutional layer's receptive field. ZFNet's are 7, 27, 75, 107 and 139 pixels.

    Raises:
        UnknownLayer: If the network has no such convolutional layer.
        UnsupportedNetwork: If the field is not square, or if an adaptive pooling is below the
            layer.
    """
    names = [step.name for step in steps]
    if layer not in conv_layers(steps):
        raise unknown_layer(layer, layers_of(steps))
    cells = torch.tensor([[0, 0], [1, 1]])
    window = Window(cells, cells + 1)  # the first unit, and its diagonal neighbor
    for step in reversed(steps[: names.index(layer) + 1]):
        if is_windowed(step.module):
            window = window.below(step.module)
    if any(rows != columns for rows, columns in window.size.tolist() + window.low.tolist()):
        raise UnsupportedNetwork(f"the receptive field of {layer} is not square")
    (size, _), (first, _), (second, _) = window.size[0].tolist(), *window.low.tolist()
    return ReceptiveField(size, second - first, first)


def receptive_field_box(
    steps: Sequence[Step], sizes: Mapping[str, Size], position: Tensor
) -> Tensor:
    """Return the pixels that units of the last step see.

    The window is clipped to each map on the way down, because at a border a unit sees padding.

    Args:
        steps: The steps up to the units' layer.
        sizes: The size of the map that enters each step, from `map_sizes`.
        position: Positions (..., 2) as (row, column).

    Returns:
        Boxes (..., 4) as (top, left, bottom, right), clipped to the image.
    """
    window = Window(position, position + 1)
    for step in reversed(steps):
        if is_windowed(step.module):
            window = window.below(step.module).clip(sizes[step.name])
    return torch.cat([window.low, window.high], -1)


def map_sizes(steps: Sequence[Step], size: Size) -> dict[str, Size]:
    """Return the size (h, w) of each step's input, and under "" of the last step's output.

    Raises:
        ValueError: If nothing is left of an image of this size.
        UnsupportedNetwork: If an adaptive pooling is among the steps.
    """
    sizes = {}
    for step in steps:
        sizes[step.name] = size
        size = output_size(step.module, size)
        if min(size) < 1:
            image = sizes[steps[0].name]
            raise ValueError(
                f"an image of {image} pixels does not fit the network at {step.name}: it is too small"
            )
    return sizes | {"": size}


def check_fits(steps: Sequence[Step], x: Tensor) -> None:
    """Raise ValueError, naming the step, where the network cannot take images of this shape."""
    shape = tuple(x.shape[1:])
    for step in steps:
        expected = _expected_input(step.module, shape)
        if expected is None:
            shape = _output_shape(step.module, shape)
            expected = "a larger image" if min(shape) < 1 else None
        if expected:
            raise ValueError(
                f"x {tuple(x.shape)} does not fit the network at {step.name}: it expects {expected}"
            )


def _expected_input(module: nn.Module, shape: tuple[int, ...]) -> str | None:
    """What a module expects where its input's shape (C, H, W) or (F,) is wrong, else None."""
    match module:
        case nn.Conv2d() if len(shape) != 3 or shape[0] != module.in_channels:
            return f"{module.in_channels} channels, not {shape[0]}"
        case nn.Linear() if shape[-1] != module.in_features:
            return f"{module.in_features} features, not {shape[-1]}"
        case nn.BatchNorm1d() | nn.BatchNorm2d() if shape[0] != module.num_features:
            return f"{module.num_features} channels, not {shape[0]}"
        case PaperInput() if any(
            n not in (1, size) for n, size in zip(module.mean.shape, shape, strict=True)
        ):
            return f"images like its mean {tuple(module.mean.shape)}"
    return None


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (C, H, W) or (F,) of a module's output; not positive where nothing is left."""
    match module:
        case nn.Conv2d():
            return (module.out_channels, *output_size(module, (shape[1], shape[2])))
        case nn.MaxPool2d():
            return (shape[0], *output_size(module, (shape[1], shape[2])))
        case nn.Linear():
            return (*shape[:-1], module.out_features)
        case nn.AdaptiveAvgPool2d():
            return tuple(
                F.adaptive_avg_pool2d(
                    torch.empty(1, *shape, device="meta"), module.output_size
                ).shape[1:]
            )
        case nn.Flatten():
            return tuple(
                torch.empty(1, *shape, device="meta")
                .flatten(module.start_dim, module.end_dim)
                .shape[1:]
            )
    return shape


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


def geometry(module: nn.Conv2d | nn.MaxPool2d) -> list[list[int]]:
    """Return kernel, stride, padding and dilation, each [rows, columns]. Raises UnsupportedNetwork."""
    if getattr(module, "padding_mode", "zeros") != "zeros":
        raise UnsupportedNetwork(f"{module}: only padding with zeros is supported")
    values = [getattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation")]
    kernel, stride, padding, dilation = (
        list(v) if isinstance(v, tuple) else [v, v] for v in values
    )
    if isinstance(module.padding, str):  # "same" (stride 1, by PyTorch's own rule) or "valid"
        total = [
            d * (k - 1) if module.padding == "same" else 0
            for k, d in zip(kernel, dilation, strict=True)
        ]
        if any(n % 2 for n in total):
            raise UnsupportedNetwork(f"{module}: pads one side more than the other")
        padding = [n // 2 for n in total]
    return [kernel, stride, padding, dilation]


def is_windowed(module: nn.Module) -> TypeGuard[nn.Conv2d | nn.MaxPool2d]:
    """Whether each cell is computed from a window. Raises UnsupportedNetwork for adaptive pooling."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        raise UnsupportedNetwork(
            f"{module} is below a convolution: its cells have windows of several sizes"
        )
    return isinstance(module, (nn.Conv2d, nn.MaxPool2d))


def output_size(module: nn.Module, size: Size) -> Size:
    """Return the size (h, w) of a module's output; 0 or less where nothing is left.

    Raises UnsupportedNetwork as `is_windowed` does.
    """
    if not is_windowed(module):
        return size
    ceil_mode = isinstance(module, nn.MaxPool2d) and module.ceil_mode
    sides = zip(size, *geometry(module), strict=True)
    height, width = (_output_side(*side, ceil_mode=ceil_mode) for side in sides)
    return height, width


def _output_side(
    n: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool
) -> int:
    """PyTorch's rule: in ceil mode the last window begins inside the map or its left padding."""
    span = n + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= n + padding else count


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

    def below(self, module: nn.Conv2d | nn.MaxPool2d) -> Window:
        """The cells that a module reads to compute these; outside the map where it pads."""
        kernel, stride, padding, dilation = (self.low.new_tensor(v) for v in geometry(module))
        low = self.low * stride - padding
        return Window(low, low + (self.size - 1) * stride + dilation * (kernel - 1) + 1)

    def above(self, module: nn.Conv2d | nn.MaxPool2d, size: Sequence[int]) -> Window:
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
