"""Images as vectors: their neighbours, how well classes keep together, and pictures of where they lie (PCA, t-SNE, a grid)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PCA:
    """The principal components of features (N, D).

    `codes` (N, k) are the features along the components, of mean 0; `axes` (k, D) the components, of length 1 and at right
    angles; `mean` (D,); `share` (k,) of the whole variance that each component holds, falling, in [0, 1].
    """

    codes: Tensor
    axes: Tensor
    mean: Tensor
    share: Tensor


def pca(features: Tensor, components: int = 2) -> PCA:
    r"""The directions in which features (N, ...) vary most: the eigenvectors of their covariance (Pearson 1901).

    $X - \bar x = U S V^T$; the components are the rows of $V^T$, the codes $U S$, the shares $s_i^2 / \sum_j s_j^2$. Features
    are flattened and kept in their own units. A component's sign makes its entry of the largest size positive. With more
    features than images the N x N matrix of products is decomposed, which is the same and smaller.
    Raises ValueError for fewer images or features than components, or for features that do not vary or are not finite.
    """
    x = features.flatten(1)
    if not 1 <= components <= min(len(x) - 1, x.shape[1]):
        raise ValueError(f"{components} components need as many features and one image more, got {tuple(x.shape)}")
    if not x.isfinite().all():
        raise ValueError("features hold values that are not finite")
    mean = x.mean(0)
    x = (x - mean).double()
    wide = x.shape[1] > len(x)
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)  # ascending
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    total = x.square().sum()
    if values[-1] <= 1e-12 * total or total == 0:
        raise ValueError(f"features vary in fewer than {components} directions")
    axes = (x.T @ vectors / values.sqrt()).T if wide else vectors.T
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    kind = features.dtype
    return PCA((x @ axes.T).to(kind), axes.to(kind), mean, (values / total).to(kind))


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
        raise ImportError("t-SNE needs scikit-learn, of the extra `analysis`: pip install scikit-learn") from None
    if len(codes) < 3:
        raise ValueError(f"a layout needs three images or more, got {len(codes)}")
    unit = F.normalize(codes, dim=1)
    reduced = pca(unit, min(components, len(codes) - 1, codes.shape[1])).codes
    perplexity = min(perplexity, (len(codes) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced.cpu().numpy())


def grid(points: np.ndarray, columns: int) -> np.ndarray:
    r"""Give each of N points (N, 2) a cell of its own in a grid of `columns`, near its place: (N,) cell numbers, row by row.

    $\min_\pi \sum_n \|u_n - c_{\pi(n)}\|^2$ over assignments, with the points' ranges stretched to the grid's: every image
    of an embedding can be seen, and none covers another. The second coordinate is height: it grows upwards, rows downwards.
    Raises ImportError without scipy, which comes with scikit-learn. Jonker & Volgenant 1987.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError("a grid needs scipy, of the extra `analysis`: pip install scipy") from None
    rows = -(-len(points) // columns)
    low, high = points.min(0), points.max(0)
    places = (points - low) / np.maximum(high - low, 1e-12) * (columns - 1, rows - 1)
    cells = np.stack([np.tile(np.arange(columns), rows), np.repeat(np.arange(rows)[::-1], columns)], 1)  # (cells, 2)
    cost = ((places[:, None] - cells) ** 2).sum(2)
    return linear_sum_assignment(cost)[1]


def silhouette(features: Tensor, labels: Tensor) -> Tensor:
    r"""How well each of N images lies among its own class: (N,) in [-1, 1]; the mean is the quality of the clusters.

    $s = (b - a) / \max(a, b)$, with a the mean Euclidean distance to the others of its class and b the mean distance to those
    of the nearest other class; 0 for an image alone in its class (Rousseeuw 1987). Features (N, ...) are flattened.
    Raises ValueError for fewer than two classes, or where labels are not (N,).
    """
    x, members = _classes(features, labels)
    count = members.sum(0)  # (K,)
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") @ members  # (N, K) summed over each class
    own = members.bool()
    a = distance[own] / (count[own.int().argmax(1)] - 1).clamp_min(1)
    b = (distance / count).masked_fill(own, torch.inf).amin(1)
    s = (b - a) / torch.maximum(a, b).clamp_min(1e-300)
    return torch.where(count[own.int().argmax(1)] > 1, s, 0.0).float()


def nearest_centroid(features: Tensor, labels: Tensor) -> Tensor:
    """Whether each of N images is nearer to the mean of its own class, made without it, than to any other's: (N,) bool.

    Euclidean distances of features (N, ...), flattened. False for an image alone in its class. Raises as `silhouette`.
    """
    x, members = _classes(features, labels)
    count, own = members.sum(0), members.bool()
    centroids = members.T @ x / count[:, None]  # (K, D)
    distance = torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    n = count[own.int().argmax(1)]
    without = distance[own] * n / (n - 1)  # x less the mean of the others is n / (n - 1) times x less the mean of all
    return without < distance.masked_fill(own, torch.inf).amin(1)


def _classes(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Flattened features (N, D) and which class each is of (N, K), both float64. Raises ValueError."""
    if labels.shape != features.shape[:1]:
        raise ValueError(f"expected one label for each of {len(features)} images, got {tuple(labels.shape)}")
    found, places = labels.unique(return_inverse=True)
    if len(found) < 2:
        raise ValueError("the quality of clusters needs two classes or more")
    return features.flatten(1).double(), F.one_hot(places).double()
