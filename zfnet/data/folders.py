"""Folders of images, one subfolder per class, decoded once by the paper's preprocessing."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from zfnet.data import no_progress
from zfnet.data.cache import DataError, Images, cached_array, digest
from zfnet.data.images import PREPROCESSING, ImageError, center, read_image
from zfnet.data.io import encode_name, expand_path, printable_name

# The sha256 of the 1000 sorted WordNet ids of ILSVRC 2012, one per line.
ILSVRC_2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
# Formats that Pillow recognizes but cannot decode, or only with another program.
UNDECODABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
SPLITS = {"train", "val", "test"}


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
    """Load a tree `root/<class>/*.JPEG` as uint8 squares, and cache them.

    Classes are the subfolders in sorted order. Every format that Pillow decodes is read, also in
    folders below a class's folder, as by torchvision's `ImageFolder`. Hidden files are ignored.

    Args:
        root: A folder with one subfolder per class.
        side: Side in pixels of the squares: the shorter side is resized to it.
        size: Side in pixels of an item's central crop.
        skip_unreadable: Leave unreadable files out and list them in `skipped`.
        limit: The number of images per class, the first by name; 0 for all.
        names: The files to load, `<class>/<file>`; None for all.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images. `wnids` are the folders' names. `classes` are the same, or the readable
        names if the folders are ILSVRC 2012's 1000. `skipped` lists all other files of the tree.

    Raises:
        DataError: The tree is missing or empty, a class folder has no images, or files are
            unreadable and `skip_unreadable` is False. The message lists them.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "cat").mkdir()
        >>> Image.new("RGB", (40, 30)).save(root / "cat" / "0.png")
        >>> load_folder(root, side=32, size=28)[0][0].shape
        torch.Size([3, 28, 28])
    """
    root = expand_path(root)
    folders, files, labels = scan(root, limit, names)
    images = load_files(
        root,
        files,
        labels,
        class_names(folders),
        folders,
        side=side,
        size=size,
        skip_unreadable=skip_unreadable,
        progress=progress,
    )
    endings, listed = extensions(), set(files)
    every = not limit and names is None
    others = (
        file
        for file in walk(root)
        if (file not in listed if every else file.suffix.lower() not in endings)
        or file.parent == root
    )
    return replace(images, skipped=[*images.skipped, *relative_names(root, others)])


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
    """Decode files below `root` into squares, as `load_folder` does.

    Args:
        root: A folder that contains all files.
        files: The N image files.
        labels: (N,) int64 class indices.
        classes: The classes' names.
        wnids: The classes' WordNet ids or folder names.
        side: Side in pixels of the squares.
        size: Side in pixels of an item's central crop.
        skip_unreadable: Leave unreadable files out and list them in `skipped`.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images.

    Raises:
        DataError: Files are unreadable and `skip_unreadable` is False, or a class has no
            readable image.
    """
    names = relative_names(root, files)
    # The cache key uses path, names, sizes and times; the digest uses the contents.
    stats = [_stamp(path) for path in files]
    key = digest("folder", PREPROCESSING, root.resolve(), *names, *stats)

    def fill(array: np.ndarray) -> dict:
        return _decode_all(files, names, side, array, progress, f"decoding {root.name}")

    def valid(metadata: dict) -> bool:
        """Check that unreadable files are still unreadable; permissions may have changed."""
        return all(_decode(files[int(i)], side)[0] is None for i in metadata["unreadable"])

    pixels, metadata = cached_array(f"{key[:20]}-{side}", (len(files), side, side, 3), fill, valid)
    errors = {int(i): message for i, message in metadata["unreadable"].items()}
    if len(errors) == len(files):
        raise DataError(f"{root}: none of its {len(files)} images is readable")
    if errors and not skip_unreadable:
        messages = "".join(f"\n  {message}" for message in errors.values())
        raise DataError(
            f"{root}: {len(errors)} of {len(files)} files are unreadable; "
            f"remove them or use --skip-unreadable:{messages}"
        )
    rows = np.array([i for i in range(len(files)) if i not in errors])
    if unreadable := [wnids[int(label)] for label in np.setdiff1d(labels, labels[rows])]:
        raise DataError(
            f"{root}: no image is readable in {len(unreadable)} class folders: "
            f"{', '.join(unreadable[:10])}"
        )
    return Images(
        pixels,
        labels[rows],
        classes,
        wnids,
        [names[i] for i in rows],
        metadata["digest"],
        size,
        rows,
        skipped=[names[i] for i in errors],
    )


def _decode(path: Path, side: int) -> tuple[np.ndarray | None, str]:
    """Return a square and its file's hash, or None and the error message."""
    try:
        square = np.asarray(center(read_image(path), side))
        return square, hashlib.sha256(path.read_bytes()).hexdigest()
    except ImageError as error:
        return None, str(error)


