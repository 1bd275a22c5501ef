"""Image trees with one folder per class, decoded once by the paper's preprocessing."""

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
from zfnet.data.io import expand_path

ILSVRC_2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"  # sha256 of its 1000 sorted ids
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
    """Load a tree `root/<class>/*.JPEG` as uint8 squares, which the cache keeps.

    Classes are the subfolders in sorted order. Every format that Pillow decodes is read, also in
    folders below a class's folder, as by torchvision's `ImageFolder`. Hidden files are ignored.

    Args:
        root: The folder that holds one folder per class.
        side: Side in pixels of the squares: the shorter side is resized to it.
        size: Side in pixels of an item's central crop.
        skip_unreadable: Leave unreadable files out and list them in `skipped`.
        limit: Images per class, the first by name; 0 loads all.
        names: Load only these files, `<class>/<file>`, in the tree's order; None loads all.
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
        root, files, labels, class_names(folders), folders, side=side, size=size, skip_unreadable=skip_unreadable,
        progress=progress,
    )  # fmt: skip
    endings = extensions()
    others = (f for f in walk(root) if f.parent == root or f.suffix.lower() not in endings)
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
        root: A folder that holds all files.
        files: The N image files.
        labels: (N,) int64 class indices.
        classes: The classes' names.
        wnids: The classes' WordNet ids or folder names.
        side: Side in pixels of the squares.
        size: Side in pixels of an item's central crop.
        skip_unreadable: Leave unreadable files out and list them in `skipped`.
        progress: A progress bar such as `tqdm.tqdm`.

    Raises:
        DataError: Files are unreadable and `skip_unreadable` is False, or a class has no
            readable image.
    """
    names = relative_names(root, files)
    # The cache key uses path, names, sizes and times; the digest uses the contents.
    stats = [_stamp(path) for path in files]
    key = digest("folder", PREPROCESSING, root.resolve(), *names, *stats)

    def decode(i: int) -> tuple[np.ndarray | None, str]:
        """Return a square and its file's hash, or None and the error's message."""
        try:
            square = np.asarray(center(read_image(files[i]), side))
            return square, hashlib.sha256(files[i].read_bytes()).hexdigest()
        except ImageError as error:
            return None, str(error)

    def fill(array: np.ndarray) -> dict:
        unreadable, hashes = {}, []
        pool = ThreadPoolExecutor()  # Pillow releases the GIL while it decodes and resizes
        try:
            chunks = (
                pool.map(decode, range(i, min(i + 1024, len(files))))
                for i in range(0, len(files), 1024)
            )
            squares = progress(
                itertools.chain.from_iterable(chunks),
                total=len(files),
                desc=f"decoding {root.name}",
            )
            for i, (square, text) in enumerate(squares):
                if square is None:
                    unreadable[i] = text
                else:
                    array[i] = square
                    hashes.append(text)
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupted run drops the queue
        return {"digest": digest("folder", *names, *hashes), "unreadable": unreadable}

    def valid(about: dict) -> bool:
        """Check that unreadable files are still unreadable; permissions may have changed."""
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
        raise DataError(
            f"{root}: no image is readable in {len(lost)} class folders: {', '.join(lost[:10])}"
        )
    skipped = [names[i] for i in bad]
    return Images(
        pixels,
        labels[rows],
        classes,
        wnids,
        [names[i] for i in rows],
        about["digest"],
        size,
        rows,
        skipped=skipped,
    )


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
    """Whether a file is listed as an image: its ending is one of `extensions`, in any case.

    Hidden files are not, such as `._name.JPEG` of macOS. Broken links are, so that they are
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
        root: A folder with one folder per class.
        limit: Images per class, the first by name; 0 lists all.
        names: List only these files, `<class>/<file>`; None lists all.

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
        raise DataError(f"{root}: no class folders in it; expected {root}/<class>/*.JPEG")
    files: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, folder in enumerate(folders):
        found = [path for path in walk(root / folder) if is_image(path)][: limit or None]
        if not found:
            empty.append(folder)
        files += found
        labels += [label] * len(found)
    if set(folders) <= SPLITS and all(file.parent.parent != root for file in files):
        raise DataError(f"{root}: holds splits, not classes; give {root / folders[0]}")
    if empty:
        raise DataError(
            f"{root}: {len(empty)} class folders without images: {', '.join(empty[:10])}"
        )
    listed = np.array(labels, dtype=np.int64)
    if names is None:
        return folders, files, listed
    wanted = set(names)
    kept = np.array([name in wanted for name in relative_names(root, files)])
    files = [file for file, keep in zip(files, kept, strict=True) if keep]
    missing = wanted.difference(relative_names(root, files))
    if missing:
        raise DataError(f"{root}: {len(missing)} files are missing, such as {min(missing)}")
    return folders, files, listed[kept]


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
        ILSVRC 2012's names if the folders are its 1000 WordNet ids, else the folders' names.

    Example:
        >>> class_names(["cat", "dog"])
        ['cat', 'dog']
    """
    return list(imagenet_names()) if names_digest(folders) == ILSVRC_2012 else list(folders)


def names_digest(folders: Sequence[str]) -> str:
    """Return the sha256 of names, one per line. Compare it with `ILSVRC_2012`."""
    return hashlib.sha256("\n".join(folders).encode()).hexdigest()
