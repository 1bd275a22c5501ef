"""What each change of Table 3 costs, with intervals over images and trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from reproduce.paper.ablations import WIDE
from reproduce.paper.rows import Row, Rows
from zfnet.analysis.faithfulness import rank_correlation

Misses = Callable[[Row], np.ndarray]  # 100 for each image that is misclassified, else 0
A, Z = "AlexNet", "ZFNet"
THREE_FOUR, SIX_SEVEN = "without layers 3, 4", "without layers 6, 7"
ALL_FOUR = "without layers 3, 4, 6, 7"
BEYOND = f"{ALL_FOUR}, beyond the sum of 3, 4 and 6, 7"
WIDER = "ZFNet, wider layers 3-5"
WIDEST = "ZFNet, wider layers 3-5: and 6, 7 of 8192"
ZFNET = "ZFNet instead of AlexNet"
COSTS = {  # change -> the changed row, and the row that it changes
    THREE_FOUR: (f"{A} {THREE_FOUR}", A),
    SIX_SEVEN: (f"{A} {SIX_SEVEN}", A),
    ALL_FOUR: (f"{A} {ALL_FOUR}", A),
    "AlexNet, layers 6, 7 of 2048": (f"{A}, layers 6, 7 of 2048", A),
    "AlexNet, layers 6, 7 of 8192": (f"{A}, layers 6, 7 of 8192", A),
    "ZFNet, layers 6, 7 of 2048": (f"{Z}, layers 6, 7 of 2048", Z),
    "ZFNet, layers 6, 7 of 8192": (f"{Z}, layers 6, 7 of 8192", Z),
    WIDER: (f"{Z}, {WIDE}", Z),
    WIDEST: (f"{Z}, {WIDE}, and 6, 7 of 8192", f"{Z}, {WIDE}"),
    ZFNET: (Z, A),
}


def validation_misses(row: Row) -> np.ndarray:
    """100 for each misclassified validation image, else 0."""
    return 100.0 * (row.rank > 1)


def training_misses(row: Row) -> np.ndarray:
    """100 for each misclassified training image, else 0."""
    return 100.0 * (row.train_rank > 1)


def contrast(rows: Rows, terms: Sequence[tuple[int, str]], misses: Misses) -> list[float]:
    """A sum of errors with signs, in points: [mean, low, high], a 95 % interval.

    Its variance has two parts. That over images is of the paired differences, averaged over seeds.
    That over trainings is the spread between seeds, pooled over the rows with several, divided by
    each row's number of seeds. Without such a row it is over images only.

    Args:
        rows: The trained rows.
        terms: Sign and row of each term.
        misses: `validation_misses` or `training_misses`.
    """
    from scipy.stats import t  # slow, and `reproduce list` imports this file

    differences = np.sum([s * np.mean([*map(misses, rows[n])], 0) for s, n in terms], axis=0)
    mean, n = float(differences.mean()), len(differences)
    over_images = 1.96 * float(differences.std(ddof=1)) / math.sqrt(n)
    spread, freedom = seed_spread(rows, misses)
    over_seeds = 0.0
    if freedom:  # Student's t, because seeds are few
        seeds = sum(1 / len(rows[name]) for _, name in terms)
        over_seeds = float(t.ppf(0.975, freedom)) * spread * math.sqrt(seeds)
    half = math.hypot(over_images, over_seeds)
    return [mean, mean - half, mean + half]


def seed_spread(rows: Rows, misses: Misses) -> tuple[float, int]:
    """Standard deviation of the error between seeds, in points, and its degrees of freedom."""
    errors = [[float(misses(row).mean()) for row in seeds] for seeds in rows.values()]
    freedom = sum(len(of_row) - 1 for of_row in errors)
    squares = sum(len(of_row) * np.var(of_row) for of_row in errors)
    return math.sqrt(squares / freedom) if freedom else 0.0, freedom


def costs(rows: Rows) -> dict[str, list[float]]:
    """[mean, low, high] of the rise in validation error by each change, in points."""
    intervals = {
        name: contrast(rows, [(1, changed), (-1, complete)], validation_misses)
        for name, (changed, complete) in COSTS.items()
    }
    four = ((1, ALL_FOUR), (-1, THREE_FOUR), (-1, SIX_SEVEN))
    terms = [(sign, COSTS[name][0]) for sign, name in four]
    return intervals | {BEYOND: contrast(rows, [*terms, (1, A)], validation_misses)}


def paper_costs(paper: dict[str, list[float]]) -> dict[str, float]:
    """The same costs by the paper's errors (train, val top-1, val top-5) of each row."""
    points = {name: paper[a][1] - paper[b][1] for name, (a, b) in COSTS.items()}
    points[BEYOND] = points[ALL_FOUR] - points[THREE_FOUR] - points[SIX_SEVEN]
    return {name: round(value, 1) for name, value in points.items()}


def overfitting(rows: Rows) -> list[float]:
    """[mean, low, high] of the change in training error by widening layers 6 and 7 too, points."""
    widest, wide = COSTS[WIDEST]
    return contrast(rows, [(1, widest), (-1, wide)], training_misses)


def rank_agreement(ours: dict[str, list[float]], paper: dict[str, list[float]]) -> float | None:
    """Spearman's correlation of the rows by validation error; None if all rows are alike."""
    order = [torch.tensor([[table[name][1] for name in ours]]).double() for table in (ours, paper)]
    correlation = float(rank_correlation(*order))
    return correlation if np.isfinite(correlation) else None
