"""List the class folders and image files of a tree of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from zfnet.data.cache import DataError
from zfnet.data.formats import extensions
from zfnet.data.io import expand_path

SPLITS = {"train", "val", "test"}


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
        raise DataError(f"{root}: contains splits, not classes; pass {root / folders[0]}")
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


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, by name, as torchvision's ImageFolder does.

    Hidden files and folders are left out.

    Args:
        folder: The folder to search.

    Yields:
        One path per file.
    """
    entered: set[str] = set()
    levels = []
    for level, subfolders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(level)) in entered:  # a link to a parent folder
            subfolders.clear()
            continue
        entered.add(place)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        levels.append((level, [name for name in names if not name.startswith(".")]))
    for level, names in sorted(levels):
        yield from (Path(level, name) for name in sorted(names))


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


def relative_names(root: Path, files: Iterable[Path]) -> list[str]:
    """Return the names of files in a tree, such as "cat/0.jpg" or "cat/more/1.jpg"."""
    return [file.relative_to(root).as_posix() for file in files]
