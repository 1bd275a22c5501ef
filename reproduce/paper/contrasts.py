"""Differences between the rows of Table 3, with intervals over images and trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import t

from reproduce.paper.rows import Row

Rows = dict[str, list[Row]]  # one Row per seed
Misses = Callable[[Row], np.ndarray]  # 100 for each image that is misclassified, else 0


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
