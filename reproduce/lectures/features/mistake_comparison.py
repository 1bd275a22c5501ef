"""The most confident mistakes against the other ones, and typical images of a class."""

from __future__ import annotations

from typing import Any

import numpy as np

from reproduce.lectures.kinds import kind_table
from reproduce.lectures.predictions import Predictions
from zfnet.analysis.intervals import difference_interval, wilson

GAIN = "most confident minus other mistakes, points"
ACCURACY = "accuracy of all images with at least this confidence, %"


def compare(
    predictions: Predictions, confident: np.ndarray, others: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Compare the most confident mistakes with the others, and with chance.

    Args:
        predictions: Predictions of the corpus.
        confident: The most confident mistakes, in descending order.
        others: The other mistakes.
        seed: Seed of the bootstrap.
    """
    labels, predicted = predictions.labels, predictions.predicted
    kind, in_top5 = kind_table(), predictions.rank() <= 5
    same = kind[labels] == kind[predicted]
    kind_share = np.bincount(kind[labels], minlength=kind.max() + 1) / len(labels)
    confidence = predictions.probability.max(1)
    threshold = float(confidence[confident[-1]])
    return {
        "most confident mistakes": len(confident),
        "lowest confidence among them": threshold,
        "within the kind, %": {
            "most confident": percent(same[confident]),
            "other mistakes": percent(same[others]),
        },
        "within the kind by chance, %": 100 * float(kind_share[kind[labels[confident]]].mean()),
        "true class among the five most probable, %": {
            "most confident": percent(in_top5[confident]),
            "other mistakes": percent(in_top5[others]),
        },
        GAIN: {
            "within the kind": difference(same[confident], same[others], seed),
            "among the five most probable": difference(in_top5[confident], in_top5[others], seed),
        },
        ACCURACY: percent(predictions.correct[confidence >= threshold]),
    }


def typical_image(predictions: Predictions, label: int) -> int:
    """The image of a class whose normalized code is closest to the class's mean code.

    Args:
        predictions: Predictions of the corpus.
        label: The class.

    Returns:
        Its index in the corpus.
    """
    members = np.flatnonzero(predictions.labels == label)
    codes = predictions.codes[members] / np.maximum(
        np.linalg.norm(predictions.codes[members], axis=1, keepdims=True), 1e-12
    )
    return int(members[(codes @ codes.mean(0)).argmax()])


def one_per_class(order: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The first image of each predicted class, in the given order."""
    _, first = np.unique(predicted[order], return_index=True)
    return order[np.sort(first)]


def percent(hits: np.ndarray) -> list[float]:
    """The share of hits (N,) in percent with Wilson's interval: [share, low, high]."""
    return [100 * v for v in (hits.mean(), *wilson(int(hits.sum()), len(hits)))]


def difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> list[float]:
    """The difference of two shares in points, with its interval: [difference, low, high]."""
    return (
        difference_interval(100.0 * one, 100.0 * other, seed=seed)
        if len(one) and len(other)
        else [float("nan")]
    )
