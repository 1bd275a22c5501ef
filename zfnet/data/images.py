"""The paper's preprocessing: resize, center crop, standardize (section 3)."""

from __future__ import annotations

import functools
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zfnet.data.formats import ImageError, from_array, read_image, to_rgb

# The input convention everywhere, as in torchvision: RGB in [0, 1] minus MEAN, divided by STD.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

PREPROCESSING = 5  # part of the cache key: increase it when decoding or resizing changes
MAX_ASPECT_RATIO = 32  # above it, only the central square is resampled


def center(image: Image.Image, side: int = 256) -> Image.Image:
    """Resize the shorter side to `side` and crop the central square (section 3).

    Bilinear with antialiasing, and equal to torchvision's resize and center crop pixel by pixel.
    If an image is over 32 times longer than wide, only the square is resampled, to save memory; its
    pixels may differ by one gray level.

    Args:
        image: An RGB image.
        side: Side of the square in pixels.

    Returns:
        An image of side x side pixels.

    Example:
        >>> center(Image.new("RGB", (500, 375)), 256).size
        (256, 256)
    """
    # torchvision's functions give the same pixels, but double the time of `import zfnet`.
    short = min(image.size)
    resized = [side if n == short else int(side * n / short) for n in image.size]
    left, top = (round((n - side) / 2) for n in resized)
    if max(image.size) <= MAX_ASPECT_RATIO * short:
        image = image.resize((resized[0], resized[1]), Image.Resampling.BILINEAR)
        return image.crop((left, top, left + side, top + side))
    (left, right), (top, bottom) = (
        (edge * n / full, (edge + side) * n / full)
        for edge, n, full in zip((left, top), image.size, resized, strict=True)
    )
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def standardize(pixels: Tensor) -> Tensor:
    """Map pixels to the network's input convention.

    Args:
        pixels: (..., 3, H, W) uint8, RGB.

    Returns:
        (..., 3, H, W) float32: RGB in [0, 1] minus MEAN, divided by STD.

    Example:
        >>> black = torch.zeros(3, 1, 1, dtype=torch.uint8)
        >>> [round(v, 3) for v in standardize(black).flatten().tolist()]
        [-2.118, -2.036, -1.804]
    """
    mean, std = (_by_channel(v, pixels.device) for v in (MEAN, STD))
    return pixels.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)


@functools.cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return (3, 1, 1) values, cached per device: a new copy would synchronize a GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)


def to_pixels(x: Tensor) -> Tensor:
    """Invert `standardize`.

    Args:
        x: (..., 3, H, W) in the network's input convention.

    Returns:
        (..., 3, H, W) float32 RGB, clipped to [0, 1].

    Example:
        >>> to_pixels(torch.zeros(3, 1, 1)).flatten()  # 0 is the mean gray
        tensor([0.4850, 0.4560, 0.4060])
    """
    mean, std = (_by_channel(v, x.device) for v in (MEAN, STD))
    return (x.float() * std + mean).clamp(0, 1)


def preprocess(image: str | Path | Image.Image | np.ndarray, size: int = 224) -> Tensor:
    """Preprocess a photograph: resize, center crop, standardize (Zeiler & Fergus, section 3).

    The shorter side is resized to 256, and the central 224 x 224 square is cropped. For another
    `size`, the shorter side is resized to size * 256 / 224, rounded. EXIF orientations are applied.

    Args:
        image: A path, a Pillow image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16
            or bool, or of floats in [0, 1].
        size: Side of the crop in pixels, at least 1.

    Returns:
        (1, 3, size, size) float32: RGB in [0, 1] minus ImageNet's channel means, divided by
        its standard deviations. 0 is the mean gray.

    Raises:
        ImageError: The file cannot be read.
        TypeError: `image` is of another type.
        ValueError: The image is empty, the array has another shape or range, or `size` < 1.

    Example:
        >>> preprocess(Image.new("RGB", (500, 375))).shape
        torch.Size([1, 3, 224, 224])
    """
    if not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
    if isinstance(image, (str, Path)):
        image = read_image(image)
    elif isinstance(image, np.ndarray):
        image = from_array(image)
    elif not isinstance(image, Image.Image):
        raise TypeError(
            f"preprocess takes a path, a Pillow image or a numpy array, not {type(image).__name__}"
        )
    elif 0 in image.size:
        raise ValueError(f"an image of {image.width} x {image.height} pixels is empty")
    else:
        try:
            image.load()  # Pillow decodes lazily
        except (OSError, SyntaxError) as error:
            raise ImageError(f"the image cannot be read: {error}") from None
    square = np.array(center(to_rgb(image), round(size * 256 / 224)))
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None]  # (1, 3, side, side)
    return standardize(center_crop(pixels, size)).contiguous()


def center_crop(pixels: Tensor, size: int) -> Tensor:
    """Crop the central square of images. Odd margins round down.

    torchvision's center_crop rounds half pixels to even, so it differs by one pixel there.

    Args:
        pixels: (..., H, W).
        size: Side of the square in pixels.

    Returns:
        A view (..., size, size).

    Raises:
        ValueError: The square is larger than the image.

    Example:
        >>> center_crop(torch.arange(5).expand(5, 5), 2)[0]
        tensor([1, 2])
    """
    if size > min(pixels.shape[-2:]):
        raise ValueError(
            f"a crop of {size} pixels is larger than the {tuple(pixels.shape[-2:])} image"
        )
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[..., top : top + size, left : left + size]
