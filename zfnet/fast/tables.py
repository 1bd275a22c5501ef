"""The cells of a map as rows of a table: padding, unoccluded cells and changed cells.

Row 0 has zeros and row 1 minus infinity, the padding values of convolutions and max pooling. The
unoccluded cells follow in reading order, then the changed windows of the positions of a chunk, one
after the other. A patch around a changed window is a selection of rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zfnet.graph import Size
from zfnet.receptive_field import Window

ZERO, MINUS_INFINITY, FIRST_CELL = 0, 1, 2  # rows


class Table:
    """The cells of one value, for one image and a chunk of positions.

    Args:
        maps: The unoccluded value (1, C, H, W), or with more dimensions before the last two.
        capacity: The most changed cells of a chunk.

    Attributes:
        rows: (2 + H W + capacity, C).
        size: (H, W).
        window: The changed windows of the chunk's M positions.
        start: The row of each window's first cell (M,).
        pitch: The rows from a line of each window to the next (M,).
    """

    def __init__(self, maps: Tensor, capacity: int):
        self.lead = maps.shape[1:-2]
        self.size: Size = (maps.shape[-2], maps.shape[-1])
        self.base = FIRST_CELL + self.size[0] * self.size[1]
        self.rows = maps.new_empty(self.base + capacity, self.lead.numel())
        self.rows[ZERO], self.rows[MINUS_INFINITY] = 0, -torch.inf
        self.fill(maps)

    def fill(self, maps: Tensor) -> None:
        """Set the unoccluded cells to those of maps (1, ..., H, W)."""
        self.rows[FIRST_CELL : self.base] = as_cells(maps)

    def place(self, window: Window, start: Tensor, pitch: Tensor) -> None:
        """Say where the changed windows of a chunk are."""
        self.window, self.start, self.pitch = window, start, pitch

    def place_in_order(self, window: Window, groups: list[tuple[Tensor, Size]]) -> None:
        """Let the changed windows come one after the other, those of one shape together."""
        start, row = torch.empty_like(window.low[:, 0]), self.base
        for members, (height, width) in groups:
            end = row + len(members) * height * width
            start[members] = torch.arange(row, end, height * width, device=start.device)
            row = end
        self.place(window, start, window.size[:, 1])

    def written(self, members: Tensor, shape: Size) -> Tensor:
        """The changed windows of one group, as they are stored: (m, C, h, w)."""
        first, count = int(self.start[members[0]]), len(members) * shape[0] * shape[1]
        return self._as_maps(self.rows[first : first + count], (len(members), *shape))

    def write(self, members: Tensor, values: Tensor) -> None:
        """Store the changed windows (m, C, h, w) of one group."""
        height, width = values.shape[-2:]
        first, count = int(self.start[members[0]]), len(members) * height * width
        cells = self.rows[first : first + count].view(len(members), height, width, -1)
        cells.copy_(values.flatten(1, -3).permute(0, 2, 3, 1))

    def patches(
        self, members: Tensor, patch: Window, spacing: tuple[int, int], pad: int, out: Tensor
    ) -> Tensor:
        """Gather patches of one shape: (m, C, h, w).

        Args:
            members: The positions (m,) in the chunk.
            patch: The cells of each patch; `spacing` apart from its first cell on.
            spacing: (rows, columns).
            pad: The row for cells outside the map.
            out: Memory for at least m h w C numbers.
        """
        rows = self.row_numbers(members, patch, spacing, pad)
        memory = out[: rows.numel() * self.rows.shape[1]].view(-1, self.rows.shape[1])
        torch.index_select(self.rows, 0, rows.flatten(), out=memory)
        return self._as_maps(memory, rows.shape)

    def row_numbers(
        self, members: Tensor, patch: Window, spacing: tuple[int, int] = (1, 1), pad: int = ZERO
    ) -> Tensor:
        """The row of each cell of patches, changed or not: (m, h, w)."""
        r, c = patch.rows_and_columns()  # (m, h), (m, w)
        r, c = (
            low + (cells - low) * step
            for cells, low, step in zip((r, c), patch.low.split(1, 1), spacing, strict=True)
        )
        low, high = self.window.low[members], self.window.high[members]
        start, pitch = self.start[members], self.pitch[members]
        r_changed = (r >= low[:, :1]) & (r < high[:, :1])
        c_changed = (c >= low[:, 1:]) & (c < high[:, 1:])
        new = (start[:, None] + (r - low[:, :1]) * pitch[:, None])[:, :, None]
        new = new + (c - low[:, 1:])[:, None]
        old = (FIRST_CELL + r * self.size[1])[:, :, None] + c[:, None]
        outside = _outside(r, self.size[0])[:, :, None] | _outside(c, self.size[1])[:, None]
        if outside.any():
            old = old.masked_fill(outside, pad)
        return torch.where(r_changed[:, :, None] & c_changed[:, None], new, old)

    def _as_maps(self, cells: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Cells (m h w, C) as maps (m, C, h, w) whose memory is channels last."""
        maps = cells.view(*shape, *self.lead)  # (m, h, w, C)
        return maps.movedim((1, 2), (-2, -1))


def as_cells(maps: Tensor) -> Tensor:
    """The cells of one image's maps as rows: (1, ..., H, W) to (H W, C)."""
    return maps[0].flatten(0, -3).flatten(1).T


def group_by_shape(sizes: Tensor) -> list[tuple[Tensor, Size]]:
    """Group M windows by shape: for each shape, their numbers and (height, width)."""
    shapes, group = torch.unique(sizes, dim=0, return_inverse=True)
    return [((group == i).nonzero()[:, 0], (h, w)) for i, (h, w) in enumerate(shapes.tolist())]


def _outside(cells: Tensor, size: int) -> Tensor:
    return (cells < 0) | (cells >= size)
