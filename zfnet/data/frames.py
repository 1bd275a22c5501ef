"""The frames of a moving picture: an animated file, or a folder of images in the order of their numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageSequence
from torch import Tensor

from zfnet.data import no_progress
from zfnet.data.cache import DataError
from zfnet.data.folders import is_image
from zfnet.data.images import MAX_PIXELS, ImageError, preprocess, read_image, to_rgb

MILLISECONDS = 100  # of a frame whose file does not say how long it is shown


@dataclass(frozen=True, eq=False)
class Frames:
    """A moving picture as network inputs `x` (N, 3, size, size), each shown for `milliseconds` (N of them)."""

    x: Tensor
    milliseconds: list[int]


def load_frames(path: str | Path, size: int = 224, *, progress: Callable = no_progress) -> Frames:
    """Read an animated GIF, PNG or WebP, or a folder of images, each frame preprocessed as `zfnet.preprocess` does it.

    A folder's frames are its images in the order of their names, numbers in them by value: frame2 is before frame10. Memory is
    600 KB a frame of 224 pixels. A GIF's own times are kept; others are shown for 100 ms.
    Raises DataError where there are fewer than two frames, or frames of different sizes; ImageError for a file that cannot be
    read, which it names.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if is_image(p)), key=natural_sort_key)
        if not files:
            raise DataError(f"{path}: no images in it; expected a folder of frames")
        images = ((str(file), read_image(file), MILLISECONDS) for file in progress(files, total=len(files), desc="reading"))
    else:
        images = ((f"{path}, frame {i}", image, time) for i, (image, time) in enumerate(_animation(path)))
    rows: list[Tensor] = []
    times: list[int] = []
    first: tuple[int, int] | None = None
    for name, image, time in images:
        first = first or image.size
        if image.size != first:
            sizes = f"{image.width} x {image.height} pixels, the first frame {first[0]} x {first[1]}"
            raise DataError(f"{name} is {sizes}; frames of a moving picture have one size")
        rows.append(preprocess(image, size))
        times.append(time)
    if len(rows) < 2:
        raise DataError(f"{path}: is a still image, not a moving picture; `zfnet explain` maps one image")
    return Frames(torch.cat(rows), times)


def _animation(path: Path):
    """The frames of an animated file, as (image, milliseconds). Raises ImageError."""
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ImageError(f"{path}: {file.width} x {file.height} is over {MAX_PIXELS:,} pixels")
            for frame in ImageSequence.Iterator(file):
                yield to_rgb(frame.copy()), int(frame.info.get("duration") or MILLISECONDS)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file or folder") from None
    except Exception as error:  # as read_image: Pillow's decoders raise many types
        raise ImageError(f"{path}: not a readable moving picture ({error or repr(error)})") from error


def natural_sort_key(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """A name as a sorting key in which numbers go by value, of numbers (0, n), of text (1, text); a1 and a01 by their names."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], path.name
