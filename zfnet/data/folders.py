"""ImageNet-like trees: one folder per class, decoded once by the paper's preprocessing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from zfnet.data import silent
from zfnet.data.cache import DataError, Images, digest, mapped
from zfnet.data.images import PREPROCESSING, ImageError, centre, read_image

EXTENSIONS = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def load_folder(
    root: str | Path,
    *,
    side: int = 256,
    size: int = 224,
    skip_unreadable: bool = False,
    limit: int = 0,
    progress: Callable = silent,
) -> Images:
    """Load a tree `root/<class>/*.JPEG`: smallest side to `side`, centre square, uint8, kept in the cache.

    Classes are the sub-folders in sorted order; where they are WordNet ids, `wnids` holds them and `classes` their names.
    `limit` keeps that many images a class, the first by name; 0 keeps all. `size` is the side of an item's central crop.
    Raises DataError for a missing or empty tree, for class folders without images, and for unreadable files, all listed,
    unless `skip_unreadable`, which leaves them out and names them in `skipped`.
    """
    root = Path(root)
    folders, files, labels = scan(root, limit)
    names = [str(path.relative_to(root)) for path in files]
    sizes = [path.stat().st_size for path in files]
    manifest = digest("folder", PREPROCESSING, *names, *sizes)
    unreadable: dict[int, str] = {}

    def decode(i: int) -> np.ndarray | None:
        try:
            return np.asarray(centre(read_image(files[i], side), side))
        except ImageError as error:
            unreadable[i] = str(error)
            return None

    def fill(array: np.ndarray) -> None:
        # Pillow releases the interpreter lock while it decodes and resizes, so threads are enough.
        with ThreadPoolExecutor() as pool:
            rows = progress(pool.map(decode, range(len(files))), total=len(files), desc=f"decoding {root.name}")
            for i, row in enumerate(rows):
                array[i] = 0 if row is None else row
        if unreadable and not skip_unreadable:
            raise _unreadable(root, unreadable, len(files))

    pixels = mapped(f"{manifest[:20]}-{side}", (len(files), side, side, 3), fill)
    bad = _blank(pixels, files, unreadable)
    if bad and not skip_unreadable:  # decoded earlier, by a run that skipped them
        raise _unreadable(root, bad, len(files))
    if bad:
        keep = np.array([i for i in range(len(files)) if i not in bad], dtype=int)
        if not len(keep):
            raise DataError(f"{root}: none of its {len(files)} images is readable")
        skipped = [names[i] for i in sorted(bad)]
        pixels, labels, names = pixels[keep], labels[keep], [names[i] for i in keep]
        return Images(pixels, labels, class_names(folders), folders, names, digest(manifest, *skipped), size, skipped=skipped)
    return Images(pixels, labels, class_names(folders), folders, names, manifest, size)


def _unreadable(root: Path, messages: dict[int, str], total: int) -> DataError:
    listed = "".join(f"\n  {messages[i]}" for i in sorted(messages)[:20])
    more = f"\n  and {len(messages) - 20} more" if len(messages) > 20 else ""
    return DataError(
        f"{root}: {len(messages)} of {total} files are unreadable; remove them or use --skip-unreadable:{listed}{more}"
    )


def _blank(pixels: np.ndarray, files: Sequence[Path], known: dict[int, str]) -> dict[int, str]:
    """The unreadable files and why: those just found, or, in an array from the cache, the all-black rows that do not decode."""
    bad = dict(known)
    for i in np.flatnonzero(~pixels[:, 0].any((1, 2))):
        if i not in bad and not pixels[i].any():
            try:
                read_image(files[i])
            except ImageError as error:
                bad[int(i)] = str(error)
    return bad


def scan(root: Path, limit: int = 0) -> tuple[list[str], list[Path], np.ndarray]:
    """List a tree's class folders, its image files, and each file's class index. Raises DataError."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a tree with one folder per class")
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise DataError(f"{root}: no class folders in it; expected {root}/<class>/*.JPEG")
    files: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, folder in enumerate(folders):
        found = sorted(p for p in (root / folder).iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
        found = found[: limit or None]
        if not found:
            empty.append(folder)
        files += found
        labels += [label] * len(found)
    if empty:
        raise DataError(f"{root}: {len(empty)} class folders without images: {', '.join(empty[:10])}")
    return folders, files, np.array(labels, dtype=np.int64)


@cache
def imagenet_names() -> tuple[str, ...]:
    """The 1000 names of ILSVRC 2012 in the order of their sorted WordNet ids, as torchvision carries them."""
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def class_names(folders: Sequence[str]) -> list[str]:
    """Readable names of class folders: those of ILSVRC 2012 where the folders are its 1000, else the folders' own."""
    if len(folders) == 1000 and all(re.fullmatch(r"n\d{8}", f) for f in folders):
        return list(imagenet_names())
    return list(folders)
