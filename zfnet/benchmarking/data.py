"""The images of a benchmark: drawn scenes, a tree of class folders, or any Dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zfnet.benchmarking.boxes import load_boxed
from zfnet.benchmarking.shortcut import load_shortcut_scenes
from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.data.folders import load_folder
from zfnet.data.images import center_crop
from zfnet.data.io import expand_path
from zfnet.data.scenes import load_scenes
from zfnet.forward import logits_of
from zfnet.model import device_of, evaluating

TARGETS = ("auto", "label", "predicted")
DRAWN = ("scenes", "shortcut", "shortcut-object")
SPARE = 2  # scenes drawn per scene used, if only correctly classified ones are used


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen images of a benchmark, and the class to explain of each.

    Attributes:
        name: The name of the data in tables.
        read: Returns the images (M, C, H, W) and masks (M, H, W), or None, of some indices.
        indices: (n,) the chosen images.
        target: (n,) the class to explain of each.
        has_masks: Whether the data marks objects.
        candidates: The number of images from which they were chosen.
        explained: Which class is explained, "label" or "predicted".
    """

    name: str
    read: Callable[[np.ndarray], tuple[Tensor, Tensor | None]]
    indices: np.ndarray
    target: Tensor
    has_masks: bool
    candidates: int
    explained: str


