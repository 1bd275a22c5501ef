"""Many features in a few dimensions: principal components, and how well classes keep together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
    return features.flatten(1).double(), torch.nn.functional.one_hot(places).double()
