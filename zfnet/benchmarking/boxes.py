"""Images with boxes: a tree of class folders, and a CSV file with a box per image."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from zfnet.data import no_progress
from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.data.folders import load_folder
from zfnet.data.io import expand_path

EDGES = ("top", "left", "bottom", "right")
Box = tuple[float, float, float, float]


def load_boxed(
    root: str | Path,
    boxes: str | Path,
    *,
    side: int = 256,
    size: int = 224,
    progress: Callable = no_progress,
) -> Images:
    """Load the images of a tree that have a box, with the boxes as masks.

    Args:
        root: A folder with one subfolder per class, or one that has it as val/.
        boxes: A CSV file with the columns `file` (`<class>/<file>`), `top`, `left`, `bottom` and
            `right`, in pixels of the file. Where it has a column `sha256`, a file with another hash
            is an error. Files that the tree does not have are left out.
        side: Side in pixels of the decoded squares: the shorter side is resized to it.
        size: Side in pixels of an item's central crop.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images; `masks` (N, side, side) are True inside the boxes.

    Raises:
        DataError: The tree or the table is missing or wrong, the tree has none of the files, or it
            has another file of that name.
    """
    root = expand_path(root)
    root = root / "val" if (root / "val").is_dir() else root
    table = read_boxes(expand_path(boxes))
    names = [name for name in table if (root / name).is_file()]
    if not names:
        raise DataError(f"{root}: has none of the {len(table)} files of {boxes}")
    for name in names:
        sha256 = table[name][1]
        if sha256 and hashlib.sha256((root / name).read_bytes()).hexdigest() != sha256:
            raise DataError(f"{root / name}: not the file of {boxes}, which has another hash")
    images = load_folder(root, side=side, size=size, names=names, progress=progress)
    masks = np.stack([_mask(root / name, table[name][0], side) for name in images.names])
    return replace(images, masks=masks, skipped=())


def read_boxes(path: Path) -> dict[str, tuple[Box, str]]:
    """Read the box and the hash, or "", of each file in a table. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        table = {}
        for row in rows:
            top, left, bottom, right = (float(row[edge]) for edge in EDGES)
            if not (top < bottom and left < right):
                raise DataError(f"{path}: {row['file']} has an empty box")
            table[row["file"]] = ((top, left, bottom, right), row.get("sha256") or "")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        columns = ", ".join(("file", *EDGES))
        raise DataError(f"{path}: not a table with the columns {columns} ({error!r})") from None
    return table


def _mask(path: Path, box: Box, side: int) -> np.ndarray:
    """Draw a box of a file into the square that `zfnet.data.images.center` cuts, (side, side)."""
    with Image.open(path) as image:
        width, height = image.size
    short = min(width, height)
    spans = []
    for length, low, high in ((height, box[0], box[2]), (width, box[1], box[3])):
        resized = side if length == short else int(side * length / short)
        offset = round((resized - side) / 2)
        edges = (round(edge * resized / length) - offset for edge in (low, high))
        spans.append(slice(*(min(max(edge, 0), side) for edge in edges)))
    mask = np.zeros((side, side), dtype=bool)
    mask[spans[0], spans[1]] = True
    return mask
