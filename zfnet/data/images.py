"""One photograph: read it whatever its format, and turn it into the network's input by the paper's protocol."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

# The input convention of the whole project, as in torchvision: RGB in [0, 1], minus the mean, over the deviation.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

PREPROCESSING = 4  # part of the cache's name; to be raised when decoding or resizing changes
MAX_PIXELS = 100_000_000  # larger than any photograph of a data set; a 30,000 x 30,000 bomb is nine times this
LONGEST = 32  # times the shorter side: of longer images only the central square is resized
TURNS = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class ImageError(ValueError):
    """A file that is not a readable image. The message names the file and says what is wrong with it."""


def read_image(path: str | Path) -> Image.Image:
    """Read a file as an upright RGB image, whatever it holds: grey, CMYK, palette, 16 bit, transparent (on white).

    Raises ImageError, naming the file, where it is missing, truncated, no image, or over 100 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"{path}: {image.width} x {image.height} is over {MAX_PIXELS:,} pixels")
                return to_rgb(image)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except Exception as error:  # Pillow's decoders raise many types: OSError, SyntaxError, ValueError, struct.error
        raise ImageError(f"{path}: not a readable image ({str(error).splitlines()[0] if str(error) else error!r})") from error


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF says. Pillow's `exif_transpose` also writes all tags anew, and fails where one is bad."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF that cannot be read: the photograph may be whole all the same
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to upright RGB; transparency is laid on white, 16 bit and float are scaled to 8."""
    image = upright(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ImageError("the image holds values that are not finite")
        top = 65535 if image.mode.startswith("I;16") or values.max() > 255 else 255 if values.max() > 1 else 1
        image = Image.fromarray(np.clip(values * (255 / top), 0, 255).round().astype(np.uint8))
    image = image.convert("LA") if image.mode == "La" else image
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.info.clear()  # its EXIF would turn it again
    return image


def center(image: Image.Image, side: int = 256) -> Image.Image:
    """Resize the smallest side to `side` and cut the central square: section 3, pixel for pixel as torchvision does it.

    Bilinear with antialiasing. Of a panorama only the square is resampled, which may differ by a grey level here and there:
    one of a pixel's height would otherwise grow to side x width.
    """
    short = min(image.size)
    resized = [side if n == short else int(side * n / short) for n in image.size]  # torchvision's rounding
    left, top = (round((n - side) / 2) for n in resized)
    if max(image.size) <= LONGEST * short:
        whole = image.resize((resized[0], resized[1]), Image.Resampling.BILINEAR)
        return whole.crop((left, top, left + side, top + side))
    (left, right), (top, bottom) = (
        (edge * n / full, (edge + side) * n / full) for edge, n, full in zip((left, top), image.size, resized, strict=True)
    )
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def standardize(pixels: Tensor) -> Tensor:
    """Map uint8 pixels (..., 3, H, W) to the network's input: RGB in [0, 1] minus MEAN, over STD."""
    mean, std = (_by_channel(v, pixels.device) for v in (MEAN, STD))
    return pixels.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)


@functools.cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A value for each channel (3, 1, 1), made once for a device: a GPU's queue would be waited for each time."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)


def to_pixels(x: Tensor) -> Tensor:
    """Invert `standardize`: (..., 3, H, W) in the network's convention to RGB in [0, 1], clipped."""
    mean, std = (_by_channel(v, x.device) for v in (MEAN, STD))
    return (x.float() * std + mean).clamp(0, 1)


def preprocess(image: str | Path | Image.Image | np.ndarray, size: int = 224) -> Tensor:
    """Turn one photograph into the network's input: smallest side to 256, centre, 224 x 224, standardised.

    Takes a path, a Pillow image, or an array: (H, W), (H, W, 3) or (H, W, 4) of uint8, or of floats in [0, 1].
    Returns (1, 3, size, size) float32, RGB in [0, 1] minus ImageNet's channel means over its deviations: 0 is mean grey.
    A photograph is turned upright by its EXIF orientation. For another size than 224 the side before cropping is size *
    256 / 224, rounded.
    Raises ImageError for a file that cannot be read, TypeError or ValueError for another kind of input. Zeiler & Fergus,
    section 3.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if isinstance(image, (str, Path)):
        image = read_image(image)
    elif isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"preprocess takes a path, a Pillow image or a numpy array, not {type(image).__name__}")
    elif 0 in image.size:
        raise ValueError(f"an image of {image.width} x {image.height} pixels is empty")
    else:
        try:
            image.load()  # Pillow reads a file that it has opened only now
        except (OSError, SyntaxError) as error:
            raise ImageError(f"the image cannot be read: {error}") from None
    square = np.array(center(to_rgb(image), round(size * 256 / 224)))
    return standardize(center_crop(torch.from_numpy(square).permute(2, 0, 1)[None], size)).contiguous()


def center_crop(pixels: Tensor, size: int) -> Tensor:
    """Cut the central size x size of (..., H, W). Raises ValueError where it is larger than the image."""
    if size > min(pixels.shape[-2:]):
        raise ValueError(f"a crop of {size} pixels is larger than the {tuple(pixels.shape[-2:])} image")
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[..., top : top + size, left : left + size]


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ValueError(f"an image array is (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if array.dtype == bool:
        array = array.astype(np.float32)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("an image array of floats must lie in [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"an image array holds uint8, or floats in [0, 1], not {array.dtype}")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
