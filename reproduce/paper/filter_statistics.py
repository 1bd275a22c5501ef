"""The statistics of filters and projections in Figure 6: spectra, dominance, and a test."""

import numpy as np
from scipy.stats import fisher_exact

WINDOW = 7  # pixels, the size of ZFNet's first filters
SPECTRUM = 64  # frequencies in each direction
LEVEL = 0.05  # of Fisher's exact test


def band_shares(filters: np.ndarray, limits: tuple[float, ...]) -> np.ndarray:
    """The share of each filter's energy in bands of frequency.

    A band contains the components whose frequency is above its lower limit in either direction, and
    above its upper limit in none. The smaller a window, the more of a low frequency leaks into the
    next band, so compare only filters of one size.

    Args:
        filters: (M, 3, k, k).
        limits: Frequencies between the bands, in cycles per pixel.

    Returns:
        (M, len(limits) + 1).
    """
    n = max(SPECTRUM, filters.shape[-1])
    energy = (np.abs(np.fft.fft2(filters, (n, n))) ** 2).sum(1)  # zero-padded: finer frequencies
    frequency = np.abs(np.fft.fftfreq(n))
    band = np.searchsorted(limits, np.maximum(frequency[:, None], frequency), side="left")
    sums = [(energy * (band == i)).sum((1, 2)) for i in range(len(limits) + 1)]
    parts = np.stack(sums, 1)
    return parts / np.maximum(parts.sum(1, keepdims=True), 1e-30)


def center(filters: np.ndarray) -> np.ndarray:
    """The middle of filters (..., k, k), as large as ZFNet's: (..., 7, 7)."""
    start = (filters.shape[-1] - WINDOW) // 2
    return filters[..., start : start + WINDOW, start : start + WINDOW]


def dominance(filters: np.ndarray) -> list[float]:
    """The largest filter's RMS over the median, after each epoch: (E, M, 3, k, k) -> E numbers."""
    return [float(values.max() / np.median(values)) for values in map(rms, filters)]


def rms(filters: np.ndarray) -> np.ndarray:
    """The root mean square of each filter: (M, 3, k, k) -> (M,)."""
    return np.sqrt((filters.astype(float) ** 2).mean((1, 2, 3)))


def larger_share(first: int, n: int, second: int, m: int) -> bool | None:
    """Whether `first` of n is more than `second` of m; None if Fisher's exact test is undecided."""
    test = fisher_exact([[first, n - first], [second, m - second]])
    p = test.pvalue  # pyright: ignore[reportAttributeAccessIssue]
    return first / n > second / m if p < LEVEL else None
