"""The pooling switches of windows that may differ in size, in one table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zfnet.receptive_field import Window


@dataclass(frozen=True, eq=False)
class SwitchTable:
    """A pooling's switches in B windows of its maps.

    Cell (r, c) of window b is row start[b] + r size[b, 1] + c of the table. It is the pooled map's
    cell above[b] + (r, c). Its switch is an index into a window of the map below, which is width[b]
    cells wide and begins at below[b].

    Attributes:
        table: (cells, C) int32 or int64.
        start: (B,).
        size: (B, 2).
        width: (B,).
        above: (B, 2).
        below: (B, 2).
    """

    table: Tensor
    start: Tensor
    size: Tensor
    width: Tensor
    above: Tensor
    below: Tensor

    @staticmethod
    def of(index: Tensor, above: Tensor, below: Tensor, width: int) -> SwitchTable:
        """Build the table from the switches (B, C, h, w) of windows of one size."""
        b, c, h, w = index.shape
        start = h * w * torch.arange(b, device=index.device)
        table = index.permute(0, 2, 3, 1).reshape(-1, c)  # (B h w, C)
        size = torch.tensor([h, w], device=index.device).expand(b, 2)
        return SwitchTable(table, start, size, torch.full_like(start, width), above, below)

    @staticmethod
    def cat(parts: Sequence[SwitchTable]) -> SwitchTable:
        """Join tables, one after the other."""
        before = [0, *itertools.accumulate(len(part.table) for part in parts)]
        start = [part.start + n for part, n in zip(parts, before, strict=False)]
        table, _, *others = (
            torch.cat(values)
            for values in zip(*(vars(part).values() for part in parts), strict=True)
        )
        return SwitchTable(table, torch.cat(start), *others)

    def cut(self, row: Tensor, window: Window, below: Window) -> Tensor:
        """The switches (M, h, w, C) of M windows of one size, from the table's window row (M,).

        They are indices into the windows `below` of the map below. Cells outside the map, or read
        by such cells only, may be outside the table's window; they get no signal, so any switch
        will do.
        """
        last = self.size[row] - 1
        r, c = (
            cells - low
            for cells, low in zip(
                window.rows_and_columns(), self.above[row].split(1, 1), strict=True
            )
        )
        r, c = (
            cells.clamp_min(0).minimum(end)
            for cells, end in zip((r, c), last.split(1, 1), strict=True)
        )
        cells = (self.start[row, None] + r * self.size[row, 1:])[:, :, None] + c[
            :, None
        ]  # (M, h, w)
        switch = self.table[cells]  # (M, h, w, C), in windows of self.width
        width = int(below.size[0, 1])
        (down, right), wider = (self.below[row] - below.low).unbind(1), width - self.width[row]
        if wider.any():
            divisor = self.width[row].to(switch.dtype)[:, None, None, None]
            line = torch.div(switch, divisor, rounding_mode="trunc")
            switch += line.mul_(wider.to(switch.dtype)[:, None, None, None])
        shift = down * width + right
        if shift.any():
            switch += shift.to(switch.dtype)[:, None, None, None]
        return switch
