"""Read batches of images from a data set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset


def collate(items: Sequence) -> Tensor:
    """Stack the images of items, tensors or (tensor, label), into a batch. Raises ValueError."""
    images = [item[0] if isinstance(item, (list, tuple)) else item for item in items]
    for image in images:
        if not isinstance(image, Tensor):
            raise ValueError(
                f"items must be tensors (3, H, W) or (tensor, label), got {type(image).__name__}"
            )
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise ValueError(f"items of several sizes: {', '.join(map(str, sorted(shapes)))}")
    return torch.stack(images)


def read_images(
    dataset: Dataset, indices: list[int], device: torch.device, like: Tensor | None = None
) -> Tensor:
    """Read items as one batch (M, 3, H, W). Raises ValueError for items of several sizes."""
    read_many = getattr(
        dataset, "__getitems__", None
    )  # PyTorch's way to read several items at once
    x = collate(read_many(indices) if read_many else [dataset[i] for i in indices])
    if like is not None and x.shape[1:] != like.shape[1:]:
        raise ValueError(f"items of several sizes: {tuple(like.shape[1:])}, {tuple(x.shape[1:])}")
    return x.to(device)
