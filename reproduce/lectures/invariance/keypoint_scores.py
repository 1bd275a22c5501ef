"""Scores of keypoints that are predicted in other images of the same kind."""

from __future__ import annotations

import numpy as np
import torch

from zfnet.analysis.intervals import bootstrap
from zfnet.analysis.matching import correct_keypoints


def example_pairs(
    place: torch.Tensor, points: torch.Tensor, head_size: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of images with the smallest, the median and the largest mean error.

    Args:
        place: Predicted keypoints (N, N, P, 2).
        points: Annotated keypoints (N, P, 2).
        head_size: The longer side of each head (N,).

    Returns:
        The pairs (3, 2), and their errors over the size of the head (3,).
    """
    distance = (place - points[None].to(place)).norm(dim=-1).mean(2)  # (N, N)
    error = (distance / head_size.to(place)).numpy()
    np.fill_diagonal(error, np.nan)
    order = np.argsort(error, axis=None)[: error.size - len(error)]  # NaN is last
    chosen = order[[0, len(order) // 2, -1]]
    return np.stack(np.unravel_index(chosen, error.shape), 1), error.flat[chosen]


def same_in_box(points: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """Map points from one head's box to another's.

    Args:
        points: Points in each image (N, P, 2).
        heads: Boxes of the heads (N, 4).

    Returns:
        The points of image i in the head of image j, (N, N, P, 2).
    """
    corner, size = (
        heads[:, None, :2].float(),
        (heads[:, None, 2:] - heads[:, None, :2]).float(),
    )  # (N, 1, 2)
    inside = (points - corner) / size
    return corner[None] + inside[:, None] * size[None]


def pck(hits: np.ndarray, seed: int = 0) -> list[float]:
    """The mean of hits over pairs of different images, in percent.

    Args:
        hits: (N, N, P).
        seed: Seed of the bootstrap.

    Returns:
        [mean, low, high], with an interval over images.
    """
    by_pair = 100 * hits.mean(2)
    n = len(by_pair)
    different = ~np.eye(n, dtype=bool)

    def mean(drawn: np.ndarray) -> float:
        # An image that is drawn twice makes no pair with itself.
        weight = np.outer(*[np.bincount(drawn, minlength=n)] * 2) * different
        return float((weight * by_pair).sum() / weight.sum()) if weight.any() else float("nan")

    return [mean(np.arange(n)), *bootstrap(mean, n, seed=seed)]


def swapped_eyes(
    place: torch.Tensor, points: torch.Tensor, head_size: torch.Tensor, alpha: float
) -> float:
    """The percentage of eyes whose match is at the other eye, within reach and closer to it."""
    eyes, other = place[:, :, :2], points[:, [1, 0]]
    wrong = correct_keypoints(eyes, other, head_size, alpha)
    nearer = (eyes - other[None]).norm(dim=-1) < (eyes - points[None, :, :2]).norm(dim=-1)
    different = ~torch.eye(len(points), dtype=torch.bool)
    return 100 * float((wrong & nearer)[different].float().mean())
