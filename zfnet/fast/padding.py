"""Padding of windows that extend beyond their map, and crops of windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PaddingMask(nn.Module):
    """Set cells outside the map to the padding value, and pad the sides that no window computes.

    On the way down the sides are cut off again, and cells outside pass no signal. A pooling pads
    with minus infinity; no switch points there, so there is nothing to set on the way down.

    Args:
        sides: (left, right, top, bottom), the cells to pad.
        outside: The cells to set, (M, h', w') bool, or None.
        value: The padding value.
    """

    def __init__(self, sides: tuple[int, int, int, int], outside: Tensor | None, value: float):
        super().__init__()
        self.sides, self.cells, self.value = (
            sides,
            () if outside is None else outside.nonzero(as_tuple=True),
            value,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, h', w') -> (M, C, h, w). Overwrites x."""
        x = self._set(x) if self.cells else x
        return F.pad(x, self.sides, value=self.value) if any(self.sides) else x

    def down(self, signal: Tensor) -> Tensor:
        """(M, C, h, w) -> (M, C, h', w'). Overwrites the signal."""
        left, right, top, bottom = self.sides
        signal = signal[:, :, top : signal.shape[2] - bottom, left : signal.shape[3] - right]
        return self._set(signal) if self.cells and self.value == 0 else signal

    def _set(self, maps: Tensor) -> Tensor:
        maps.permute(0, 2, 3, 1)[self.cells] = (
            self.value
        )  # few cells: far faster than a mask over all
        return maps


class Crop(nn.Module):
    """Cut the window that a layer needs out of a larger one. On the way down zeros surround it.

    Args:
        first: The first (row, column).
        size: (height, width).
    """

    def __init__(self, first: tuple[int, int], size: tuple[int, int]):
        super().__init__()
        self.first, self.size = first, size

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, H, W) -> (M, C, h, w). Returns a view."""
        (top, left), (height, width) = self.first, self.size
        return x[..., top : top + height, left : left + width]

    def down(self, signal: Tensor, size: torch.Size) -> Tensor:
        """(M, C, h, w) -> (M, C, H, W), of a size (M, C, H, W)."""
        (top, left), (height, width) = self.first, self.size
        sides = (left, size[-1] - left - width, top, size[-2] - top - height)
        return F.pad(signal, sides)
