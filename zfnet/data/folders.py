"""ImageNet-like trees: one folder per class, decoded once by the paper's preprocessing."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from zfnet.data import no_progress
from zfnet.data.cache import DataError, Images, cached_array, digest
from zfnet.data.images import PREPROCESSING, ImageError, center, read_image

ILSVRC_2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"  # of its 1000 sorted WordNet ids, a line each
EXTENSIONS = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def load_folder(
    root: str | Path,
    *,
    side: int = 256,
    size: int = 224,
    skip_unreadable: bool = False,
    limit: int = 0,
    names: Sequence[str] | None = None,
    progress: Callable = no_progress,
) -> Images:
    """Load a tree `root/<class>/*.JPEG`: smallest side to `side`, centre square, uint8, kept in the cache.

    Classes are the sub-folders in sorted order, in `wnids`; `classes` are the same, or their names if they are ILSVRC's 1000.
    `limit` keeps that many images per class, the first by name; 0 keeps all. `names` keeps the files of these names,
    `<class>/<file>`, in the tree's order. `size` is the side of an item's central crop.
    Raises DataError for a missing or empty tree, for class folders without images, and for unreadable files, all listed,
    unless `skip_unreadable`, which leaves them out and names them in `skipped`.
    """
    root = Path(root)
    folders, files, labels = scan(root, limit, names)
    return load_files(
        root, files, labels, class_names(folders), folders, side=side, size=size, skip_unreadable=skip_unreadable,
        progress=progress,
    )  # fmt: skip


def load_files(
    root: Path,
    files: Sequence[Path],
    labels: np.ndarray,
    classes: Sequence[str],
    wnids: Sequence[str],
    *,
    side: int = 256,
    size: int = 224,
    skip_unreadable: bool = False,
    progress: Callable = no_progress,
) -> Images:
    """Decode the files below `root` once into squares, with their labels (N,) and the labels' names. As `load_folder`."""
    names = [path.relative_to(root).as_posix() for path in files]
    # The cache knows a tree by where it is and by its files' names, sizes and times; the digest knows its contents.
    stats = [_stamp(path) for path in files]
    key = digest("folder", PREPROCESSING, root.resolve(), *names, *stats)

    def decode(i: int) -> tuple[np.ndarray | None, str]:
        """The square, or None, and the file's hash, or what is wrong with it."""
        try:
            square = np.asarray(center(read_image(files[i]), side))
            return square, hashlib.sha256(files[i].read_bytes()).hexdigest()
        except ImageError as error:
            return None, str(error)

    def fill(array: np.ndarray) -> dict:
        unreadable, hashes = {}, []
        pool = ThreadPoolExecutor()  # Pillow releases the interpreter lock while it decodes and resizes
        try:
            chunks = (pool.map(decode, range(i, min(i + 1024, len(files)))) for i in range(0, len(files), 1024))
            squares = progress(itertools.chain.from_iterable(chunks), total=len(files), desc=f"decoding {root.name}")
            for i, (square, text) in enumerate(squares):
                if square is None:
                    unreadable[i] = text
                else:
                    array[i] = square
                    hashes.append(text)
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupted run does not decode what is still queued
        return {"digest": digest("folder", *names, *hashes), "unreadable": unreadable}

    def valid(about: dict) -> bool:
        """Whether what could not be read still cannot: a right that was missing may be there now."""
        return all(decode(int(i))[0] is None for i in about["unreadable"])

    pixels, about = cached_array(f"{key[:20]}-{side}", (len(files), side, side, 3), fill, valid)
    bad = {int(i): message for i, message in about["unreadable"].items()}
    if len(bad) == len(files):
        raise DataError(f"{root}: none of its {len(files)} images is readable")
    if bad and not skip_unreadable:
        listed = "".join(f"\n  {message}" for message in bad.values())
        raise DataError(
            f"{root}: {len(bad)} of {len(files)} files are unreadable; remove them or use --skip-unreadable:{listed}"
        )
    rows = np.array([i for i in range(len(files)) if i not in bad])
    if lost := [wnids[int(label)] for label in np.setdiff1d(labels, labels[rows])]:
        raise DataError(f"{root}: no image is readable in {len(lost)} class folders: {', '.join(lost[:10])}")
    skipped = [names[i] for i in bad]
    return Images(pixels, labels[rows], classes, wnids, [names[i] for i in rows], about["digest"], size, rows, skipped=skipped)


def is_image(path: Path) -> bool:
    """Whether a file is listed: macOS leaves `._name.JPEG` beside a file that it copies, which is none.

    A link to nothing is listed, and then unreadable, for else nobody would notice that the images have moved.
    """
    if path.suffix.lower() not in EXTENSIONS or path.name.startswith("."):
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def _stamp(path: Path) -> tuple[int, int]:
    """The size and time of a file, or of a link to nothing."""
    stat = path.stat() if path.exists() else path.lstat()
    return stat.st_size, stat.st_mtime_ns


def scan(root: Path, limit: int = 0, names: Sequence[str] | None = None) -> tuple[list[str], list[Path], np.ndarray]:
    """List a tree's class folders, its image files, and each file's class index.

    Args:
        root: A folder with one folder per class.
        limit: Images per class, the first by name; 0 lists all.
        names: List only these files, `<class>/<file>`; None lists all.

    Raises:
        DataError: A folder or a named file is missing, or a class folder has no images.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a tree with one folder per class")
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise DataError(f"{root}: no class folders in it; expected {root}/<class>/*.JPEG")
    files: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, folder in enumerate(folders):
        found = sorted(p for p in (root / folder).iterdir() if is_image(p))
        found = found[: limit or None]
        if not found:
            empty.append(folder)
        files += found
        labels += [label] * len(found)
    if empty:
        raise DataError(f"{root}: {len(empty)} class folders without images: {', '.join(empty[:10])}")
    listed = np.array(labels, dtype=np.int64)
    if names is None:
        return folders, files, listed
    wanted = set(names)
    kept = np.array([f"{file.parent.name}/{file.name}" in wanted for file in files])
    files = [file for file, keep in zip(files, kept, strict=True) if keep]
    missing = wanted - {f"{file.parent.name}/{file.name}" for file in files}
    if missing:
        raise DataError(f"{root}: {len(missing)} files are missing, such as {min(missing)}")
    return folders, files, listed[kept]


@cache
def imagenet_names() -> tuple[str, ...]:
    """The 1000 names of ILSVRC 2012 in the order of their sorted WordNet ids, as torchvision carries them."""
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def class_names(folders: Sequence[str]) -> list[str]:
    """Readable names of class folders: those of ILSVRC 2012 where the folders are its 1000, else the folders' own."""
    return list(imagenet_names()) if names_digest(folders) == ILSVRC_2012 else list(folders)


def names_digest(folders: Sequence[str]) -> str:
    """Return the sha256 of names, one per line. Compare it with `ILSVRC_2012`."""
    return hashlib.sha256("\n".join(folders).encode()).hexdigest()
