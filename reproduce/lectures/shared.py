"""What several of the lectures' pictures share: which images are looked at, their classes, and what a unit saw of them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Subset

import zfnet
from reproduce.core.figure import SAMPLES
from zfnet.receptive_field import cut

FEW = 60  # images, with fewer of which nothing is said of a population


def spread(ctx, count: int) -> np.ndarray:
    """The numbers of at most `count` images, spread evenly over the corpus, and so over its classes."""
    return np.linspace(0, len(ctx.images) - 1, min(len(ctx.images), count)).round().astype(int)


def subset(ctx, chosen: np.ndarray) -> Subset:
    return Subset(ctx.images, chosen.tolist())


def classes(ctx, chosen: np.ndarray) -> np.ndarray:
    """The images' classes; of the sample photographs, which have none, the photograph that each is a crop of."""
    if ctx.corpus != SAMPLES:
        return ctx.images.labels[chosen]
    return np.unique([ctx.images.names[i].split("@")[0] for i in chosen], return_inverse=True)[1]


def groups(ctx, chosen: np.ndarray) -> np.ndarray | None:
    """Which of the images are crops of one photograph, if any."""
    return None if ctx.images.groups is None else ctx.images.groups[chosen]


def patches(ctx, layer: str, index: np.ndarray, position: torch.Tensor) -> np.ndarray:
    """What units of a layer at position (M, 2) see of images index (M,): (M, 3, R, R); at the border, what lies inside."""
    x = ctx.images.batch(index)
    field = zfnet.trace(ctx.model, x[:1].to(ctx.device), until=layer).receptive_field(layer)
    corner = (field.offset + field.stride * position).clamp(0, x.shape[-1] - field.size)
    return cut(x, corner, field.size).numpy()


def surest(ctx, wnids: Sequence[str]) -> dict[str, torch.Tensor]:
    """Of each class that is there, the image of the corpus (1, 3, H, W) whose class is most probable, by the class's name."""
    found = {}
    for wnid in wnids:
        target = ctx.model.wnids.index(wnid) if wnid in ctx.model.wnids else -1
        rows = np.flatnonzero(ctx.images.labels == target) if target >= 0 else []
        if len(rows):
            x = ctx.images.batch(rows).to(ctx.device)
            best = ctx.model(x).softmax(1)[:, target].argmax()
            found[ctx.model.classes[target]] = x[best : best + 1]
    return found