def _decode_all(
    files: Sequence[Path],
    names: Sequence[str],
    side: int,
    array: np.ndarray,
    progress: Callable,
    label: str,
) -> dict:
    """Decode files into an array (N, side, side, 3); return the metadata of the cache entry."""
    unreadable, hashes = {}, []
    pool = ThreadPoolExecutor()  # Pillow releases the GIL while it decodes and resizes
    try:
        chunks = (
            pool.map(_decode, files[i : i + 1024], itertools.repeat(side))
            for i in range(0, len(files), 1024)
        )
        squares = progress(itertools.chain.from_iterable(chunks), total=len(files), desc=label)
        for i, (square, text) in enumerate(squares):
            if square is None:
                unreadable[i] = text
            else:
                array[i] = square
                hashes.append(text)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run drops the queue
    return {"digest": digest("folder", *names, *hashes), "unreadable": unreadable}


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


def is_image(path: Path) -> bool:
    """Return whether a file has one of the `extensions`, in any case, and is not hidden.

    macOS leaves hidden files such as `._name.JPEG`. Broken links count as images, so that they are
    reported as unreadable.

    Args:
        path: A file or link.

    Example:
        >>> is_image(Path("._0.JPEG"))
        False
    """
    if path.suffix.lower() not in extensions() or path.name.startswith("."):
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, by name, as torchvision's ImageFolder does.

    Hidden files and folders are left out.
    """
    entered: set[str] = set()
    levels = []
    for level, subfolders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(level)) in entered:  # a link to a folder above
            subfolders.clear()
            continue
        entered.add(place)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        levels.append((level, [name for name in names if not name.startswith(".")]))
    for level, names in sorted(levels):
        yield from (Path(level, name) for name in sorted(names))


def _stamp(path: Path) -> tuple[int, int]:
    """Return the size and modification time of a file, or of a broken link."""
    stat = path.stat() if path.exists() else path.lstat()
    return stat.st_size, stat.st_mtime_ns


def scan(
    root: Path, limit: int = 0, names: Sequence[str] | None = None
) -> tuple[list[str], list[Path], np.ndarray]:
    """List a tree's class folders, its image files, and each file's class index.

    Args:
        root: A folder with one subfolder per class.
        limit: The number of images per class, the first by name; 0 for all.
        names: The files to list, `<class>/<file>`; None for all.

    Returns:
        The class folders, the N image files, and their class indices (N,) int64.

    Raises:
        DataError: A folder or a named file is missing, or a class folder has no images.
    """
    root = expand_path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a tree with one folder per class")
    folders = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not folders:
        raise DataError(f"{root}: no class folders; expected {root}/<class>/*.JPEG")
    files: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, folder in enumerate(folders):
        images = [path for path in walk(root / folder) if is_image(path)][: limit or None]
        if not images:
            empty.append(folder)
        files += images
        labels += [label] * len(images)
    if set(folders) <= SPLITS and all(file.parent.parent != root for file in files):
        raise DataError(f"{root}: holds splits, not classes; give {root / folders[0]}")
    if empty:
        raise DataError(
            f"{root}: {len(empty)} class folders without images: {', '.join(empty[:10])}"
        )
    if names is None:
        return folders, files, np.array(labels, dtype=np.int64)
    available = {name: i for i, name in enumerate(relative_names(root, files))}
    if missing := set(names) - set(available):
        raise DataError(f"{root}: {len(missing)} files are missing, such as {min(missing)}")
    index = sorted({available[name] for name in names})
    return folders, [files[i] for i in index], np.array([labels[i] for i in index], dtype=np.int64)


def relative_names(root: Path, files: Iterable[Path]) -> list[str]:
    """Return the names of files in a tree, such as "cat/0.jpg" or "cat/more/1.jpg"."""
    return [file.relative_to(root).as_posix() for file in files]


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the 1000 class names of ILSVRC 2012, in the order of their sorted WordNet ids.

    Example:
        >>> imagenet_names()[160]
        'Afghan hound'
    """
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def class_names(folders: Sequence[str]) -> list[str]:
    """Return readable names of class folders.

    Args:
        folders: The folders' names in sorted order.

    Returns:
        ILSVRC 2012's names if the folders are its 1000 WordNet ids, else the folders' names, with
        escapes for what is not printable.

    Example:
        >>> class_names(["cat", "dog"])
        ['cat', 'dog']
    """
    if names_digest(folders) == ILSVRC_2012:
        return list(imagenet_names())
    return [printable_name(folder) for folder in folders]


def names_digest(folders: Sequence[str]) -> str:
    """Return the sha256 of names, one per line. Compare it with `ILSVRC_2012`."""
    return hashlib.sha256(encode_name("\n".join(folders))).hexdigest()
