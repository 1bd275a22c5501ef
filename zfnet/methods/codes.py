"""Codes: images as the vectors that a layer makes of them, their neighbours, and pictures of where they lie."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.methods.directions import principal_directions


def nearest(codes: Tensor, k: int) -> Tensor:
    r"""The k other images whose codes point most nearly the same way: codes (N, D) to (N, k) int64, the nearest first.

    By the cosine $\frac{f_i \cdot f_j}{\|f_i\| \|f_j\|}$. Raises ValueError where there are fewer than k others.
    """
    if not 1 <= k < len(codes):
        raise ValueError(f"k must be between 1 and the {len(codes) - 1} other images, got {k}")
    rows = F.normalize(codes, dim=1)
    found = []
    for start in range(0, len(rows), 512):  # the whole table of cosines never lives at once
        cosine = rows[start : start + 512] @ rows.T
        own = torch.arange(len(cosine), device=codes.device)
        cosine[own, start + own] = -torch.inf
        found.append(cosine.topk(k).indices)
    return torch.cat(found)


def tsne(codes: Tensor, *, seed: int, perplexity: float = 30.0, components: int = 50) -> np.ndarray:
    """Lay codes (N, D) out in the plane so that neighbours stay neighbours: (N, 2), by scikit-learn's t-SNE.

    The codes are made unit vectors and reduced to their `components` principal ones first; the layout begins from two of these.
    Distances between far groups mean little. Raises ImportError without scikit-learn, ValueError for fewer than three images.
    van der Maaten & Hinton 2008.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise ImportError("t-SNE is scikit-learn's: pip install 'zfnet[reproduce]'") from None
    if len(codes) < 3:
        raise ValueError(f"a layout needs three images or more, got {len(codes)}")
    unit = F.normalize(codes, dim=1)
    reduced = principal_components(unit, min(components, len(codes) - 1, codes.shape[1]))
    perplexity = min(perplexity, (len(codes) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced.cpu().numpy())


def principal_components(codes: Tensor, count: int) -> Tensor:
    """The coordinates of codes (N, D) along their `count` directions of largest variance: (N, count), centred."""
    return (codes - codes.mean(0)) @ principal_directions(codes, count).T


def grid(points: np.ndarray, columns: int) -> np.ndarray:
    r"""Give each of N points (N, 2) a cell of its own in a grid of `columns`, near its place: (N,) cell numbers, row by row.

    $\min_\pi \sum_n \|u_n - c_{\pi(n)}\|^2$ over assignments, with the points' ranges stretched to the grid's: every image
    of an embedding can be seen, and none covers another. The second coordinate is height: it grows upwards, rows downwards.
    Raises ImportError without scipy, which comes with scikit-learn. Jonker & Volgenant 1987.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError("the assignment to a grid is scipy's: pip install 'zfnet[reproduce]'") from None
    rows = -(-len(points) // columns)
    low, high = points.min(0), points.max(0)
    places = (points - low) / np.maximum(high - low, 1e-12) * (columns - 1, rows - 1)
    cells = np.stack([np.tile(np.arange(columns), rows), np.repeat(np.arange(rows)[::-1], columns)], 1)  # (cells, 2)
    cost = ((places[:, None] - cells) ** 2).sum(2)
    return linear_sum_assignment(cost)[1]
