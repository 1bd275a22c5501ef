"""What of an image's looks goes with being recognised: brightness, contrast, sharpness, colourfulness, size, in bins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.analysis.intervals import wilson

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the grey of an RGB pixel
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def grey(pixels: Tensor) -> Tensor:
    """The luma of RGB images in [0, 1]: (N, 3, H, W) to (N, H, W), by the weights of ITU-R BT.601.

    Raises ValueError for images of another shape, or outside [0, 1].
    """
    check_pixels(pixels)
    return (
        pixels * torch.tensor(LUMA, device=pixels.device, dtype=pixels.dtype).view(3, 1, 1)
    ).sum(1)


def check_pixels(pixels: Tensor) -> None:
    fits = (
        pixels.ndim == 4
        and pixels.shape[1] == 3
        and pixels.is_floating_point()
        and 0 not in pixels.shape
    )
    if not (fits and pixels.min() >= 0 and pixels.max() <= 1):  # what is not a number is neither
        raise ValueError(
            f"expected RGB images (N, 3, H, W) of floats in [0, 1], got {pixels.dtype} {tuple(pixels.shape)}"
        )


def brightness(pixels: Tensor) -> Tensor:
    """The mean luma of RGB images (N, 3, H, W) in [0, 1]: (N,) in [0, 1]. Raises ValueError as `grey`."""
    return grey(pixels).mean((1, 2))


def contrast(pixels: Tensor) -> Tensor:
    r"""The RMS contrast of RGB images (N, 3, H, W) in [0, 1]: $\sqrt{\frac{1}{HW} \sum (Y - \bar Y)^2}$ of their luma, (N,).

    In [0, 0.5]. Peli 1990, "Contrast in complex images". Raises ValueError as `grey`.
    """
    return grey(pixels).flatten(1).std(1, correction=0)


def sharpness(pixels: Tensor) -> Tensor:
    r"""How much fine detail images have: the deviation of their luma's Laplacian over that of their luma, (N,), 0 or more.

    $\nabla^2 Y = Y_{i-1,j} + Y_{i+1,j} + Y_{i,j-1} + Y_{i,j+1} - 4 Y_{ij}$. Pech-Pacheco et al. 2000 take its variance as a
    measure of focus; here over the contrast, so that a faint picture does not count as blurred (0 for a flat one). `pixels`
    (N, 3, H, W) in [0, 1]; the border's pixels have no Laplacian. Raises ValueError as `grey`, or below 3 x 3 pixels.
    """
    size, luma = contrast(pixels), grey(pixels)[:, None]
    if min(pixels.shape[2:]) < 3:
        raise ValueError(
            f"images of {pixels.shape[2]} x {pixels.shape[3]} pixels have no Laplacian; at least 3 x 3"
        )
    edges = (
        F.conv2d(luma, torch.tensor(LAPLACIAN).to(luma)[None, None]).flatten(1).std(1, correction=0)
    )
    return torch.where(size > 1e-6, edges / size.clamp_min(1e-6), 0)


def colourfulness(pixels: Tensor) -> Tensor:
    r"""$M = \sqrt{\sigma_{rg}^2 + \sigma_{yb}^2} + 0.3 \sqrt{\mu_{rg}^2 + \mu_{yb}^2}$: (N,), 0 for grey images.

    The deviations and means of $rg = R - G$ and $yb = (R + G) / 2 - B$ over the image, in units of 255 as in the paper, in
    which 15 is slightly, 45 averagely and 82 highly colourful. Hasler & Suesstrunk 2003, "Measuring colourfulness in natural
    images". Raises ValueError as `grey`.
    """
    check_pixels(pixels)
    r, g, b = (255 * pixels).unbind(1)
    opponents = torch.stack([r - g, (r + g) / 2 - b]).flatten(2)  # (2, N, H W)
    return opponents.std(2, correction=0).norm(dim=0) + 0.3 * opponents.mean(2).norm(dim=0)


ATTRIBUTES: dict[str, Callable[[Tensor], Tensor]] = {  # of the pixels alone
    "brightness": brightness,
    "contrast": contrast,
    "sharpness": sharpness,
    "colourfulness": colourfulness,
}


@dataclass(frozen=True, eq=False)
class Binned:
    """A share in B bins of images: `edges` (B + 1,), each bin's `count` (B,), `share` (B,) and 95 % interval (B, 2).

    `slope` is the share in the last bin less that in the first, with its interval: [difference, low, high].
    """

    edges: np.ndarray
    count: np.ndarray
    share: np.ndarray
    interval: np.ndarray
    slope: list[float]


def binned(values: np.ndarray, right: np.ndarray, bins: int = 5) -> Binned:
    r"""The share of images that are right (N,) bool, by quantile bins of a value (N,) of each: as many images in every bin.

    Equal values share a bin, so bins may be fewer; of discrete values each bin is a range of them. Intervals of shares are
    Wilson's, 95 %; that of the difference of the last and the first bin is Newcombe's (1998, method 10), made from theirs:
    $d - \sqrt{(p_B - l_B)^2 + (u_1 - p_1)^2}$ and $d + \sqrt{(u_B - p_B)^2 + (p_1 - l_1)^2}$.
    Raises ValueError for values that do not fit or are not finite, or that are all equal.
    """
    values, right = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=bool)
    if (
        values.shape != right.shape
        or values.ndim != 1
        or not np.isfinite(values).all()
        or not len(values)
        or bins < 2
    ):
        found = f"{values.shape}, and {bins} bins"
        raise ValueError(
            f"one finite value is needed for each of {right.shape} images, and two bins or more; got {found}"
        )
    inner = np.unique(
        np.sort(values)[np.arange(1, bins) * len(values) // bins]
    )  # each one an image's value
    if inner.max() > values.min():
        inner = inner[inner > values.min()]
    else:  # nearly all are the least value: one bin for these, one for the others
        inner = np.unique(values)[1:2]
    if not len(inner):
        raise ValueError("the values are all equal: there are no bins of them")
    edges = np.array([values.min(), *inner, values.max()])
    place = np.searchsorted(inner, values, side="right")
    count = np.bincount(place)
    hits = np.bincount(place, right).astype(int)
    share = hits / count
    interval = np.array([wilson(int(h), int(n)) for h, n in zip(hits, count, strict=True)])
    (l1, u1), (lb, ub) = interval[0], interval[-1]
    d = share[-1] - share[0]
    low, high = (
        d - np.hypot(share[-1] - lb, u1 - share[0]),
        d + np.hypot(ub - share[-1], share[0] - l1),
    )
    return Binned(edges, count, share, interval, [float(d), float(low), float(high)])
