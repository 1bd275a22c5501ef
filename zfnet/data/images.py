"""Read a photograph of any format and preprocess it by the paper's protocol."""

from __future__ import annotations

import functools
import warnings
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from zfnet.data.io import expand_path

# The input convention everywhere, as in torchvision: RGB in [0, 1] minus MEAN, divided by STD.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

PREPROCESSING = 5  # part of the cache key: raise it when decoding or resizing changes
MAX_PIXELS = 100_000_000  # rejects decompression bombs
MAX_ASPECT_RATIO = 32  # of longer images, only the central square is resampled
# The transposition that makes an image of each EXIF orientation upright.
EXIF_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A file is not a readable image. The message names the file and the reason."""


def read_image(path: str | Path) -> Image.Image:
    """Read a file as an upright RGB image.

    Gray, CMYK, palette, 16-bit and float images are converted. Transparency is composited on
    white.

    Args:
        path: An image file that Pillow can decode.

    Returns:
        An image of mode RGB with 8 bits per channel.

    Raises:
        ImageError: The file is missing, truncated, not an image, a pipe, or over 100 million
            pixels.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "gray.png"
        >>> Image.new("L", (5, 4), 100).save(path)
        >>> read_image(path).getpixel((0, 0))
        (100, 100, 100)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            path = expand_path(path)
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise ImageError("is a pipe or a device, not a file")
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width} x {image.height}"
                    raise ImageError(f"{size} is over {MAX_PIXELS:,} pixels")
                return to_rgb(image)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ImageError(f"{path}: not a readable image ({reason})") from error


def upright(image: Image.Image) -> Image.Image:
    """Apply an image's EXIF orientation.

    Pillow's `exif_transpose` rewrites all tags, and fails if one is damaged. Some decoders, such as
    that of TIFF, turn the image themselves and drop the tag, so it is read after decoding.

    Args:
        image: An image of any mode.

    Returns:
        The upright image; the same image if it has no readable orientation.

    Example:
        >>> upright(Image.new("RGB", (5, 4))).size
        (5, 4)
    """
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF: the pixels may be intact
        return image
    if orientation not in EXIF_TRANSPOSITIONS:
        return image
    return image.transpose(EXIF_TRANSPOSITIONS[orientation])


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image of any mode to upright RGB.

    Args:
        image: An image; 16-bit integers and floats in [0, 1] are scaled to 8 bits, and transparency
            is composited on white.

    Returns:
        An image of mode RGB without metadata.

    Raises:
        ImageError: The range of the values is unknown: 32-bit integers, or floats outside [0, 1].

    Example:
        >>> to_rgb(Image.new("L", (5, 4), 100)).mode
        'RGB'
    """
    highest, tags = highest_value(image), dict(getattr(image, "tag_v2", {}))
    image = upright(image)
    if highest is not None:
        values = np.asarray(image, dtype=np.float64)
        if not (values.min() >= 0 and values.max() <= highest):  # false for NaN
            raise ImageError(
                f"values of mode {image.mode} must be in [0, {highest}], got {values.min():g} to "
                f"{values.max():g}; scale them to 8 or 16 bits"
            )
        if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # 0 is white
            values = highest - values
        image = Image.fromarray((values * (255 / highest)).round().astype(np.uint8))
    image = image.convert("LA") if image.mode == "La" else image
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.info.clear()  # drop the EXIF, which would rotate it again
    return image


def highest_value(image: Image.Image) -> int | None:
    """Return the value of white in an image of more than 8 bits; None for other images.

    It depends on the file's format alone: one that was guessed from the values would change the
    brightness of dark images.

    Args:
        image: An image, as opened.

    Raises:
        ImageError: The image has 32-bit integers, for which there is no convention.

    Example:
        >>> highest_value(Image.new("I;16", (5, 4)))
        65535
    """
    if image.mode == "F":
        return 1
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # these have at most 16 bits
        raise ImageError("the range of 32-bit integers is unknown; convert them to 8 or 16 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return None
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 16)
    return 2 ** (bits[0] if isinstance(bits, tuple) else bits) - 1


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
        image = _from_array(image)
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


def _from_array(array: np.ndarray) -> Image.Image:
    """Convert an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to a Pillow image."""
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not is_image or 0 in array.shape:
        raise ValueError(f"an image array must be (H, W), (H, W, 3 or 4), got {array.shape}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == bool:
        array = array.astype(np.float32)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("an image array of floats must be in [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(
            f"an image array must be uint8, uint16, bool, or floats in [0, 1], got {array.dtype}"
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
