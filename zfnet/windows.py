"""Window arithmetic: which cells of a map an occluder can change, and which pixels a unit sees.

A convolution or pooling with kernel k, stride s, padding p and dilation d computes its cell o from the cells o s - p to
o s - p + d (k - 1) below it. Followed downwards this gives receptive fields; followed upwards, what depends on a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn


class UnsupportedNetwork(TypeError):
    """A network that is not a chain of modules that a deconvnet can invert. The message says which part is not."""


def geometry(module: nn.Conv2d | nn.MaxPool2d) -> list[list[int]]:
    """Kernel, stride, padding and dilation, each as [rows, columns]. Raises UnsupportedNetwork."""
    if getattr(module, "padding_mode", "zeros") != "zeros":
        raise UnsupportedNetwork(f"{module}: only padding with zeros is supported")
    values = [getattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation")]
    kernel, stride, padding, dilation = (list(v) if isinstance(v, tuple) else [v, v] for v in values)
    if isinstance(module.padding, str):  # "same" (stride 1, by PyTorch's own rule) or "valid"
        reach = [d * (k - 1) if module.padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        if any(r % 2 for r in reach):
            raise UnsupportedNetwork(f"{module}: pads one side more than the other")
        padding = [r // 2 for r in reach]
    return [kernel, stride, padding, dilation]


def windowed(module: nn.Module) -> TypeGuard[nn.Conv2d | nn.MaxPool2d]:
    """Whether a module computes a cell from a window of cells. Raises UnsupportedNetwork where windows are of several sizes."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        raise UnsupportedNetwork(f"{module} stands below a convolution: its cells have windows of several sizes")
    return isinstance(module, (nn.Conv2d, nn.MaxPool2d))


def output_size(module: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The size (h, w) of the maps that a convolution or pooling makes of maps of `size`; of other modules, the same.

    Raises UnsupportedNetwork as `windowed`.
    """
    if not windowed(module):
        return size
    if isinstance(module, nn.MaxPool2d):
        try:
            shape = module(torch.empty(1, 1, *size, device="meta")).shape  # ceil mode has its exceptions
        except RuntimeError:  # nothing is left of so small a map
            return 0, 0
        return shape[2], shape[3]
    parts = zip(size, *geometry(module), strict=True)
    height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in parts)
    return height, width


@dataclass(frozen=True, eq=False)
class Window:
    """Rectangles of cells: rows and columns from `low` (..., 2), inclusive, to `high` (..., 2), exclusive, both int64."""

    low: Tensor
    high: Tensor

    @property
    def size(self) -> Tensor:
        """Heights and widths (..., 2)."""
        return self.high - self.low

    def __getitem__(self, index) -> Window:
        return Window(self.low[index], self.high[index])

    def below(self, module: nn.Conv2d | nn.MaxPool2d) -> Window:
        """The cells that a module reads to compute these; where it pads they lie outside the map."""
        kernel, stride, padding, dilation = (self.low.new_tensor(v) for v in geometry(module))
        low = self.low * stride - padding
        return Window(low, low + (self.size - 1) * stride + dilation * (kernel - 1) + 1)

    def above(self, module: nn.Conv2d | nn.MaxPool2d, size: Sequence[int]) -> Window:
        """The cells of a module's output, of `size` (h, w), that depend on these; at least one cell, dependent or not."""
        kernel, stride, padding, dilation = (self.low.new_tensor(v) for v in geometry(module))
        low = -((dilation * (kernel - 1) - self.low - padding) // stride)  # rounded up
        high = (self.high - 1 + padding) // stride + 1
        return Window(low, torch.maximum(high, low + 1)).clip(size)

    def clip(self, size: Sequence[int]) -> Window:
        """The part inside a map of `size` (h, w); of a window that lies outside, the nearest cell."""
        last = self.low.new_tensor(size) - 1
        low = self.low.clamp_min(0).minimum(last)
        return Window(low, (self.high - 1).minimum(last).maximum(low) + 1)

    def reaches_outside(self, size: Sequence[int]) -> bool:
        """Whether any cell lies outside a map of `size` (h, w)."""
        return bool((self.low < 0).any() or (self.high > self.high.new_tensor(size)).any())

    def outside(self, size: Sequence[int]) -> Tensor:
        """Which cells of M windows of one size (h, w) lie outside a map of `size`: (M, h, w) bool."""
        rows, columns = self.rows_and_columns()
        return ~(((rows >= 0) & (rows < size[0]))[:, :, None] & ((columns >= 0) & (columns < size[1]))[:, None])

    def always_outside(self, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """How many first and last rows and columns of all windows, of one size, lie outside a map of `size` (h, w).

        [top, left] and [bottom, right], int64; one row and column are never counted.
        """
        spare = self.size[0] - 1
        first = (-self.low).amin(0).clamp_min(0).minimum(spare)
        return first, (self.high - self.high.new_tensor(size)).amin(0).clamp_min(0).minimum(spare - first)

    def rows_and_columns(self) -> tuple[Tensor, Tensor]:
        """The cells' rows (M, h) and columns (M, w), of windows of one size."""
        height, width = self.size[0].tolist()
        along = self.low.new_tensor
        return self.low[:, :1] + along(range(height)), self.low[:, 1:] + along(range(width))
