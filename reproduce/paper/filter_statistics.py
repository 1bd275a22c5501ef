"""The statistics of filters and projections in Figure 6: spectra, dominance, and a test."""

import numpy as np

WINDOW = 7  # pixels, the size of ZFNet's first filters
SPECTRUM = 64  # frequencies in each direction
LEVEL = 0.05  # of Fisher's exact test
FLAT = 0.1  # share of the layer's median RMS below which a filter is flat
UNTRAINED = 0.5  # share of a filter's energy from its initial weights above which it never trained


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


def flat(filters: np.ndarray) -> np.ndarray:
    """Whether each filter (M, 3, k, k) is gray in the picture, as dead ones are in the paper's."""
    values = rms(filters)
    return values < FLAT * np.median(values)


def untrained(filters: np.ndarray, initial: np.ndarray) -> np.ndarray:
    """Whether each filter never trained: it is mostly its own initial weights.

    The squared cosine with the initial weights is their share of the filter's energy, if what the
    filter learned is orthogonal to them. Scaling, for example by weight decay, does not count.

    Args:
        filters: (M, 3, k, k).
        initial: The same filters before the first step.
    """
    a, b = (w.reshape(len(w), -1).astype(float) for w in (filters, initial))
    norm = (a**2).sum(1) * (b**2).sum(1)
    return (a * b).sum(1) ** 2 > UNTRAINED * np.maximum(norm, 1e-300)


def larger_share(first: int, n: int, second: int, m: int) -> bool | None:
    """Whether `first` of n is more than `second` of m; None if Fisher's exact test is undecided."""
    from scipy.stats import fisher_exact  # slow, and `reproduce list` imports this file

    test = fisher_exact([[first, n - first], [second, m - second]])
    p = test.pvalue  # pyright: ignore[reportAttributeAccessIssue]
    return first / n > second / m if p < LEVEL else None
