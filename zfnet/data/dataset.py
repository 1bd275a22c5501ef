"""Decoded images with labels, as a torch data set."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zfnet.data.cache import DataError, digest
from zfnet.data.images import center_crop, standardize


@dataclass(frozen=True, eq=False)
class Images(Dataset):
    """Decoded images with labels; a torch Dataset of (preprocessed image, label).

    An item is the central crop of its image, (3, size, size) float32 in the network's input
    convention. It equals `zfnet.preprocess` of the image's file.

    Attributes:
        pixels: (rows, side, side, 3) uint8, possibly mapped from disk.
        labels: (N,) int64; -1 marks an image without a label.
        classes: The labels' names.
        wnids: The labels' WordNet ids or folder names.
        names: The N files, relative to the root of their tree.
        digest: A hash that identifies the data.
        size: Side of an item's crop in pixels.
        rows: (N,) the row of `pixels` of each image; None for 0 to N - 1.
        groups: (N,) equal for images from one photograph, or None.
        masks: (N, side, side) bool, the objects of drawn scenes, or None.
        skipped: The other files of the tree: unreadable ones, and those that are not images.

    Raises:
        ValueError: `size` is larger than the side of `pixels`.

    Example:
        >>> pixels = np.zeros((2, 8, 8, 3), dtype=np.uint8)
        >>> images = Images(pixels, np.array([0, 1]), "ab", "ab", ["0", "1"], "", size=6)
        >>> len(images), images[1][0].shape, images[1][1]
        (2, torch.Size([3, 6, 6]), 1)
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
            raise ValueError(
                f"a crop of {self.size} pixels is larger than the decoded images, "
                f"{self.pixels.shape[1]} x {self.pixels.shape[1]} pixels"
            )

    def __getstate__(self) -> dict:
        """Pickle the paths of mapped files, not their pixels: spawned workers map them again."""
        return {name: _MappedArray.of(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict) -> None:
        for name, value in state.items():
            opened = value.open() if isinstance(value, _MappedArray) else value
            object.__setattr__(self, name, opened)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.batch([i])[0], int(self.labels[i])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        return list(
            zip(self.batch(indices), self.labels[np.asarray(indices)].tolist(), strict=True)
        )

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return items as one input batch.

        Args:
            indices: The items' numbers.

        Returns:
            (len(indices), 3, size, size) float32.
        """
        pixels = self.raw(indices).permute(0, 3, 1, 2)  # (N, 3, side, side)
        return standardize(center_crop(pixels, self.size).contiguous())

    def raw(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return the decoded squares without cropping.

        Args:
            indices: The items' numbers.

        Returns:
            (len(indices), side, side, 3) uint8.
        """
        index = np.asarray(indices)
        return torch.from_numpy(self.pixels[index if self.rows is None else self.rows[index]])

    def subset(self, indices: Sequence[int] | np.ndarray) -> Images:
        """Select items.

        Args:
            indices: The numbers of the items.

        Returns:
            The items at `indices`, in that order, with a new digest.
        """
        index = np.asarray(indices)
        rows = index if self.rows is None else self.rows[index]
        return replace(
            self,
            labels=self.labels[index],
            names=[self.names[i] for i in index],
            rows=rows,
            groups=None if self.groups is None else self.groups[index],
            masks=None if self.masks is None else self.masks[index],
            digest=digest(self.digest, *rows),
        )

    def aligned(self, wnids: Sequence[str], classes: Sequence[str]) -> Images:
        """Relabel the images by a network's outputs.

        A folder maps to an output by its WordNet id, never by its sorted position.

        Args:
            wnids: The WordNet ids of the network's outputs.
            classes: The names of the network's outputs.

        Returns:
            The same images with new labels.

        Raises:
            DataError: The network has no output for some folders.
        """
        output = {wnid: i for i, wnid in enumerate(wnids)}
        missing = [wnid for wnid in self.wnids if wnid not in output]
        if missing:
            raise DataError(
                f"the network has no output for {len(missing)} class folders: "
                f"{', '.join(missing[:10])}"
            )
        table = np.array([output[wnid] for wnid in self.wnids], dtype=np.int64)
        labels = np.where(self.labels < 0, -1, table[self.labels])
        return replace(self, labels=labels, wnids=wnids, classes=classes)


@dataclass(frozen=True)
class _MappedArray:
    """The place of a read-only array, or of a view of one, in the file that it is mapped from."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return the place of a mapped array, and any other value as it is."""
        root = value
        while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
            root = root.base
        if not isinstance(root, np.memmap) or root.mode != "r":
            return value
        offset = root.offset + value.ctypes.data - root.ctypes.data
        return cls(str(root.filename), value.dtype, value.shape, offset, value.strides)

    def open(self) -> np.ndarray:
        """Map the array from its file again."""
        file = np.memmap(self.path, np.uint8, "r")
        return np.ndarray(self.shape, self.dtype, file, self.offset, self.strides)
