"""A cache of arrays on disk, and the hashes that name its entries."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs

from zfnet.data.io import atomic_write, encode_name, expand_path, file_lock


class DataError(ValueError):
    """Data cannot be used. The message names the folder or files and says what to do."""


def cache_dir() -> Path:
    """Return the cache folder, and create it if necessary.

    The folder is `$ZFNET_CACHE`; else the user's cache folder of this system (on Linux
    `$XDG_CACHE_HOME/zfnet` or `~/.cache/zfnet`); else `zfnet` in the temporary folder.

    Returns:
        The folder.

    Raises:
        DataError: None of these folders can be written.

    Example:
        >>> cache_dir().is_dir()
        True
    """
    candidates = [Path(tempfile.gettempdir()) / "zfnet"]
    if variable := os.environ.get("ZFNET_CACHE"):
        candidates = [expand_path(variable)]
    else:
        # Without a home folder, as in containers, platformdirs raises or returns "~/.cache".
        with contextlib.suppress(RuntimeError):
            user_folder = expand_path(platformdirs.user_cache_path("zfnet", appauthor=False))
            if user_folder.parts[0] != "~":
                candidates.insert(0, user_folder)
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise DataError(
        f"no cache folder is writable ({', '.join(map(str, candidates))}); "
        f"set ZFNET_CACHE to a writable folder"
    )


def digest(*parts: object) -> str:
    """Hash the text of objects, to name cache entries and to identify data.

    Args:
        parts: Objects, hashed by `str`.

    Returns:
        A sha256 in hexadecimal digits.

    Example:
        >>> digest("folder", 1) == digest("folder", "1")
        True
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(encode_name(str(part)) + b"\0")
    return sha.hexdigest()


def cached_array(
    name: str,
    shape: tuple[int, ...],
    fill: Callable[[np.ndarray], dict],
    valid: Callable[[dict], bool] = lambda metadata: True,
) -> tuple[np.ndarray, dict]:
    """Memory-map a uint8 array from the cache; compute it first if it is missing.

    The array and its metadata are written atomically, the array last, so that an interrupted
    run leaves no incomplete entry. One process computes while the others wait.

    Args:
        name: The entry's file name in the cache, without a suffix.
        shape: The array's shape.
        fill: Fills an array of that shape in place, and returns metadata that JSON can store.
        valid: Tells whether cached metadata is still valid; if not, the entry is computed again.

    Returns:
        The read-only array of shape `shape`, mapped from disk, and its metadata.

    Raises:
        DataError: The disk has no space for the array.

    Example:
        >>> def fill(array):
        ...     array[:] = 7
        ...     return {"value": 7}
        >>> array, metadata = cached_array("doctest-sevens", (2, 3), fill)
        >>> array.tolist(), metadata
        ([[7, 7, 7], [7, 7, 7]], {'value': 7})
    """
    path = cache_dir() / f"{name}.npy"
    metadata_path = path.with_suffix(".json")

    def read() -> tuple[np.ndarray, dict] | None:
        try:
            array = np.load(path, mmap_mode="r")
            metadata = json.loads(metadata_path.read_text())
        except (OSError, ValueError, EOFError):
            return None
        complete = array.shape == shape and isinstance(metadata, dict)
        return (array, metadata) if complete and valid(metadata) else None

    if entry := read():
        return entry
    with file_lock(path.with_suffix(".lock")):
        if entry := read():
            return entry
        # The lock is held, so any partial file left here belongs to a killed process.
        with atomic_write(path, stale_after=0) as partial:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            _reserve_space(partial)
            metadata = fill(array)
            array.flush()
            del array
            with atomic_write(metadata_path) as text:
                text.write_text(json.dumps(metadata))
    return np.load(path, mmap_mode="r"), metadata


def _reserve_space(path: Path) -> None:
    """Allocate a sparse file's blocks. Writing to a mapping on a full disk kills the process."""
    size = path.stat().st_size
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise DataError(
            f"{path.parent}: no space for {size / 2**30:.1f} GiB of decoded images "
            f"({error.strerror}); free some, or set ZFNET_CACHE to another folder"
        ) from None
