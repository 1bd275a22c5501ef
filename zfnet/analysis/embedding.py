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
    """The first k principal components of features (N, D).

    Attributes:
        codes: The centered features along the components (N, k).
        axes: The components (k, D), orthonormal.
        mean: The mean of the features (D,).
        explained_variance_ratio: The share of the total variance per component (k,), decreasing.
    """

    codes: Tensor
    axes: Tensor
    mean: Tensor
    explained_variance_ratio: Tensor


def pca(features: Tensor, components: int = 2) -> PCA:
    r"""Return the principal components of features, by scikit-learn in float64.

    $X - \bar x = U S V^T$; the components are the rows of $V^T$, the codes $U S$, and the explained
    variance ratios $s_i^2 / \sum_j s_j^2$. Features are not scaled. The sign of a component makes
    its entry of the largest magnitude positive.

    Args:
        features: Features (N, ...); they are flattened.
        components: The number of components k, at most D and N - 1.

    Returns:
        The components, in the dtype and on the device of the features.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If there are too few images or features, if the features vary in fewer than k
            directions, or if they are not finite.

    Example:
        >>> p = pca(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), 1)
        >>> p.axes.abs(), p.explained_variance_ratio
        (tensor([[0.6000, 0.8000]]), tensor([1.]))
    """
    decomposition = import_extra("sklearn.decomposition")
    x = features.flatten(1)
    if not 1 <= components <= min(len(x) - 1, x.shape[1]):
        raise ValueError(
            f"{components} components need {components} features and {components + 1} images, "
            f"got {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        raise ValueError("features hold values that are not finite")
    mean = x.mean(0)
    centered = (x - mean).double().cpu().numpy()
    scale = float(np.square(centered).sum())
    # ARPACK computes only the first components, but needs a matrix that is not tiny.
    few = components <= min(centered.shape) // 10 and min(centered.shape) > 500
    fit = decomposition.PCA(components, svd_solver="arpack" if few else "full", random_state=0)
    if scale == 0 or fit.fit(centered).explained_variance_ratio_[-1] <= 1e-12:
        raise ValueError(f"features vary in fewer than {components} directions")
    axes = torch.from_numpy(fit.components_.copy())  # ARPACK's are in reversed order: a view
    # scikit-learn 1.4 chooses the signs by the codes instead.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    codes, ratio = torch.from_numpy(centered) @ axes.T, fit.explained_variance_ratio_.copy()
    codes, axes, ratio = (t.to(x) for t in (codes, axes, torch.from_numpy(ratio)))
    return PCA(codes, axes, mean, ratio)


def nearest_neighbors(codes: Tensor, k: int) -> Tensor:
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
        >>> codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
        >>> nearest_neighbors(codes, 1).tolist()
        [[2], [2], [0]]
    """
    if not 1 <= k < len(codes):
        raise ValueError(f"k must be between 1 and the {len(codes) - 1} other images, got {k}")
    rows = F.normalize(codes, dim=1)
    neighbors = []
    for start in range(0, len(rows), 512):  # bounds the memory of the cosines
        cosine = rows[start : start + 512] @ rows.T
        cosine.diagonal(start).fill_(-torch.inf)  # an image is not its own neighbor
        neighbors.append(cosine.topk(k).indices)
    return torch.cat(neighbors)


def tsne(codes: Tensor, *, seed: int, perplexity: float = 30.0, components: int = 50) -> np.ndarray:
    """Embed codes in the plane with scikit-learn's t-SNE, which keeps neighbors together.

    van der Maaten & Hinton 2008. Codes are normalized and reduced by PCA first. The embedding is
    initialized with the first two components. Distances between far groups mean little.

    Args:
        codes: Codes (N, D).
        seed: The seed of the embedding.
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
        raise ValueError(f"t-SNE needs at least three images, got {len(codes)}")
    unit = F.normalize(codes, dim=1)
    reduced = pca(unit, min(components, len(codes) - 1, codes.shape[1])).codes
    perplexity = min(perplexity, (len(codes) - 1) / 3)
    return manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        reduced.cpu().numpy()
    )


def grid_layout(points: np.ndarray, columns: int) -> np.ndarray:
    r"""Assign each point to a cell of a grid, near its position and without overlaps.

    Minimizes $\sum_n \|u_n - c_{\pi(n)}\|^2$ over assignments $\pi$, with the points' ranges
    stretched to the grid. Jonker & Volgenant 1987.

    Args:
        points: Points (N, 2) as (x, y); y points up.
        columns: The number of columns.

    Returns:
        Cell numbers (N,), in reading order from the top left.

    Raises:
        ImportError: If scipy is missing.

    Example:
        >>> import numpy as np
        >>> grid_layout(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), 2).tolist()
        [2, 3, 0, 1]
    """
    optimize = import_extra("scipy.optimize")
    rows = -(-len(points) // columns)
    low, high = points.min(0), points.max(0)
    scaled = (points - low) / np.maximum(high - low, 1e-12) * (columns - 1, rows - 1)
    cells = np.stack(
        [np.tile(np.arange(columns), rows), np.repeat(np.arange(rows)[::-1], columns)], 1
    )  # (cells, 2)
    cost = ((scaled[:, None] - cells) ** 2).sum(2)  # (N, cells)
    return optimize.linear_sum_assignment(cost)[1]


def silhouette(features: Tensor, labels: Tensor) -> Tensor:
    r"""Return the silhouette of each image: $s = (b - a) / \max(a, b)$.

    Rousseeuw 1987, by scikit-learn. a is the mean Euclidean distance to the other images of the
    class, and b the mean distance to those of the nearest other class. The mean of s measures how
    well the classes separate.

    Args:
        features: Features (N, ...); they are flattened.
        labels: Classes (N,).

    Returns:
        Values (N,) in [-1, 1]; 0 for the only image of a class.

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
    values = metrics.silhouette_samples(x.cpu().numpy(), labels.cpu().numpy())
    return torch.from_numpy(values).float().to(features.device)


def nearest_centroid(features: Tensor, labels: Tensor) -> Tensor:
    """Return whether each image is nearer to the mean of its class than to any other mean.

    The mean of the image's class is computed without the image. Distances are Euclidean.

    Args:
        features: Features (N, ...); they are flattened.
        labels: Classes (N,).

    Returns:
        Booleans (N,); False for the only image of a class.

    Raises:
        ValueError: If there are fewer than two classes, or if labels are not (N,).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> nearest_centroid(x, torch.tensor([0, 0, 1, 1])).tolist()
        [True, True, True, True]
    """
    x, members = _classes(features, labels)
    count, is_own = members.sum(0), members.bool()
    centroids = members.T @ x / count[:, None]  # (K, D)
    distance = torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist")  # (N, K)
    n = count[is_own.int().argmax(1)]  # (N,), the size of the image's class
    # Leaving x out of the mean of its class scales their difference by n / (n - 1).
    leave_one_out = distance[is_own] * n / (n - 1)
    return leave_one_out < distance.masked_fill(is_own, torch.inf).amin(1)


def _classes(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return flattened features (N, D) and one-hot classes (N, K), both float64."""
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"expected one label per image, ({len(features)},), got {tuple(labels.shape)}"
        )
    classes, index = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError("at least two classes are needed to measure how well they separate")
    return features.flatten(1).double(), F.one_hot(index).double()
