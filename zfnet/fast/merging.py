"""Merge windows of an image if their union costs less than the separate windows."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from zfnet.graph import Size, Step, map_sizes, output_size
from zfnet.receptive_field import Window

CROWD = 64  # with more windows per image, all or none of them are merged


def multiplications(steps: list[Step], size: Size) -> np.ndarray:
    """The cost of a window of the last map, by its height and width: (H + 1, W + 1)."""
    sizes = map_sizes(steps, size)
    height, width = sizes[""]
    square = torch.arange(max(height, width) + 1, device="cpu")[:, None].expand(-1, 2)
    window, total = Window(torch.zeros_like(square), square), np.zeros((height + 1, width + 1))
    for step in reversed(steps):
        if isinstance(step.module, nn.Conv2d):
            cells = window.size.minimum(
                torch.tensor(output_size(step.module, sizes[step.name]), device="cpu")
            ).numpy()
            total += np.outer(cells[: height + 1, 0], cells[: width + 1, 1]) * float(
                step.module.weight.numel()
            )
        if isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            window = window.below(step.module)
    return total


def merge_windows(
    image: np.ndarray, low: np.ndarray, high: np.ndarray, cost: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Merge windows while that lowers their total cost.

    Greedy: in each image the two windows whose union saves most become one, until none saves
    anything.

    Args:
        image: The image of each window (M,).
        low: The first row and column (M, 2).
        high: The last row and column, exclusive (M, 2).
        cost: The cost of a window by height and width, from `multiplications`.

    Returns:
        The number of each window's merged window (M,), and the merged windows' image (B,), low and
        high (B, 2), sorted by size and then by image and place.
    """
    if not len(image):
        return np.zeros(0, dtype=int), image, low, high
    windows, row = np.unique(
        np.concatenate([image[:, None], low, high], 1), axis=0, return_inverse=True
    )
    owner, merged, count = np.empty(len(windows), dtype=int), [], 0
    for members in np.split(np.arange(len(windows)), np.flatnonzero(np.diff(windows[:, 0])) + 1):
        low, high, own = _merge_image(windows[members, 1:3], windows[members, 3:], cost)
        owner[members], count = own + count, count + len(low)
        merged.append(
            np.concatenate([np.full((len(low), 1), windows[members[0], 0]), low, high], 1)
        )
    union = np.concatenate(merged)
    order = np.lexsort([*union[:, 1:3].T[::-1], *(union[:, 3:] - union[:, 1:3]).T])
    image, low, high = np.split(union[order], [1, 3], axis=1)
    return np.argsort(order)[owner[row.reshape(-1)]], image[:, 0], low, high


def _merge_image(
    low: np.ndarray, high: np.ndarray, cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge the windows of one image: the merged low and high, and each window's merged number."""
    own = np.arange(len(low))
    if len(low) > CROWD:  # searching for pairs would cost more than it saves
        first, last = low.min(0, keepdims=True), high.max(0, keepdims=True)
        if cost[tuple((last - first).T)] < cost[tuple((high - low).T)].sum():
            low, high, own = first, last, np.zeros_like(own)
    while 1 < len(low) <= CROWD:
        lower, upper = (
            np.minimum(low[:, None], low),
            np.maximum(high[:, None], high),
        )  # of each pair's union
        alone = cost[tuple((high - low).T)]
        saved = alone[:, None] + alone - cost[tuple(np.moveaxis(upper - lower, 2, 0))]
        np.fill_diagonal(saved, 0)
        i, j = sorted(np.unravel_index(saved.argmax(), saved.shape))
        if saved[i, j] <= 0:
            break
        low[i], high[i] = lower[i, j], upper[i, j]
        low, high = np.delete(low, j, 0), np.delete(high, j, 0)
        own = np.where(own == j, i, own - (own > j))
    return low, high, own
