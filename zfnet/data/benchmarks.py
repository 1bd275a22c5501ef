"""The data sets of the paper's section 5, where torchvision keeps them: Caltech-101, Caltech-256 and PASCAL VOC 2012.

`root` is what one gives torchvision's data sets: it holds `caltech101/`, `caltech256/` and `VOCdevkit/`. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from zfnet.data import silent
from zfnet.data.cache import DataError, Images, digest
from zfnet.data.folders import load_files

CALTECH256_CLUTTER = "257.clutter"  # no class: images of anything
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def load_caltech101(root: str | Path, *, side: int = 256, size: int = 224, progress: Callable = silent) -> Images:
    """Caltech-101 (Fei-Fei et al. 2004): 8,677 images of 101 classes; the 467 of BACKGROUND_Google are left out.

    Files lie in `root/caltech101/101_ObjectCategories`. Items as those of `load_folder`. Raises Absent, DataError.
    """
    from torchvision.datasets import Caltech101

    found = _opened(Caltech101, root, "caltech101/101_ObjectCategories")
    folder = Path(found.root) / "101_ObjectCategories"
    files = [folder / found.categories[y] / f"image_{i:04d}.jpg" for y, i in zip(found.y, found.index, strict=True)]
    labels, names = np.array(found.y, dtype=np.int64), found.categories
    return load_files(folder, files, labels, names, names, side=side, size=size, progress=progress)


def load_caltech256(root: str | Path, *, side: int = 256, size: int = 224, progress: Callable = silent) -> Images:
    """Caltech-256 (Griffin et al. 2007): 29,780 images of 256 classes; the 827 of clutter are left out.

    Files lie in `root/caltech256/256_ObjectCategories`. Items as those of `load_folder`. Raises Absent, DataError.
    """
    from torchvision.datasets import Caltech256

    found = _opened(Caltech256, root, "caltech256/256_ObjectCategories")
    folder = Path(found.root) / "256_ObjectCategories"
    names = [name for name in found.categories if name != CALTECH256_CLUTTER]
    kept = [(y, i) for y, i in zip(found.y, found.index, strict=True) if found.categories[y] in names]
    files = [folder / found.categories[y] / f"{y + 1:03d}_{i:04d}.jpg" for y, i in kept]
    labels = np.array([names.index(found.categories[y]) for y, _ in kept], dtype=np.int64)
    return load_files(folder, files, labels, names, names, side=side, size=size, progress=progress)


class Absent(DataError):
    """A data set that is not there. The message says where its files belong."""


@dataclass(frozen=True, eq=False)
class ManyLabels:
    """Images that may each show several classes: `present` (N, classes) int8.

    1 where an object of the class is annotated, 0 where none is, and -1 where all of them are marked difficult, which counts
    as neither. `digest` identifies both.
    """

    images: Images
    present: np.ndarray
    digest: str


def load_voc2012(root: str | Path, split: str, *, side: int = 256, size: int = 224, progress: Callable = silent) -> ManyLabels:
    """The classification task of PASCAL VOC 2012: a split ("train", "val" or "trainval") of `root/VOCdevkit/VOC2012`.

    An image's own label is -1. Raises Absent, DataError.
    """
    from torchvision.datasets import VOCDetection

    found = _opened(VOCDetection, root, "VOCdevkit/VOC2012", year="2012", image_set=split)
    present = np.zeros((len(found.images), len(VOC_CLASSES)), dtype=np.int8)
    for row, path in zip(present, found.annotations, strict=True):
        try:
            for thing in ElementTree.parse(path).getroot().iter("object"):
                place = VOC_CLASSES.index(thing.findtext("name", ""))
                easy = thing.findtext("difficult", "0").strip() != "1"
                row[place] = 1 if easy or row[place] == 1 else -1
        except (ElementTree.ParseError, OSError, ValueError) as error:
            raise DataError(f"{path}: no annotation as PASCAL VOC writes it ({error})") from None
    folder, files = Path(root) / "VOCdevkit" / "VOC2012", [Path(path) for path in found.images]
    labels = np.full(len(files), -1, dtype=np.int64)
    images = load_files(folder, files, labels, VOC_CLASSES, VOC_CLASSES, side=side, size=size, progress=progress)
    return ManyLabels(images, present, digest(images.digest, present.tolist()))


def _opened(kind: type, root: str | Path, where: str, **options):
    """torchvision's data set, or Absent or DataError, saying where its files belong."""
    folder = Path(root) / where
    if not folder.is_dir():  # torchvision would make it
        raise Absent(f"{root}: no {kind.__name__} there; its files belong in {folder}")
    try:
        return kind(str(root), **options)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{folder}: not {kind.__name__} as torchvision keeps it ({error})") from None
