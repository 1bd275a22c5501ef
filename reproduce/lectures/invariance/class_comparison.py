"""Compare correct and wrong images by an attribute, with intervals over classes."""

from __future__ import annotations

import numpy as np

from zfnet.analysis.intervals import bootstrap


def within_classes(
    values: np.ndarray, correct: np.ndarray, labels: np.ndarray, seed: int = 0
) -> list[float]:
    """Compare correct and wrong images of the same class.

    Args:
        values: An attribute (N,).
        correct: Whether each image is classified correctly (N,).
        labels: Classes (N,).
        seed: Seed of the bootstrap.

    Returns:
        The share of pairs in which the correct image has more of the attribute, with its interval
        over classes: [share, low, high]. Empty if fewer than two classes have a pair.
    """
    wins, pairs = [], []
    for label in np.unique(labels):
        one, other = (values[(labels == label) & side] for side in (correct, ~correct))
        if len(one) and len(other):
            wins.append(((np.sign(one[:, None] - other) + 1) / 2).sum())
            pairs.append(len(one) * len(other))
    if len(wins) < 2:
        return []
    wins, pairs = np.array(wins), np.array(pairs)
    return [
        float(wins.sum() / pairs.sum()),
        *bootstrap(lambda i: float(wins[i].sum() / pairs[i].sum()), len(wins), seed=seed),
    ]


def by_class(
    values: np.ndarray, correct: np.ndarray, labels: np.ndarray, edges: np.ndarray, seed: int = 0
) -> list[float]:
    """The accuracy of the last bin minus that of the first, for an attribute of the class.

    Args:
        values: The attribute (N,).
        correct: Whether each image is classified correctly (N,).
        labels: Classes (N,).
        edges: Edges of the bins.
        seed: Seed of the bootstrap.

    Returns:
        The difference in points, with its interval over classes: [difference, low, high].
    """
    classes, first, images = np.unique(labels, return_index=True, return_counts=True)
    hits = np.array([correct[labels == label].sum() for label in classes])
    attribute = values[first]

    def gain(drawn: np.ndarray) -> float:
        low, high = (
            drawn[side] for side in (attribute[drawn] < edges[1], attribute[drawn] >= edges[-2])
        )
        if not len(low) or not len(high):
            return float("nan")
        return 100 * float(
            hits[high].sum() / images[high].sum() - hits[low].sum() / images[low].sum()
        )

    every = np.arange(len(classes))
    return [gain(every), *bootstrap(gain, len(every), seed=seed)]
