"""The datasets of the paper's section 5: Caltech-101, Caltech-256 and PASCAL VOC 2012.

`root` has torchvision's layout: `caltech101/`, `caltech256/` and `VOCdevkit/`. Nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from zfnet.data import no_progress
from zfnet.data.cache import DataError, digest
from zfnet.data.dataset import Images
from zfnet.data.folders import load_files
from zfnet.data.io import expand_path

CALTECH256_CLUTTER = "257.clutter"  # not a class: arbitrary images
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


class DatasetNotFoundError(DataError):
    """The folder of a data set is missing. The message says where its files are expected."""


def load_caltech101(
    root: str | Path, *, side: int = 256, size: int = 224, progress: Callable = no_progress
) -> Images:
    """Load Caltech-101 (Fei-Fei et al. 2004): 8,677 images of 101 classes.

    The 467 images of BACKGROUND_Google are left out.

    Args:
        root: The folder that contains `caltech101/101_ObjectCategories`.
        side: Side in pixels of the decoded squares.
        size: Side in pixels of an item's central crop.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images with their labels, preprocessed as by `load_folder`.

    Raises:
        DatasetNotFoundError: The folder is missing.
        DataError: Its files do not have torchvision's layout, or are unreadable.

    Example:
        >>> load_caltech101("datasets")  # doctest: +SKIP
    """
    from torchvision.datasets import Caltech101

    dataset = _open_dataset(Caltech101, root, "caltech101/101_ObjectCategories")
    folder = Path(dataset.root) / "101_ObjectCategories"
    names = dataset.categories
    items = zip(dataset.y, dataset.index, strict=True)
    files = [folder / names[y] / f"image_{i:04d}.jpg" for y, i in items]
    labels = np.array(dataset.y, dtype=np.int64)
    return load_files(folder, files, labels, names, names, side=side, size=size, progress=progress)


def load_caltech256(
    root: str | Path, *, side: int = 256, size: int = 224, progress: Callable = no_progress
) -> Images:
    """Load Caltech-256 (Griffin et al. 2007): 29,780 images of 256 classes.

    The 827 images of its clutter folder are left out.

    Args:
        root: The folder that contains `caltech256/256_ObjectCategories`.
        side: Side in pixels of the decoded squares.
        size: Side in pixels of an item's central crop.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images with their labels, preprocessed as by `load_folder`.

    Raises:
        DatasetNotFoundError: The folder is missing.
        DataError: Its files do not have torchvision's layout, or are unreadable.

    Example:
        >>> load_caltech256("datasets")  # doctest: +SKIP
    """
    from torchvision.datasets import Caltech256

    dataset = _open_dataset(Caltech256, root, "caltech256/256_ObjectCategories")
    folder = Path(dataset.root) / "256_ObjectCategories"
    categories = dataset.categories
    names = [name for name in categories if name != CALTECH256_CLUTTER]
    items = zip(dataset.y, dataset.index, strict=True)
    items = [(y, i) for y, i in items if categories[y] in names]
    files = [folder / categories[y] / f"{y + 1:03d}_{i:04d}.jpg" for y, i in items]
    labels = np.array([names.index(categories[y]) for y, _ in items], dtype=np.int64)
    return load_files(folder, files, labels, names, names, side=side, size=size, progress=progress)


@dataclass(frozen=True, eq=False)
class MultiLabelImages:
    """Images that may each show several classes.

    Attributes:
        images: The images, with labels of -1.
        present: (N, classes) int8: 1 if an object of the class is annotated, 0 if none is, and -1
            if all of them are marked difficult.
        digest: A hash of the images and of `present`.
    """

    images: Images
    present: np.ndarray
    digest: str


def load_voc2012(
    root: str | Path,
    split: str,
    *,
    side: int = 256,
    size: int = 224,
    progress: Callable = no_progress,
) -> MultiLabelImages:
    """Load PASCAL VOC 2012 for multi-label classification.

    Args:
        root: The folder that contains `VOCdevkit/VOC2012`.
        split: "train", "val" or "trainval".
        side: Side in pixels of the decoded squares.
        size: Side in pixels of an item's central crop.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images, and the classes that are present in each one.

    Raises:
        DatasetNotFoundError: The folder is missing.
        DataError: Its files do not have torchvision's layout, or are unreadable.

    Example:
        >>> load_voc2012("datasets", "val").present.shape  # doctest: +SKIP
        (5823, 20)
    """
    from torchvision.datasets import VOCDetection

    dataset = _open_dataset(VOCDetection, root, "VOCdevkit/VOC2012", year="2012", image_set=split)
    present = np.zeros((len(dataset.images), len(VOC_CLASSES)), dtype=np.int8)
    for row, path in zip(present, dataset.annotations, strict=True):
        try:
            for element in ElementTree.parse(path).getroot().iter("object"):
                label = VOC_CLASSES.index(element.findtext("name", ""))
                easy = element.findtext("difficult", "0").strip() != "1"
                row[label] = 1 if easy or row[label] == 1 else -1
        except (ElementTree.ParseError, OSError, ValueError) as error:
            raise DataError(f"{path}: not a PASCAL VOC annotation ({error})") from None
    folder, files = (
        expand_path(root) / "VOCdevkit" / "VOC2012",
        [Path(path) for path in dataset.images],
    )
    labels = np.full(len(files), -1, dtype=np.int64)
    images = load_files(
        folder, files, labels, VOC_CLASSES, VOC_CLASSES, side=side, size=size, progress=progress
    )
    return MultiLabelImages(images, present, digest(images.digest, present.tolist()))


def _open_dataset(kind: type, root: str | Path, subfolder: str, **options):
    """Open torchvision's dataset, and turn its errors into DataError."""
    root = expand_path(root)
    folder = root / subfolder
    if not folder.is_dir():  # torchvision would create it
        raise DatasetNotFoundError(
            f"{root}: {kind.__name__} not found; its files are expected in {folder}"
        )
    try:
        return kind(str(root), **options)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"{folder}: not torchvision's layout of {kind.__name__} ({error})"
        ) from None
