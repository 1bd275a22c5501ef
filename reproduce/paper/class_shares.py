"""The share of one class among a feature's nine strongest images, with intervals (Figure 2)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from zfnet.analysis.directions import purity

GROUPS = 50  # of classes, for the jackknife
SEED = 2  # of the groups


def jackknife(labels: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean share of one class among a feature's nine images.

    Groups of classes are left out, because features share images: they are no independent sample.

    Args:
        labels: (features, 9) by layer.

    Returns:
        The mean by layer (L,), and the means without each of G groups of classes (G, L).
    """
    classes = np.unique(np.concatenate([of_layer.ravel() for of_layer in labels.values()]))
    count = min(GROUPS, len(classes))
    group = np.zeros(classes.max() + 1, dtype=int)
    group[classes] = np.random.default_rng(SEED).permutation(len(classes)) % count
    means = np.array([purity(of_layer).mean() for of_layer in labels.values()])
    left_out = [
        [_mean_share(of_layer, group[of_layer] != g) for of_layer in labels.values()]
        for g in range(group.max() + 1)
    ]
    return means, np.array(left_out)


def _mean_share(labels: np.ndarray, kept: np.ndarray) -> float:
    """The mean share of the most frequent label (features, 9), over the images that are kept."""
    labels, kept = labels[kept.any(1)], kept[kept.any(1)]
    same = ((labels[:, :, None] == labels[:, None]) & kept[:, None]).sum(2) * kept
    return float((same.max(1) / kept.sum(1)).mean())


def standard_error(left_out: np.ndarray) -> np.ndarray:
    """The jackknife's standard error (Tukey 1958) from G left-out values: (G, ...) -> (...)."""
    n = len(left_out)
    return np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))


def rises(means: np.ndarray, left_out: np.ndarray) -> dict[str, list[float]]:
    """The rise of the mean share from layer 1 to the last, and from each layer to the next.

    Returns:
        [rise, low, high] by pair of layers, with 95 % intervals by `jackknife`.
    """
    last, intervals = len(means), {}
    for low, high in ((1, last), *pairwise(range(1, last + 1))):
        rise = float(means[high - 1] - means[low - 1])
        half = 1.96 * float(standard_error(left_out[:, high - 1] - left_out[:, low - 1]))
        intervals[f"layer {low} to layer {high}"] = [rise, rise - half, rise + half]
    return intervals
