"""Confidence intervals of means, shares, differences and correlations over images."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    seed: int = 0,
    repetitions: int = 2000,
    level: float = 0.95,
) -> list[float]:
    """Return the percentile bootstrap interval of a statistic of n images (Efron 1979).

    Args:
        statistic: Maps image numbers (n,), drawn with replacement, to a number. Draws for which it
            is not finite are ignored.
        n: The number of images, at least 2.
        seed: The seed of the draws.
        repetitions: The number of draws.
        level: The confidence level.

    Returns:
        The interval [low, high].

    Raises:
        ValueError: If n is below 2, or the statistic is finite for no draw.

    Example:
        >>> low, high = bootstrap(lambda i: float(np.arange(9.0)[i].mean()), 9)
        >>> low < 4 < high
        True
    """
    if n < 2:
        raise ValueError(f"an interval over images needs at least two, got {n}")
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, n, n)) for _ in range(repetitions)])
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("the statistic is finite for no draw")
    return [float(v) for v in np.quantile(values, ((1 - level) / 2, (1 + level) / 2))]


def mean_interval(
    values: np.ndarray, base: np.ndarray | float = 1.0, *, seed: int = 0
) -> list[float]:
    """Return the mean of values relative to that of a base, with its 95 % bootstrap interval.

    Args:
        values: One value per image (n,).
        base: What the mean is divided by: the mean of one number per image (n,), or a number.
        seed: The seed of the draws.

    Returns:
        [mean, low, high], or [mean] for one image.

    Example:
        >>> mean_interval(np.array([2.0, 2.0]))
        [2.0, 2.0, 2.0]
    """
    base = np.broadcast_to(base, values.shape)
    mean = [float(values.mean() / base.mean())]
    if len(values) < 2:
        return mean
    return mean + bootstrap(
        lambda i: float(values[i].mean() / base[i].mean()), len(values), seed=seed
    )


def difference_interval(
    first: np.ndarray,
    second: np.ndarray,
    bases: tuple[np.ndarray | float, np.ndarray | float] = (1.0, 1.0),
    *,
    seed: int = 0,
) -> list[float]:
    """Return the difference of two groups' means, with its 95 % bootstrap interval.

    The groups are drawn independently.

    Args:
        first: Values of the first group (n,).
        second: Values of the second group (m,), subtracted from the first.
        bases: What each mean is divided by, as in `mean_interval`.
        seed: The seed of the draws.

    Returns:
        [difference, low, high], or [difference] if a group has fewer than two values.

    Example:
        >>> difference_interval(np.array([3.0, 3.0]), np.array([1.0, 1.0]))
        [2.0, 2.0, 2.0]
    """
    groups = [
        (values, np.broadcast_to(base, values.shape))
        for values, base in zip((first, second), bases, strict=True)
    ]

    def difference(draws: list[np.ndarray]) -> float:
        one, two = (
            values[i].mean() / base[i].mean()
            for (values, base), i in zip(groups, draws, strict=True)
        )
        return float(one - two)

    point_estimate = [difference([np.arange(len(values)) for values, _ in groups])]
    if min(len(first), len(second)) < 2:
        return point_estimate
    rng = np.random.default_rng(seed)
    differences = [
        difference([rng.integers(0, len(values), len(values)) for values, _ in groups])
        for _ in range(2000)
    ]
    return point_estimate + [float(v) for v in np.quantile(differences, (0.025, 0.975))]


def correlation_interval(x: np.ndarray, y: np.ndarray, *, seed: int = 0) -> list[float]:
    """Return Pearson's correlation over images, with its 95 % bootstrap interval.

    Args:
        x: One value per image (n,).
        y: Another value per image (n,).
        seed: The seed of the draws.

    Returns:
        [r, low, high].

    Raises:
        ValueError: If there are fewer than two images.

    Example:
        >>> r, low, high = correlation_interval(np.arange(9.0), np.arange(9.0) ** 2)
        >>> 0.9 < low < r < high
        True
    """

    def correlation(i: np.ndarray) -> float:
        a, b = x[i] - x[i].mean(), y[i] - y[i].mean()
        norm = np.sqrt((a @ a) * (b @ b))
        return float(a @ b / norm) if norm > 0 else float("nan")

    return [correlation(np.arange(len(x))), *bootstrap(correlation, len(x), seed=seed)]


def wilson(successes: int, n: int, *, level: float = 0.95) -> list[float]:
    r"""Return Wilson's score interval of a share (Wilson 1927).

    All p for which $|\hat p - p| \le z \sqrt{p (1 - p) / n}$. Unlike the normal approximation, it
    is valid for few images and stays within [0, 1].

    Args:
        successes: The number of successes, from 0 to n.
        n: The number of images, at least 1.
        level: The confidence level.

    Returns:
        The interval [low, high] in [0, 1].

    Raises:
        ValueError: If n is below 1, or successes is not between 0 and n.

    Example:
        >>> [round(bound, 3) for bound in wilson(5, 10)]
        [0.237, 0.763]
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(
            f"expected 0 to n successes among n >= 1 images, got {successes} among {n}"
        )
    z, share = NormalDist().inv_cdf((1 + level) / 2), successes / n
    middle = share + z * z / (2 * n)
    margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [float(np.clip((middle + sign * margin) / (1 + z * z / n), 0, 1)) for sign in (-1, 1)]
