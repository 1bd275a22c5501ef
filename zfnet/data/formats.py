"""Read image files of any format, and convert images of any mode to upright RGB."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from zfnet.data.io import expand_path

MAX_PIXELS = 100_000_000  # rejects decompression bombs
# Formats that Pillow recognizes but cannot decode, or only with another program.
UNDECODABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
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


@cache
def extensions() -> frozenset[str]:
    """Return the endings of the formats that Pillow decodes, such as ".jpg" and ".jfif".

    Example:
        >>> {".jpeg", ".jfif", ".pgm", ".png", ".webp"} <= extensions()
        True
    """
    formats = Image.registered_extensions()  # loads Pillow's decoders
    decodable = Image.OPEN.keys() - UNDECODABLE
    return frozenset(ending for ending, name in formats.items() if name in decodable)


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


def from_array(array: np.ndarray) -> Image.Image:
    """Convert an array to a Pillow image.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool, or floats in
            [0, 1].

    Returns:
        The image, with 8 bits per channel.

    Raises:
        ValueError: The array is empty, or has another shape, type or range.

    Example:
        >>> from_array(np.ones((4, 5))).getpixel((0, 0))
        255
    """
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
