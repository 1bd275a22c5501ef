"""Measure what erasing a part of a digit does to its logit, probability and prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zfnet.analysis.intervals import mean_interval
from zfnet.occlusion import Occlusion


def fall_numbers(o: Occlusion, fall: np.ndarray, config: Mapping[str, float]) -> dict[str, Any]:
    """How far logit and probability fall, and how often only the logit does.

    Args:
        o: The occlusion of the eights.
        fall: The relative decrease of their logits (N, rows, cols).
        config: `fall`, the decrease that counts as large, and `hidden`, the decrease of the
            probability that counts as none.
    """
    base = o.baseline
    probability_fall = (base.probability - o.probability.amin((1, 2))).numpy()
    hidden = (base.probability[:, None, None] - o.probability).numpy() < config["hidden"]
    large = fall >= config["fall"]
    rows = np.flatnonzero(large.any((1, 2)))
    share = np.array([100 * hidden[n][large[n]].mean() for n in rows])
    return {
        "largest fall of the logit, %": mean_interval(100 * fall.max((1, 2))),
        "largest fall of the probability": mean_interval(probability_fall),
        "positions that cost a tenth of the logit, %": mean_interval(100 * large.mean((1, 2))),
        "of these, those that move the probability by less than 0.01, %": mean_interval(share),
    }


def prediction_numbers(
    o: Occlusion, images: np.ndarray, digit: int, digits: Iterable[int]
) -> dict[str, Any]:
    """Which digits erased eights are predicted as, and where their erased parts are.

    Args:
        o: The occlusion of the eights.
        images: The eights (N, H, W).
        digit: Their class.
        digits: The digits to locate the erased parts of.
    """
    label = o.label.numpy()
    centers = (o.boxes[..., :2] + o.boxes[..., 2:] - 1).double().numpy() / 2  # (rows, cols, 2)
    ink = ink_center(images)
    offsets = {}
    for k in digits:
        turned = [n for n in range(len(images)) if (label[n] == k).any()]
        if len(turned) > 1:
            offset = np.array([centers[label[n] == k].mean(0) - ink[n] for n in turned])
            offsets[str(k)] = {
                "eights": len(turned),
                "down": mean_interval(offset[:, 0]),
                "right": mean_interval(offset[:, 1]),
            }
    others = [k for k in range(10) if k != digit]
    return {
        "turned into another digit somewhere": int((label != digit).any((1, 2)).sum()),
        "turned into": {str(k): int((label == k).any((1, 2)).sum()) for k in others},
        "where, in pixels from the middle of the ink": offsets,
    }


def ink_center(images: np.ndarray) -> np.ndarray:
    """The centers of the ink (row, column) of images (N, H, W): (N, 2)."""
    rows, columns = (np.arange(n) for n in images.shape[1:])
    total = images.sum((1, 2))
    return np.stack([images.sum(2) @ rows / total, images.sum(1) @ columns / total], 1)
