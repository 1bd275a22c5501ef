"""What Figure 6 measures of filters and of projections: their energy by frequency, which stands out, which are more."""

import numpy as np
from scipy.stats import fisher_exact

WINDOW = 7  # pixels, of ZFNet's first layer
SPECTRUM = 64  # frequencies in each direction
LEVEL = 0.05  # of Fisher's test


def shares(filters: np.ndarray, limits: tuple[float, ...]) -> np.ndarray:
    """The share of each filter's energy (M, 3, k, k) in bands of frequency, in cycles a pixel: (M, len(limits) + 1).

    A band holds what oscillates in either direction faster than its lower limit, and in none faster than its upper one. The
    smaller a window, the more of a low frequency leaks into the next band: compare only filters of one size.
    """
    n = max(SPECTRUM, filters.shape[-1])
    energy = (np.abs(np.fft.fft2(filters, (n, n))) ** 2).sum(
        1
    )  # zeros around: every frequency between is there too
    frequency = np.abs(np.fft.fftfreq(n))
    band = np.searchsorted(limits, np.maximum(frequency[:, None], frequency), side="left")
    parts = np.stack([(energy * (band == i)).sum((1, 2)) for i in range(len(limits) + 1)], 1)
    return parts / np.maximum(parts.sum(1, keepdims=True), 1e-30)


def middle(filters: np.ndarray) -> np.ndarray:
    """The middle of filters (..., k, k), as large as ZFNet's: (..., 7, 7)."""
    start = (filters.shape[-1] - WINDOW) // 2
    return filters[..., start : start + WINDOW, start : start + WINDOW]


def dominance(filters: np.ndarray) -> list[float]:
    """The largest filter's RMS over the median one's, after each epoch: (E, M, 3, k, k) -> E numbers."""
    return [float(found.max() / np.median(found)) for found in map(rms, filters)]


def rms(filters: np.ndarray) -> np.ndarray:
    """Each filter's root of the mean square: (M, 3, k, k) -> (M,)."""
    return np.sqrt((filters.astype(float) ** 2).mean((1, 2, 3)))


def more(one: int, n: int, other: int, m: int) -> bool | None:
    """Whether one of n is more than `other` of m, or None where Fisher's exact test leaves it open."""
    p = fisher_exact([[one, n - one], [other, m - other]]).pvalue  # pyright: ignore[reportAttributeAccessIssue]
    return one / n > other / m if p < LEVEL else None
