"""Choose images of a corpus for a figure, with their classes and patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Subset

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Result
from zfnet.receptive_field import cut

MIN_IMAGES = 60  # fewer images are too few for a claim about a population


def spread_indices(ctx: Context, count: int) -> np.ndarray:
    """The indices of at most `count` images, evenly spread over the corpus and so its classes."""
    total = len(ctx.images)
    return np.linspace(0, total - 1, min(total, count)).round().astype(int)


def too_few_images(count: int) -> Result:
    """The result of a figure whose corpus has too few images."""
    note = f"The corpus has fewer than {MIN_IMAGES} images."
    return Result({}, {}, "not run", n=count, note=note)


def subset(ctx: Context, chosen: np.ndarray) -> Subset:
    """The chosen images as a dataset."""
    return Subset(ctx.images, chosen.tolist())  # pyright: ignore[reportArgumentType]


def image_classes(ctx: Context, chosen: np.ndarray) -> np.ndarray:
    """The class of each image. The class of a sample crop is its photograph."""
    if ctx.corpus != SAMPLES:
        return ctx.images.labels[chosen]
    names = [str(ctx.images.names[i]).split("@")[0] for i in chosen]
    return np.unique(names, return_inverse=True)[1]


def photograph_groups(ctx: Context, chosen: np.ndarray) -> np.ndarray | None:
    """Which images are crops of the same photograph; None for a corpus without crops."""
    return None if ctx.images.groups is None else ctx.images.groups[chosen]


def unit_patches(ctx: Context, layer: str, index: np.ndarray, position: torch.Tensor) -> np.ndarray:
    """The patches in the receptive fields of units.

    Args:
        ctx: The network and the corpus.
        layer: The layer of the units.
        index: The image of each unit (M,).
        position: Its (row, column) in the map (M, 2).

    Returns:
        Network inputs (M, 3, R, R). At the border, the nearest patch inside the image.
    """
    x = ctx.images.batch(index)
    field = zfnet.trace(ctx.model, x[:1].to(ctx.device), until=layer).receptive_field(layer)
    corner = (field.offset + field.stride * position).clamp(0, x.shape[-1] - field.size)
    return cut(x, corner, field.size).numpy()


def most_probable_images(ctx: Context, wnids: Sequence[str]) -> dict[str, torch.Tensor]:
    """The image of each class with the highest probability of that class.

    Args:
        ctx: The network and the corpus.
        wnids: WordNet ids. Classes that the network or the corpus lacks are left out.

    Returns:
        Images (1, 3, H, W) by class name.
    """
    images = {}
    for wnid in wnids:
        target = ctx.model.wnids.index(wnid) if wnid in ctx.model.wnids else -1
        rows = np.flatnonzero(ctx.images.labels == target) if target >= 0 else []
        if len(rows):
            x = ctx.images.batch(rows).to(ctx.device)
            best = ctx.model(x).softmax(1)[:, target].argmax()
            images[ctx.model.classes[target]] = x[best : best + 1]
    return images
