"""Folders of images, one subfolder per class, decoded once with the paper's preprocessing."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from zfnet.data import no_progress
from zfnet.data.cache import DataError, cached_array, digest
from zfnet.data.dataset import Images
from zfnet.data.formats import ImageError, extensions, read_image
from zfnet.data.images import PREPROCESSING, center
from zfnet.data.io import expand_path
from zfnet.data.labels import class_names
from zfnet.data.tree import relative_names, scan, walk


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
        >>> x, label = load_folder(root, side=32, size=28)[0]
        >>> x.shape
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
    rows = _readable_rows(root, labels, wnids, errors, skip_unreadable)
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


def _readable_rows(
    root: Path,
    labels: np.ndarray,
    wnids: Sequence[str],
    errors: dict[int, str],
    skip_unreadable: bool,
) -> np.ndarray:
    """Return the numbers of the files without an error. Raises DataError as `load_files` does."""
    count = len(labels)
    if len(errors) == count:
        raise DataError(f"{root}: none of its {count} images is readable")
    if errors and not skip_unreadable:
        messages = "".join(f"\n  {message}" for message in errors.values())
        raise DataError(
            f"{root}: {len(errors)} of {count} files are unreadable; "
            f"remove them or use --skip-unreadable:{messages}"
        )
    rows = np.array([i for i in range(count) if i not in errors])
    if unreadable := [wnids[int(label)] for label in np.setdiff1d(labels, labels[rows])]:
        raise DataError(
            f"{root}: no image is readable in {len(unreadable)} class folders: "
            f"{', '.join(unreadable[:10])}"
        )
    return rows


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


def _stamp(path: Path) -> tuple[int, int]:
    """Return the size and modification time of a file, or of a broken link."""
    stat = path.stat() if path.exists() else path.lstat()
    return stat.st_size, stat.st_mtime_ns
