"""Embeddings of images: neighbors, cluster quality, PCA, t-SNE, and a grid layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.analysis.extra import import_extra


@dataclass(frozen=True, eq=False)
class PCA:
    """The principal components of features (N, D).

    `codes` (N, k) are the features along the components, of mean 0; `axes` (k, D) the components,
    of length 1 and at right angles; `mean` (D,); `share` (k,) of the whole variance that each
    component holds, falling, in [0, 1].
    """

    codes: Tensor
    axes: Tensor
    mean: Tensor
    share: Tensor


def pca(features: Tensor, components: int = 2) -> PCA:
    r"""The directions in which features (N, ...) vary most: the eigenvectors of their covariance (Pearson 1901).

    $X - \bar x = U S V^T$; the components are the rows of $V^T$, the codes $U S$, the shares $s_i^2
    / \sum_j s_j^2$. Features are flattened and kept in their own units. A component's sign makes
    its entry of the largest size positive. With more features than images the N x N matrix of
    products is decomposed, which is the same and smaller. Raises ValueError for fewer images or
    features than components, or for features that do not vary or are not finite.
    """
    x = features.flatten(1)
    if not 1 <= components <= min(len(x) - 1, x.shape[1]):
        raise ValueError(
            f"{components} components need as many features and one image more, got {tuple(x.shape)}"
        )
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
    r"""Return the k other images with the most similar codes, by cosine.

    Args:
        codes: Codes (N, D).
        k: The number of neighbors, from 1 to N - 1.

    Returns:
        Image numbers (N, k) int64, the most similar first.

    Raises:
        ValueError: If there are fewer than k other images.

    Example:
        >>> import torch
        >>> nearest(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), 1).tolist()
        [[2], [2], [0]]
    """
    if not 1 <= k < len(codes):
        raise ValueError(f"k must be between 1 and the {len(codes) - 1} other images, got {k}")
    rows = F.normalize(codes, dim=1)
    found = []
    for start in range(0, len(rows), 512):  # bounds the memory of the cosines
        cosine = rows[start : start + 512] @ rows.T
        own = torch.arange(len(cosine), device=codes.device)
        cosine[own, start + own] = -torch.inf
        found.append(cosine.topk(k).indices)
    return torch.cat(found)


def tsne(codes: Tensor, *, seed: int, perplexity: float = 30.0, components: int = 50) -> np.ndarray:
    """Lay codes out in the plane with scikit-learn's t-SNE, so that neighbors stay neighbors.

    van der Maaten & Hinton 2008. Codes are normalized and reduced by PCA first. The layout starts
    from the first two components. Distances between far groups mean little.

    Args:
        codes: Codes (N, D).
        seed: The seed of the layout.
        perplexity: The effective number of neighbors; at most (N - 1) / 3 is used.
        components: The number of principal components.

    Returns:
        Points (N, 2).

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If there are fewer than three images.

    Example:
        >>> import torch
        >>> tsne(torch.randn(6, 4), seed=0).shape
        (6, 2)
    """
    manifold = import_extra("sklearn.manifold")
    if len(codes) < 3:
        raise ValueError(f"a layout needs three images or more, got {len(codes)}")
    unit = F.normalize(codes, dim=1)
    reduced = pca(unit, min(components, len(codes) - 1, codes.shape[1])).codes
    perplexity = min(perplexity, (len(codes) - 1) / 3)
    return manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        reduced.cpu().numpy()
    )


def grid(points: np.ndarray, columns: int) -> np.ndarray:
    r"""Assign each of N points to a cell of a grid, near its place and without overlaps.

    Minimizes $\sum_n \|u_n - c_{\pi(n)}\|^2$ over assignments $\pi$, with the points' ranges
    stretched to the grid. Jonker & Volgenant 1987.

    Args:
        points: Points (N, 2) as (x, y); y grows upwards.
        columns: The number of columns.

    Returns:
        Cell numbers (N,), in reading order from the top left.

    Raises:
        ImportError: If scipy is missing.

    Example:
        >>> import numpy as np
        >>> grid(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), 2).tolist()
        [2, 3, 0, 1]
    """
    optimize = import_extra("scipy.optimize")
    rows = -(-len(points) // columns)
    low, high = points.min(0), points.max(0)
    places = (points - low) / np.maximum(high - low, 1e-12) * (columns - 1, rows - 1)
    cells = np.stack(
        [np.tile(np.arange(columns), rows), np.repeat(np.arange(rows)[::-1], columns)], 1
    )  # (cells, 2)
    cost = ((places[:, None] - cells) ** 2).sum(2)
    return optimize.linear_sum_assignment(cost)[1]


def silhouette(features: Tensor, labels: Tensor) -> Tensor:
    r"""Return how well each image fits its class: $s = (b - a) / \max(a, b)$.

    Rousseeuw 1987, by scikit-learn. a is the mean Euclidean distance to the others of the class, b
    the mean distance to those of the nearest other class. The mean of s is the quality of the
    clusters.

    Args:
        features: Features (N, ...); they are flattened.
        labels: Classes (N,).

    Returns:
        Values (N,) in [-1, 1]; 0 for an image alone in its class.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If there are fewer than two classes or no two images of one class, or if labels
            are not (N,).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> silhouette(x, torch.tensor([0, 0, 1, 1])).mean() > 0.8
        tensor(True)
    """
    x, _ = _classes(features, labels)
    metrics = import_extra("sklearn.metrics")
    return (
        torch.from_numpy(metrics.silhouette_samples(x.cpu().numpy(), labels.cpu().numpy()))
        .float()
        .to(features.device)
    )


def nearest_centroid(features: Tensor, labels: Tensor) -> Tensor:
    """Return whether each image is nearer to the mean of its class than to any other mean.

    The mean of its own class leaves the image out. Distances are Euclidean.

    Args:
        features: Features (N, ...); they are flattened.
        labels: Classes (N,).

    Returns:
        Booleans (N,); False for an image alone in its class.

    Raises:
        ValueError: If there are fewer than two classes, or if labels are not (N,).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> nearest_centroid(x, torch.tensor([0, 0, 1, 1])).tolist()
        [True, True, True, True]
    """
    x, members = _classes(features, labels)
    count, own = members.sum(0), members.bool()
    centroids = members.T @ x / count[:, None]  # (K, D)
    distance = torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    n = count[own.int().argmax(1)]
    without = (
        distance[own] * n / (n - 1)
    )  # x less the mean of the others is n / (n - 1) times x less the mean of all
    return without < distance.masked_fill(own, torch.inf).amin(1)


def _classes(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return flattened features (N, D) and one-hot classes (N, K), both float64."""
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"expected one label for each of {len(features)} images, got {tuple(labels.shape)}"
        )
    found, places = labels.unique(return_inverse=True)
    if len(found) < 2:
        raise ValueError("the quality of clusters needs two classes or more")
    return features.flatten(1).double(), F.one_hot(places).double()
