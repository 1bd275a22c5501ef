"""Rendering: turn tensors into RGB arrays (H, W, 3) in [0, 1] that can be shown or saved."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from zfnet.data.images import to_pixels

GRAY = 0.5  # background of projections, as in the paper
ATTRIBUTION = "inferno"  # colormap of maps without negative values
DIVERGING = "RdBu_r"  # colormap of signed maps; 0 is white


def projection_image(pixels: Tensor | np.ndarray, quantile: float = 0.998) -> np.ndarray:
    """Render signed projections on gray, each with its own contrast (Fig. 2).

    Values v become 0.5 + 0.5 v / m, where m is a quantile of |v| in the projection.

    Args:
        pixels: Projections (N, 3, H, W).
        quantile: The quantile m. A lower one raises the contrast of projections with few strong
            pixels.

    Returns:
        Images (N, H, W, 3) in [0, 1].

    Example:
        >>> float(projection_image(np.zeros((1, 3, 4, 4))).mean())
        0.5
    """
    values = np.asarray(pixels, dtype=np.float32)
    magnitude = np.abs(values).reshape(len(values), -1)
    top = np.quantile(magnitude, quantile, axis=1) if magnitude.shape[1] else np.ones(len(values))
    top = np.where(top > 0, top, np.maximum(magnitude.max(1, initial=0), 1e-12))
    scaled = 0.5 * values / top[:, None, None, None]
    return np.clip(GRAY + scaled, 0, 1).transpose(0, 2, 3, 1)


def photograph(x: Tensor | np.ndarray) -> np.ndarray:
    """Render network inputs as photographs.

    Args:
        x: Images (N, 3, H, W) in the network's input convention.

    Returns:
        Images (N, H, W, 3) in [0, 1].

    Example:
        >>> photograph(torch.zeros(1, 3, 4, 4)).shape
        (1, 4, 4, 3)
    """
    return to_pixels(torch.as_tensor(x, device="cpu")).permute(0, 2, 3, 1).numpy()


def filter_image(weight: Tensor | np.ndarray) -> np.ndarray:
    """Render first-layer filters as RGB, each scaled from its minimum to its maximum (Fig. 6).

    Args:
        weight: Filters (M, 3, k, k).

    Returns:
        Images (M, k, k, 3) in [0, 1].

    Example:
        >>> float(filter_image(torch.randn(2, 3, 7, 7)).max())
        1.0
    """
    weight = weight.detach().cpu() if isinstance(weight, Tensor) else weight
    values = np.asarray(weight, dtype=np.float32)
    low, high = values.min((1, 2, 3), keepdims=True), values.max((1, 2, 3), keepdims=True)
    return ((values - low) / np.maximum(high - low, 1e-12)).transpose(0, 2, 3, 1)


def mosaic(tiles: np.ndarray, columns: int, gap: int = 1, background: float = 1.0) -> np.ndarray:
    """Arrange tiles in a grid, row by row.

    Args:
        tiles: Images (N, H, W, 3).
        columns: The number of columns.
        gap: The distance between tiles, in pixels.
        background: The value between tiles and in empty cells.

    Returns:
        One image (rows * (H + gap) - gap, columns * (W + gap) - gap, 3).

    Example:
        >>> mosaic(np.zeros((3, 4, 4, 3)), columns=2).shape
        (9, 9, 3)
    """
    n, height, width, depth = tiles.shape
    rows = -(-n // columns)
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, depth)
    sheet = np.full(size, background, dtype=np.float32)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def enlarge(tiles: np.ndarray, side: int) -> np.ndarray:
    """Resize square tiles, with sharp pixels from an enlargement of 3 on, bilinearly below.

    Args:
        tiles: Images (N, S, S, 3).
        side: The new side, in pixels.

    Returns:
        Images (N, side, side, 3).

    Example:
        >>> enlarge(np.zeros((1, 7, 7, 3)), 28).shape
        (1, 28, 28, 3)
    """
    x = torch.from_numpy(np.asarray(tiles)).permute(0, 3, 1, 2)
    if side >= 3 * x.shape[-1]:
        x = torch.nn.functional.interpolate(x, (side, side), mode="nearest-exact")
    else:
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
    return x.permute(0, 2, 3, 1).numpy()


def attribution_image(
    maps: Tensor | np.ndarray, *, shared_scale: bool = False, signed: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Render attribution maps in color, each scaled by the 99.5th percentile m of |v|.

    A map without negative values runs from black (0) to yellow (m). A signed map runs from blue
    (-m) over white (0) to red (m). Values that are not finite are gray.

    Args:
        maps: Maps (N, 1, H, W).
        shared_scale: Use one scale and one colormap for all maps, as a video needs.
        signed: Use the signed colormap; None to decide by the values.

    Returns:
        Images (N, H, W, 3) in [0, 1], and the scales m (N,).

    Example:
        >>> image, scale = attribution_image(np.ones((1, 1, 4, 4)))
        >>> image.shape, float(scale[0])
        ((1, 4, 4, 3), 1.0)
    """
    values = np.asarray(maps, dtype=np.float32)[:, 0]
    finite = np.isfinite(values)
    values = np.where(finite, values, 0)
    magnitude = np.abs(values).reshape(len(values), -1)
    scale = np.quantile(magnitude, 0.995, axis=1)
    scale = np.where(scale > 0, scale, magnitude.max(1))
    if shared_scale:
        scale = np.full_like(scale, np.quantile(magnitude, 0.995) or magnitude.max())
    scaled = np.clip(values / np.where(scale > 0, scale, 1)[:, None, None], -1, 1)
    if shared_scale and signed is None:
        signed = bool(scaled.min() < 0)
    diverging, sequential = (mpl.colormaps[name] for name in (DIVERGING, ATTRIBUTION))
    images = [
        diverging((v + 1) / 2) if (v.min() < 0 if signed is None else signed) else sequential(v)
        for v in scaled
    ]
    return np.where(finite[..., None], np.stack(images)[..., :3], GRAY), scale


def overlay(photos: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Blend colored maps (..., 3) with gray versions of photographs (..., 3)."""
    return 0.4 * photos.mean(-1, keepdims=True) + 0.6 * maps


def overlay_frames(x: Tensor, maps: np.ndarray) -> np.ndarray:
    """Render the frames of a video next to their overlays.

    Args:
        x: Frames (N, 3, H, W) in the network's input convention.
        maps: Colored maps (N, H, W, 3), as returned by `attribution_image`.

    Returns:
        Frames (N, H, 2 W + 4, 3) uint8.

    Example:
        >>> overlay_frames(torch.zeros(2, 3, 8, 8), np.zeros((2, 8, 8, 3))).shape
        (2, 8, 20, 3)
    """
    photos = photograph(x)
    gap = np.ones((*photos.shape[:2], 4, 3), dtype=np.float32)
    frames = np.concatenate([photos, gap, overlay(photos, maps)], 2)
    return (255 * frames).round().clip(0, 255).astype(np.uint8)
