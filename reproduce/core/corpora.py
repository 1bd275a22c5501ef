"""Images for figures: the corpus of `--data`, and the data sets of `--datasets`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from reproduce.core.digits import Digits
from reproduce.core.figure import SAMPLES
from zfnet.data.benchmarks import load_caltech101, load_caltech256, load_voc2012
from zfnet.data.cache import DataError, cache_dir, digest
from zfnet.data.tree import scan

# Data sets that a figure may declare as inputs: (torchvision's folder, progress) -> images.
DATASETS: dict[str, Callable] = {
    "caltech101": lambda root, progress: load_caltech101(root, progress=progress),
    "caltech256": lambda root, progress: load_caltech256(root, progress=progress),
    "voc2012 train": lambda root, progress: load_voc2012(root, "train", progress=progress),
    "voc2012 val": lambda root, progress: load_voc2012(root, "val", progress=progress),
    "digits": lambda root, progress: Digits.load(root),  # with the network of configs/mnist.yaml
}


def corpus_name(data: str) -> str:
    """The name of a tree of images: its folder's, or that of the parent of a folder `val`."""
    path = Path(data).expanduser().resolve()
    name = (path.parent if path.name == "val" else path).name.lower()
    return f"{name}-folder" if name == SAMPLES else name


def images_root(data: str) -> Path:
    """The folder of the images to analyze: `val/` of a tree that has one, else the tree itself."""
    root = imagenette() if data == "imagenette" else Path(data).expanduser()
    return root / "val" if (root / "val").is_dir() else root


def imagenette() -> Path:
    """Imagenette's validation images; torchvision downloads them into the cache the first time."""
    from torchvision.datasets import Imagenette

    root = cache_dir() / "imagenette"
    if not root.is_dir():
        partial = cache_dir() / f"imagenette-{os.getpid()}.partial"  # renamed when complete
        partial.mkdir()
        try:
            Imagenette(str(partial), split="val", size="320px", download=True)
            os.replace(partial, root)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"could not download Imagenette ({error}); give a folder of images with --data"
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return root / "imagenette2-320"


def tree_digest(tree: Path) -> str:
    """A hash of the names and sizes of a tree's files.

    A figure that trains decodes only the images that it needs, so pixels are not hashed.
    """
    files = [file for split in ("train", "val") for file in scan(tree / split)[1]]
    return digest(*((file.relative_to(tree), file.stat().st_size) for file in files))
