"""The annotated images of a label, and the halves of their classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LabeledImages(NamedTuple):
    """The annotated images that are used for one label.

    Attributes:
        index: Their rows among all annotated images (N,).
        positive: Whether the label applies (N,) bool.
        class_of: Their classes (N,).
        first: Whether each image is in the first half of the classes (N,).
        smallest_group: The size of the smallest group, of images or of classes, that is compared.
    """

    index: np.ndarray
    positive: np.ndarray
    class_of: np.ndarray
    first: np.ndarray
    smallest_group: int


def labeled_images(names: list[str], marks: list[dict], label: str) -> LabeledImages:
    """The annotated images, by name "class/file", that are used for a label."""
    index = np.array([i for i, mark in enumerate(marks) if counts(mark, label)], dtype=int)
    positive = np.array([marks[i][label] for i in index], dtype=bool)
    folders = [names[i].split("/")[0] for i in index]
    classes, class_of = np.unique(folders, return_inverse=True)
    first = first_half(class_of, positive)
    groups = np.bincount(2 * positive + first, minlength=4)
    return LabeledImages(index, positive, class_of, first, min(groups.min(), len(classes) // 2))


def counts(mark: dict, label: str) -> bool:
    """Whether an image is used for a label. Images with a face are not used for text."""
    return label in mark and (label != "text" or mark.get("face") is False)


def first_half(class_of: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Split the classes in two halves: every other class, sorted by its share of positives.

    Args:
        class_of: Class of each image (N,).
        positive: Labels (N,).

    Returns:
        Whether each image is in the first half (N,).
    """
    share = np.bincount(class_of, positive) / np.bincount(class_of)
    return np.isin(class_of, np.argsort(share, kind="stable")[::2])
