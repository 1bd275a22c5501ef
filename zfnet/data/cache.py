"""Decoded once, kept as uint8: the one form in which images reach the trainer, the search and the figures."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zfnet.data.images import centre_crop, standardise

try:
    import fcntl
except ImportError:  # not on Windows, where each process then decodes for itself
    fcntl = None


ABANDONED = 24 * 3600.0  # seconds without a change after which a partial file has no writer


class DataError(ValueError):
    """Data that cannot be used. The message names the folder or the files and says what to do."""


def cache_dir() -> Path:
    """The folder for decoded images: $ZFNET_CACHE, else zfnet under $XDG_CACHE_HOME, ~/.cache, or the temporary folder.

    Raises DataError where none of them can be written.
    """
    asked, caches = os.environ.get("ZFNET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    choices = [Path(asked)] if asked else [Path(tempfile.gettempdir()) / "zfnet"]
    if not asked:
        with contextlib.suppress(RuntimeError):  # in containers a user may have no home
            choices.insert(0, Path(caches or Path.home() / ".cache") / "zfnet")
    for folder in choices:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise DataError(f"no folder for decoded images can be written ({', '.join(map(str, choices))}); set ZFNET_CACHE to one")


@dataclass(frozen=True, eq=False)
class Images(Dataset):
    """Decoded images with their labels; also a torch Dataset of (preprocessed (3, size, size) tensor, label).

    `pixels` (rows, side, side, 3) uint8, perhaps mapped from disk, of which image i is row `rows[i]`; `labels` (N,) int64, -1
    where there is none; `classes` and `wnids` name the labels; `names` are the files relative to the tree's root; `digest`
    identifies the data. An item is the central size x size of its image, in the network's input convention: the same as
    `zfnet.preprocess` of its file. `groups` (N,) says which items come from one photograph; `masks` (N, side, side) bool mark
    the object of a drawn scene; `skipped` are unreadable files that were left out.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    wnids: Sequence[str]
    names: Sequence[str]
    digest: str
    size: int = 224
    rows: np.ndarray | None = None
    groups: np.ndarray | None = None
    masks: np.ndarray | None = None
    skipped: Sequence[str] = ()

    def __post_init__(self):
        if self.size > self.pixels.shape[1]:
            raise ValueError(f"items of {self.size} pixels cannot be cut from images kept at {self.pixels.shape[1]}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.batch([i])[0], int(self.labels[i])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        return list(zip(self.batch(indices), self.labels[np.asarray(indices)].tolist(), strict=True))

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Items as one input batch: (len(indices), 3, size, size) float32."""
        return standardise(centre_crop(self.raw(indices).permute(0, 3, 1, 2), self.size).contiguous())

    def raw(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Whole squares as kept: (len(indices), side, side, 3) uint8."""
        chosen = np.asarray(indices)
        return torch.from_numpy(self.pixels[chosen if self.rows is None else self.rows[chosen]])

    def subset(self, indices: Sequence[int] | np.ndarray) -> Images:
        """The items at `indices`, in that order; their digest says which of which data."""
        chosen = np.asarray(indices)
        rows = chosen if self.rows is None else self.rows[chosen]
        return replace(
            self, labels=self.labels[chosen], names=[self.names[i] for i in chosen], rows=rows,
            groups=None if self.groups is None else self.groups[chosen],
            masks=None if self.masks is None else self.masks[chosen], digest=digest(self.digest, *rows),
        )  # fmt: skip

    def aligned(self, wnids: Sequence[str], classes: Sequence[str]) -> Images:
        """The same images, labelled by a network's outputs: a folder maps to an output through its name, never its place.

        Raises DataError for folders that the network has no output for, naming them.
        """
        place = {wnid: i for i, wnid in enumerate(wnids)}
        missing = [wnid for wnid in self.wnids if wnid not in place]
        if missing:
            raise DataError(f"{len(missing)} class folders have no output in the network: {', '.join(missing[:10])}")
        table = np.array([place[w] for w in self.wnids], dtype=np.int64)
        labels = np.where(self.labels < 0, -1, table[self.labels])
        return replace(self, labels=labels, wnids=wnids, classes=classes)


def digest(*parts: object) -> str:
    """A sha256 over the text of the parts, for naming caches and recording what a result was made from."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(str(part).encode(errors="surrogateescape") + b"\0")  # names of files may hold any bytes
    return sha.hexdigest()


def mapped(
    name: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], dict], valid: Callable[[dict], bool] = lambda about: True
) -> tuple[np.ndarray, dict]:
    """A read-only uint8 array mapped from the cache, and what is to be remembered of it, a dict that JSON can hold.

    The first time, and where the files are damaged or what is remembered is no longer `valid`, `fill(array)` fills it and
    returns the dict. Both files appear only when they are whole, the array last, so an interrupted decoding is never mistaken
    for data. Of several processes one decodes, and the others wait for it. Raises DataError where there is no room.
    """
    path = cache_dir() / f"{name}.npy"
    about = path.with_suffix(".json")

    def there() -> tuple[np.ndarray, dict] | None:
        try:
            array, remembered = np.load(path, mmap_mode="r"), json.loads(about.read_text())
        except (OSError, ValueError, EOFError):
            return None
        return (array, remembered) if array.shape == shape and isinstance(remembered, dict) and valid(remembered) else None

    if found := there():
        return found
    with locked(path.with_suffix(".lock")):
        if found := there():
            return found
        with whole(path, abandoned=0 if fcntl else ABANDONED) as partial:  # what is there now is of one that was killed
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            _reserve(partial)
            remembered = fill(array)
            array.flush()
            del array
            with whole(about) as text:
                text.write_text(json.dumps(remembered))
    return np.load(path, mmap_mode="r"), remembered


def _reserve(path: Path) -> None:
    """Take the room that a sparse file will need now: writing to a mapping on a full disk kills the process."""
    size = path.stat().st_size
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise DataError(f"{path.parent}: no room for {size / 2**30:.1f} GiB of decoded images ({error.strerror})") from None


@contextlib.contextmanager
def whole(path: Path, abandoned: float = ABANDONED) -> Iterator[Path]:
    """A file beside `path` to be written, which takes its place at the end if nothing was raised: readers meet no part of it.

    Each writer has its own, so that several may write at once: the last one stays. What killed writers left is removed, once it
    has not changed for `abandoned` seconds. A link stays, and what it points to is replaced. Raises FileExistsError where
    there is something that is no file, such as a device.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is there, and is no file that could be replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime >= abandoned:
                left.unlink()
    partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file against other processes, once none holds it; the system lets go of it when this process dies.

    Raises BlockingIOError where another process holds it, unless `wait`. Without fcntl, as on Windows, there is no lock.
    """
    if fcntl is None:
        yield
        return
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if not _is(path, file.fileno()):  # the one before removed it: another process may hold a new one
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
