"""The Fourier parametrization of images, and decorrelated colors (Olah et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zfnet.synthesis.base import pixel_range

# The distance of initial pixels from black and white, which the sigmoid never reaches.
MARGIN = 0.01


def to_image(coefficients: Tensor, size: Sequence[int], colors: Tensor) -> Tensor:
    r"""Return the valid images of Fourier coefficients: $\sigma(C \, F^{-1} (z / f))$.

    Args:
        coefficients: Coefficients z (N, 3, H, W // 2 + 1, 2), as returned by `to_frequencies`.
        size: The size (H, W) of the images.
        colors: The color matrix C (3, 3).

    Returns:
        Images (N, 3, H, W) in the network's input convention, between black and white.

    Example:
        >>> to_image(torch.zeros(1, 3, 8, 5, 2), (8, 8), torch.eye(3)).shape
        torch.Size([1, 3, 8, 8])
    """
    scaled = torch.view_as_complex(coefficients) * amplitudes(size).to(coefficients)
    spatial = torch.fft.irfft2(scaled, s=tuple(size), norm="ortho")  # (N, 3, H, W)
    low, high = pixel_range(spatial)
    rgb = torch.einsum("dc,nchw->ndhw", colors.to(coefficients), spatial)
    return low + (high - low) * rgb.sigmoid()


def to_frequencies(x: Tensor, colors: Tensor) -> Tensor:
    """Return the Fourier coefficients of images; the inverse of `to_image`.

    Args:
        x: Images (N, 3, H, W). Pixels are clamped to 1 % of the range from black and white.
        colors: The color matrix (3, 3).

    Returns:
        Coefficients (N, 3, H, W // 2 + 1, 2).

    Example:
        >>> to_frequencies(torch.zeros(1, 3, 8, 8), torch.eye(3)).shape
        torch.Size([1, 3, 8, 5, 2])
    """
    low, high = pixel_range(x)
    logit = torch.logit(((x - low) / (high - low)).clamp(MARGIN, 1 - MARGIN))
    decorrelated = torch.einsum("dc,nchw->ndhw", torch.linalg.inv(colors).to(x), logit)
    coefficients = torch.fft.rfft2(decorrelated, norm="ortho") / amplitudes(x.shape[-2:]).to(x)
    return torch.view_as_real(coefficients).contiguous()


def amplitudes(size: Sequence[int]) -> Tensor:
    """Return the amplitude spectrum 1 / f of natural images.

    Args:
        size: The size (H, W) of the images.

    Returns:
        Amplitudes (H, W // 2 + 1) for f in cycles per pixel, at least one cycle per side.

    Example:
        >>> amplitudes((4, 4))[0].tolist()
        [4.0, 4.0, 2.0]
    """
    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    return 1 / torch.hypot(rows, columns).clamp_min(1 / max(size))


def color_root(x: Tensor) -> Tensor:
    r"""Return the matrix square root $C$ of the color covariance of images.

    $C C^T$ is proportional to the covariance of red, green and blue over pixels. Gray dominates in
    natural images, followed by blue versus yellow. Olah et al. 2017 optimize images in such colors.

    Args:
        x: Images (N, 3, H, W).

    Returns:
        The matrix (3, 3), scaled so that its largest entry is 1.

    Raises:
        ValueError: If all pixels have the same color.

    Example:
        >>> color_root(torch.randn(4, 3, 8, 8)).abs().max()
        tensor(1.)
    """
    pixel_range(x)
    pixels = x.transpose(0, 1).flatten(1).double()  # (3, N H W)
    values, vectors = torch.linalg.eigh(torch.cov(pixels))
    if not values.max() > 0:
        raise ValueError("all pixels have the same color, so their covariance is 0")
    root = vectors * values.clamp_min(1e-6 * float(values.max())).sqrt() @ vectors.T
    return (root / root.abs().max()).to(x)
