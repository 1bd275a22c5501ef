"""The sample photographs: public-domain and CC0 pictures included in scikit-image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zfnet.data.cache import DataError, cached_array, digest
from zfnet.data.dataset import Images
from zfnet.data.formats import read_image
from zfnet.data.images import PREPROCESSING

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "cameraman": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
SCALES = (1.0, 0.6, 0.36)  # side of a crop over the short side of its photograph


def photograph(name: str) -> Image.Image:
    """Load one sample photograph.

    Args:
        name: One of `PHOTOGRAPHS`, such as "cat".

    Returns:
        The full photograph as RGB.

    Raises:
        DataError: The name is unknown, or scikit-image is not installed.

    Example:
        >>> photograph("cat").size
        (451, 300)
    """
    if name not in PHOTOGRAPHS:
        raise DataError(f"{name!r} is not a sample photograph; available: {', '.join(PHOTOGRAPHS)}")
    try:
        import skimage.data
    except ImportError:
        raise DataError(
            "the sample photographs need scikit-image: pip install scikit-image"
        ) from None
    return read_image(Path(skimage.data.__file__).parent / PHOTOGRAPHS[name])


def crop_boxes(width: int, height: int) -> list[tuple[int, int, int, int, int]]:
    """Return overlapping square crops of an image, at three scales.

    Neighbors overlap by about half a side.

    Args:
        width: The image's width in pixels.
        height: The image's height in pixels.

    Returns:
        Tuples (scale index, left, top, right, bottom).

    Example:
        >>> tuple(map(int, crop_boxes(100, 100)[0]))
        (0, 0, 0, 100, 100)
    """
    boxes = []
    for number, scale in enumerate(SCALES):
        side = int(min(width, height) * scale)
        columns, rows = (1 + -(-(n - side) // (side // 2 + 1)) for n in (width, height))
        for top in np.linspace(0, height - side, rows).astype(int):
            boxes += [
                (number, left, top, left + side, top + side)
                for left in np.linspace(0, width - side, columns).astype(int)
            ]
    return boxes


def load_samples(size: int = 224, side: int = 256) -> Images:
    """Load about 500 overlapping crops of the sample photographs, at three scales.

    Args:
        size: Side in pixels of an item's central crop.
        side: Side in pixels of the crops, after resizing.

    Returns:
        The crops, with labels of -1 and the photographs as `classes`. `groups` has one number
        per photograph and scale, so that a search can keep one crop per group. `names` give
        the photograph and the box (left, top, right, bottom): "cat@32,0,176,144".

    Raises:
        DataError: scikit-image is not installed.

    Example:
        >>> x, label = load_samples()[0]
        >>> x.shape
        torch.Size([3, 224, 224])
    """
    photographs = {name: photograph(name) for name in PHOTOGRAPHS}
    names, groups, sources = [], [], []
    for number, (name, image) in enumerate(photographs.items()):
        for scale, *box in crop_boxes(*image.size):
            names.append(f"{name}@{','.join(map(str, box))}")
            groups.append(number * len(SCALES) + scale)
            sources.append((name, tuple(box)))
    contents = [digest(name, image.size, image.tobytes()) for name, image in photographs.items()]
    identity = digest("samples", PREPROCESSING, *contents, *names)

    def fill(array: np.ndarray) -> dict:
        for i, (name, box) in enumerate(sources):
            array[i] = np.asarray(
                photographs[name].resize((side, side), Image.Resampling.BILINEAR, box=box)
            )
        return {}

    pixels, _ = cached_array(f"{identity[:20]}-{side}", (len(names), side, side, 3), fill)
    labels = np.full(len(names), -1, dtype=np.int64)
    return Images(
        pixels,
        labels,
        list(photographs),
        list(photographs),
        names,
        identity,
        size,
        groups=np.array(groups),
    )
