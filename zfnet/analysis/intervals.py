"""How sure a mean, or a share, over images is."""

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
    """The percentile interval [low, high] of a statistic of n images, drawn again with replacement (Efron 1979).

    `statistic` maps the numbers (n,) of the images drawn, some twice, to a float; draws for which it is not finite are
    left out. Raises ValueError for fewer than two images, of which no interval is known, or where no draw has a value.
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
    """[mean, low, high] of values (n,), over the mean of `base` (n,), with its 95 % bootstrap interval; for one, [mean]."""
    base = np.broadcast_to(base, values.shape)
    mean = [float(values.mean() / base.mean())]
    if len(values) < 2:
        return mean
    return mean + bootstrap(
        lambda i: float(values[i].mean() / base[i].mean()), len(values), seed=seed
    )


def difference_interval(
    one: np.ndarray,
    other: np.ndarray,
    bases: tuple[np.ndarray | float, np.ndarray | float] = (1.0, 1.0),
    *,
    seed: int = 0,
) -> list[float]:
    """[difference, low, high] of the means of two groups, (n,) and (m,), each over the mean of its base: 95 %, by bootstrap.

    Each group is drawn again by itself, for the groups share nothing. Of fewer than two in either [difference] alone.
    """
    groups = [
        (values, np.broadcast_to(base, values.shape))
        for values, base in zip((one, other), bases, strict=True)
    ]

    def less(drawn: list[np.ndarray]) -> float:
        mean, others = (
            values[i].mean() / base[i].mean()
            for (values, base), i in zip(groups, drawn, strict=True)
        )
        return float(mean - others)

    found = [less([np.arange(len(values)) for values, _ in groups])]
    if min(len(one), len(other)) < 2:
        return found
    rng = np.random.default_rng(seed)
    draws = [
        less([rng.integers(0, len(values), len(values)) for values, _ in groups])
        for _ in range(2000)
    ]
    return found + [float(v) for v in np.quantile(draws, (0.025, 0.975))]


def correlation_interval(one: np.ndarray, other: np.ndarray, *, seed: int = 0) -> list[float]:
    """[r, low, high]: Pearson's correlation of two values of each of n images, (n,) each, and its 95 % bootstrap interval."""

    def r(i: np.ndarray) -> float:
        a, b = one[i] - one[i].mean(), other[i] - other[i].mean()
        length = np.sqrt((a @ a) * (b @ b))
        return float(a @ b / length) if length > 0 else float("nan")

    return [r(np.arange(len(one))), *bootstrap(r, len(one), seed=seed)]


def wilson(successes: int, n: int, *, level: float = 0.95) -> list[float]:
    r"""The interval [low, high] of a share of n images that have something or not (Wilson 1927), in [0, 1].

    The p for which $|\hat p - p| \le z \sqrt{p (1 - p) / n}$: unlike the normal one it is right for few images, and stays
    within 0 and 1. Raises ValueError for no images, or more successes than images.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(
            f"a share is of at least one image, of which some or all count, got {successes} of {n}"
        )
    z, share = NormalDist().inv_cdf((1 + level) / 2), successes / n
    middle = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [float(np.clip((middle + sign * reach) / (1 + z * z / n), 0, 1)) for sign in (-1, 1)]
