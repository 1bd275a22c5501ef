"""Attributes of images, such as brightness and sharpness, and accuracy as a function of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.analysis.intervals import wilson

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601 weights of red, green and blue
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def luma(pixels: Tensor) -> Tensor:
    """Convert RGB images to gray with the weights of ITU-R BT.601.

    Args:
        pixels: RGB images (N, 3, H, W) in [0, 1].

    Returns:
        Gray images (N, H, W) in [0, 1].

    Raises:
        ValueError: If pixels are not float RGB images in [0, 1].

    Example:
        >>> luma(torch.ones(1, 3, 2, 2)).shape
        torch.Size([1, 2, 2])
    """
    check_pixels(pixels)
    weights = torch.tensor(LUMA, device=pixels.device, dtype=pixels.dtype).view(3, 1, 1)
    return (pixels * weights).sum(1)


def check_pixels(pixels: Tensor) -> None:
    """Raise ValueError unless pixels are float RGB images (N, 3, H, W) in [0, 1]."""
    is_rgb = pixels.ndim == 4 and pixels.shape[1] == 3 and 0 not in pixels.shape
    # Comparisons with NaN are false, so NaN is rejected too.
    if not (is_rgb and pixels.is_floating_point() and pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            f"expected RGB images (N, 3, H, W) of floats in [0, 1], "
            f"got {pixels.dtype} {tuple(pixels.shape)}"
        )


def brightness(pixels: Tensor) -> Tensor:
    """Return the mean luma of each image.

    Args:
        pixels: RGB images (N, 3, H, W) in [0, 1].

    Returns:
        Values (N,) in [0, 1].

    Raises:
        ValueError: If pixels are not float RGB images in [0, 1].

    Example:
        >>> brightness(torch.zeros(1, 3, 2, 2))
        tensor([0.])
    """
    return luma(pixels).mean((1, 2))


def contrast(pixels: Tensor) -> Tensor:
    r"""Return the RMS contrast of each image.

    $\sqrt{\frac{1}{HW} \sum (Y - \bar Y)^2}$ of the luma Y. Peli 1990, "Contrast in complex
    images".

    Args:
        pixels: RGB images (N, 3, H, W) in [0, 1].

    Returns:
        Values (N,) in [0, 0.5].

    Raises:
        ValueError: If pixels are not float RGB images in [0, 1].

    Example:
        >>> contrast(torch.zeros(1, 3, 2, 2))
        tensor([0.])
    """
    return luma(pixels).flatten(1).std(1, correction=0)


def sharpness(pixels: Tensor) -> Tensor:
    r"""Return the amount of fine detail relative to the contrast.

    The standard deviation of the luma's Laplacian over that of the luma, where $\nabla^2 Y =
    Y_{i-1,j} + Y_{i+1,j} + Y_{i,j-1} + Y_{i,j+1} - 4 Y_{ij}$. Pech-Pacheco et al. 2000 use the
    variance of the Laplacian as a measure of focus. Dividing by the contrast keeps a faint image
    from counting as blurred. Border pixels are left out.

    Args:
        pixels: RGB images (N, 3, H, W) in [0, 1], at least 3 x 3 pixels.

    Returns:
        Values (N,), 0 or more; 0 for a flat image.

    Raises:
        ValueError: If pixels are not float RGB images in [0, 1], or smaller than 3 x 3.

    Example:
        >>> sharpness(torch.zeros(1, 3, 4, 4))
        tensor([0.])
    """
    deviation, gray = contrast(pixels), luma(pixels)[:, None]  # (N,), (N, 1, H, W)
    height, width = pixels.shape[2:]
    if min(height, width) < 3:
        raise ValueError(f"sharpness needs images of at least 3 x 3 pixels, got {height} x {width}")
    laplacian = F.conv2d(gray, torch.tensor(LAPLACIAN, device=gray.device).to(gray)[None, None])
    detail = laplacian.flatten(1).std(1, correction=0)
    return torch.where(deviation > 1e-6, detail / deviation.clamp_min(1e-6), 0)


def colorfulness(pixels: Tensor) -> Tensor:
    r"""Return the colorfulness of each image, as perceived on average.

    $M = \sqrt{\sigma_{rg}^2 + \sigma_{yb}^2} + 0.3 \sqrt{\mu_{rg}^2 + \mu_{yb}^2}$, from the means
    and standard deviations over the image of $rg = R - G$ and $yb = (R + G) / 2 - B$. The channels
    are scaled to 255, as in the paper, where 15 is slightly, 45 averagely and 82 highly colorful.
    Hasler & Suesstrunk 2003, "Measuring colourfulness in natural images".

    Args:
        pixels: RGB images (N, 3, H, W) in [0, 1].

    Returns:
        Values (N,), 0 or more; 0 for a gray image.

    Raises:
        ValueError: If pixels are not float RGB images in [0, 1].

    Example:
        >>> colorfulness(torch.zeros(1, 3, 2, 2))
        tensor([0.])
    """
    check_pixels(pixels)
    r, g, b = (255 * pixels).unbind(1)
    opponents = torch.stack([r - g, (r + g) / 2 - b]).flatten(2)  # (2, N, H W)
    return opponents.std(2, correction=0).norm(dim=0) + 0.3 * opponents.mean(2).norm(dim=0)


ATTRIBUTES: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "sharpness": sharpness,
    "colorfulness": colorfulness,
}


@dataclass(frozen=True, eq=False)
class QuantileBins:
    """The share of correct images in B quantile bins of a value.

    Attributes:
        edges: The borders of the bins (B + 1,), in the unit of the value.
        count: The number of images in each bin (B,).
        share: The share of correct images in each bin (B,).
        interval: The 95 % intervals of the shares (B, 2).
        difference: The share in the last bin minus that in the first: [difference, low, high].
    """

    edges: np.ndarray
    count: np.ndarray
    share: np.ndarray
    interval: np.ndarray
    difference: list[float]


def accuracy_by_quantile(values: np.ndarray, correct: np.ndarray, bins: int = 5) -> QuantileBins:
    r"""Return the share of correct images in quantile bins of a value.

    Bins hold equally many images. Equal values share a bin, so there may be fewer bins. The
    intervals of the shares are Wilson's. The interval of the difference is Newcombe's (1998, method
    10): $d - \sqrt{(p_B - l_B)^2 + (u_1 - p_1)^2}$ to $d + \sqrt{(u_B - p_B)^2 + (p_1 - l_1)^2}$.

    Args:
        values: One finite value per image (N,).
        correct: Whether each image is classified correctly (N,), bool.
        bins: The number of bins, at least 2.

    Returns:
        The bins, in order of increasing value.

    Raises:
        ValueError: If the shapes differ, if a value is not finite, or if all values are equal.

    Example:
        >>> accuracy_by_quantile(np.arange(4.0), np.array([False, False, True, True]), 2).share
        array([0., 1.])
    """
    values, correct = np.asarray(values, dtype=np.float64), np.asarray(correct, dtype=bool)
    if values.ndim != 1 or values.shape != correct.shape or not np.isfinite(values).all():
        raise ValueError(
            f"expected one finite value per image, got {values.shape} values "
            f"for {correct.shape} images"
        )
    if not len(values) or bins < 2:
        raise ValueError(
            f"at least one image and two bins are needed, got {len(values)} and {bins}"
        )
    inner = _inner_edges(values, bins)
    bin_number = np.searchsorted(inner, values, side="right")
    count = np.bincount(bin_number)
    hits = np.bincount(bin_number, correct).astype(int)
    share = hits / count
    interval = np.array([wilson(int(h), int(n)) for h, n in zip(hits, count, strict=True)])
    (first_low, first_high), (last_low, last_high) = interval[0], interval[-1]
    d = share[-1] - share[0]
    low = d - np.hypot(share[-1] - last_low, first_high - share[0])
    high = d + np.hypot(last_high - share[-1], share[0] - first_low)
    edges = np.array([values.min(), *inner, values.max()])
    return QuantileBins(edges, count, share, interval, [float(d), float(low), float(high)])


def _inner_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the values at which a new bin starts, without the smallest value."""
    inner = np.unique(np.sort(values)[np.arange(1, bins) * len(values) // bins])
    if inner.max() > values.min():
        return inner[inner > values.min()]
    inner = np.unique(values)[1:2]  # nearly all values are the smallest: two bins
    if not len(inner):
        raise ValueError("all values are equal, so there is only one bin")
    return inner
