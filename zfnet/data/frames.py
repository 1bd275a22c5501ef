"""The frames of an animation: an animated file, or a folder of numbered images."""

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
from zfnet.data.formats import MAX_PIXELS, ImageError, read_image, to_rgb
from zfnet.data.images import preprocess
from zfnet.data.io import expand_path
from zfnet.data.tree import is_image

MILLISECONDS = 100  # default duration of a frame


@dataclass(frozen=True, eq=False)
class Frames:
    """An animation as network inputs.

    Attributes:
        x: (N, 3, size, size) float32 in the network's input convention.
        milliseconds: The N frames' durations.
    """

    x: Tensor
    milliseconds: list[int]


def load_frames(path: str | Path, size: int = 224, *, progress: Callable = no_progress) -> Frames:
    """Read an animated GIF, PNG or WebP, or a folder of images, and preprocess each frame.

    The images of a folder are in natural order: frame2 precedes frame10. A frame of 224 pixels
    takes 600 KB of memory.

    Args:
        path: An animated file or a folder.
        size: Side of the frames in pixels.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The frames. Their duration is 100 ms if the file does not specify it.

    Raises:
        DataError: There are fewer than two frames, or frames of different sizes.
        ImageError: A file cannot be read. The message names it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.gif"
        >>> one, two = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
        >>> one.save(path, save_all=True, append_images=[two], duration=40)
        >>> frames = load_frames(path)
        >>> frames.x.shape, frames.milliseconds
        (torch.Size([2, 3, 224, 224]), [40, 40])
    """
    path = expand_path(path)
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if is_image(p)), key=natural_sort_key)
        if not files:
            raise DataError(f"{path}: no images; expected a folder of frames")
        images = (
            (str(file), read_image(file), MILLISECONDS)
            for file in progress(files, total=len(files), desc="reading")
        )
    else:
        images = (
            (f"{path}, frame {i}", image, time) for i, (image, time) in enumerate(_animation(path))
        )
    rows: list[Tensor] = []
    times: list[int] = []
    frame_size: tuple[int, int] | None = None
    for name, image, time in images:
        frame_size = frame_size or image.size
        if image.size != frame_size:
            raise DataError(
                f"{name} is {image.width} x {image.height} pixels, but the first frame "
                f"{frame_size[0]} x {frame_size[1]}; all frames must have the same size"
            )
        rows.append(preprocess(image, size))
        times.append(time)
    if len(rows) < 2:
        raise DataError(
            f"{path}: a still image, not an animation; use `zfnet explain` for one image"
        )
    return Frames(torch.cat(rows), times)


def _animation(path: Path):
    """Yield (image, milliseconds) per frame of an animated file. Raises ImageError."""
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ImageError(f"{file.width} x {file.height} is over {MAX_PIXELS:,} pixels")
            for frame in ImageSequence.Iterator(file):
                yield to_rgb(frame.copy()), int(frame.info.get("duration") or MILLISECONDS)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file or folder") from None
    except Exception as error:  # Pillow's decoders raise many types
        raise ImageError(f"{path}: not a readable animation ({error or repr(error)})") from error


def natural_sort_key(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Return a key that sorts file names with numbers by value.

    Args:
        path: The file.

    Returns:
        The name's parts, numbers as (0, n) and text as (1, text), and the name to break ties.

    Example:
        >>> sorted([Path("10.png"), Path("9.png")], key=natural_sort_key)[0].name
        '9.png'
    """
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], path.name