def select_images(
    model: nn.Module,
    data: Any,
    *,
    limit: int,
    target: str,
    correct_only: bool,
    batch: int,
    seed: int,
    boxes: str | Path | None = None,
    progress: Callable = no_progress,
) -> Selection:
    """Choose the images of a benchmark. The arguments are those of `benchmark`.

    Raises:
        ValueError: If `target` is unknown, a label is not an output of the network, or no image is
            left.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be 'auto', 'label' or 'predicted', got {target!r}")
    name, dataset = load_data(model, data, limit * (SPARE if correct_only else 1), boxes)
    if target == "auto":
        drawn = isinstance(data, str) and data in DRAWN
        target = "predicted" if drawn and not _has_classes(model, dataset) else "label"
    if isinstance(dataset, Images) and (target == "label" or correct_only):
        dataset = _aligned(model, dataset)
    count = len(dataset)
    if not count:
        raise ValueError(f"{name}: no images")
    order = np.arange(count)
    if limit < count:
        order = np.random.default_rng(seed).permutation(count)
    order = order if correct_only else np.sort(order[:limit])
    chosen, classes = [], []
    looked = 0
    for part in progress(np.array_split(order, -(-len(order) // batch)), desc="choosing images"):
        x, labels, _ = read_items(dataset, part)
        logits = _logits(model, x)
        predicted = logits.argmax(1).cpu()
        if target == "label":
            _check_labels(labels, part, logits.shape[1])
        wanted = predicted if target == "predicted" else labels
        keep = predicted == labels if correct_only else torch.ones_like(labels, dtype=torch.bool)
        chosen.append(part[keep.numpy()])
        classes.append(wanted[keep])
        looked += len(part)
        if sum(map(len, chosen)) >= limit:
            break
    indices, classes = np.concatenate(chosen)[:limit], torch.cat(classes)[:limit]
    if not len(indices):
        raise ValueError(f"{name}: no image is left; the network classifies none correctly")
    has_masks = read_items(dataset, indices[:1])[2] is not None

    def read(rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        x, _, masks = read_items(dataset, rows)
        return x, masks

    return Selection(name, read, indices, classes, has_masks, looked, target)


def load_data(
    model: nn.Module, data: Any, count: int, boxes: str | Path | None = None
) -> tuple[str, Any]:
    """Return the name of the data, and a Dataset.

    Args:
        model: The network, whose `size` is the side of drawn or decoded images.
        data: A name in `DRAWN`, the path of a tree, or a Dataset.
        count: The number of scenes to draw.
        boxes: For a tree, a table of `load_boxed`.
    """
    size = int(getattr(model, "size", 224))
    side = round(size * 256 / 224)
    if boxes is not None and (data in DRAWN or not isinstance(data, (str, Path))):
        raise ValueError(f"boxes are for a folder of images, not for {data}")
    if isinstance(data, str) and data in DRAWN:
        if data == "scenes":
            return data, load_scenes(count, seed=1, size=size, side=side)
        mask = "object" if data == "shortcut-object" else "tag"
        drawn = load_shortcut_scenes(count, seed=4, size=size, side=side, plausible=True, mask=mask)
        return data, drawn
    if isinstance(data, (str, Path)):
        if boxes is not None:
            name = f"{Path(data).name} with {Path(boxes).name}"
            return name, load_boxed(data, boxes, size=size, side=side)
        root = expand_path(data)
        root = root / "val" if (root / "val").is_dir() else root
        return Path(data).name, load_folder(root, size=size, side=side)
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise ValueError(
            f"data must be one of {', '.join(DRAWN)}, a folder, or a Dataset of "
            f"(x, label[, mask]), got {type(data).__name__}"
        )
    return type(data).__name__, data


def read_items(
    dataset: Any, indices: Sequence[int] | np.ndarray
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images (M, C, H, W), labels (M,) and masks (M, H, W) bool or None.

    Raises:
        ValueError: If an item is not (x, label) or (x, label, mask), or shapes do not fit.
    """
    if isinstance(dataset, Images):
        x, masks = dataset.batch(indices), None
        if dataset.masks is not None:
            masks = torch.from_numpy(np.asarray(dataset.masks[np.asarray(indices)]))
            masks = center_crop(masks, dataset.size)
        return x, torch.from_numpy(dataset.labels[np.asarray(indices)]), masks
    items = [dataset[int(i)] for i in indices]
    for i, item in zip(indices, items, strict=True):
        if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
            raise ValueError(f"item {int(i)} must be (x, label) or (x, label, mask)")
    if len({len(item) for item in items}) > 1:
        raise ValueError("some items have a mask and some have none; give all or none a mask")
    tensors = [torch.as_tensor(item[0]) for item in items]
    if len(shapes := {tuple(x.shape) for x in tensors}) > 1:
        raise ValueError(f"all images must have one shape, got {sorted(shapes)}")
    x = torch.stack(tensors)
    for i, image in zip(indices, x, strict=True):
        if not image.isfinite().all():
            raise ValueError(f"image {int(i)} has values that are not finite")
    try:
        labels = torch.tensor([int(item[1]) for item in items])
    except (TypeError, ValueError):
        raise ValueError(f"labels must be class numbers, got {items[0][1]!r}") from None
    if len(items[0]) == 2:
        return x, labels, None
    masks = torch.stack([torch.as_tensor(item[2]).squeeze() for item in items]) > 0
    if masks.shape != (len(x), *x.shape[2:]):
        raise ValueError(f"masks {tuple(masks.shape)} do not fit images {tuple(x.shape)}")
    return x, labels, masks


def _has_classes(model: nn.Module, images: Images) -> bool:
    """Return whether a network without class names, or with the images' own, has their classes."""
    wnids = getattr(model, "wnids", None)
    if wnids is not None:
        return set(images.wnids) <= set(wnids)
    return _logits(model, images.batch([0])).shape[1] == len(images.wnids)


def _aligned(model: nn.Module, images: Images) -> Images:
    """Label images by the network's outputs, where both name their classes."""
    wnids = getattr(model, "wnids", None)
    if wnids is None or list(wnids) == list(images.wnids):
        return images
    return images.aligned(list(wnids), list(getattr(model, "classes", wnids)))  # pyright: ignore[reportArgumentType]


def _check_labels(labels: Tensor, indices: np.ndarray, classes: int) -> None:
    """Raise ValueError unless every label is an output of the network."""
    wrong = ((labels < 0) | (labels >= classes)).nonzero()[:, 0].tolist()
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"image {int(indices[first])} has label {int(labels[first])}, but the network's "
            f"outputs are 0 to {classes - 1}; relabel the data, or use target='predicted'"
        )


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor) -> Tensor:
    with evaluating(model):
        return logits_of(model, x.to(device_of(model)))
