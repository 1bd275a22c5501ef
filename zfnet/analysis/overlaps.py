"""Near-duplicates between two sets of images, such as training and test images (section 5.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.analysis.attributes import LUMA
from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.data.images import center_crop

# Images are compared at these central crops, because data sets crop differently.
CROPS = (1.0, 15 / 16, 14 / 16)


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The most similar reference image of each of N images.

    Attributes:
        index: The numbers of the images above the threshold.
        other: The most similar reference image of each image (N,).
        correlation: Their correlation (N,), in [-1, 1].
    """

    index: np.ndarray
    other: np.ndarray
    correlation: np.ndarray


def find_overlaps(
    images: Images,
    others: Images,
    *,
    threshold: float = 0.85,
    side: int = 32,
    batch: int = 512,
    progress: Callable = no_progress,
) -> Overlaps:
    """Find images that are near-duplicates of a reference image, by local normalized correlation.

    Images are reduced to small gray squares. Each pixel is normalized by the mean and standard
    deviation of its 5 x 5 neighborhood; without this, thousands of photographs of a bright sky over
    dark ground would correlate. The outer sixth is ignored, because it may be a frame. Crops and
    mirror images are compared too.

    Args:
        images: N images.
        others: The reference images, such as a training set.
        threshold: The correlation above which two images are near-duplicates.
        side: The side of the gray squares, in pixels.
        batch: The number of images per step.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The near-duplicates, and the best match of every image.

    Example:
        >>> import zfnet
        >>> images = zfnet.load_scenes(4, size=56, side=64)
        >>> find_overlaps(images, images.subset([2])).index.tolist()
        [2]
    """
    views = [
        torch.cat(vectors)
        for crop in CROPS
        for vectors in zip(*_vectors(images, side, batch, crop), strict=True)
    ]  # two for each crop, (N, D)
    best, best_index = (
        torch.full((len(images),), -2.0, device="cpu"),
        torch.zeros(len(images), dtype=torch.int64, device="cpu"),
    )
    start = 0
    total = -(-len(others) // batch)
    references = _vectors(others, side, batch, 1.0)
    for reference, _ in progress(references, total=total, desc="comparing images"):
        for view in views:
            value, index = (view @ reference.T).max(1)
            better = value > best
            best[better], best_index[better] = value[better], index[better] + start
        start += len(reference)
    return Overlaps((best > threshold).nonzero()[:, 0].numpy(), best_index.numpy(), best.numpy())


def _vectors(images: Images, side: int, batch: int, crop: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield unit vectors (B, D) of the images' central crop, and of its mirror image."""
    edge = side // 6
    for index in np.array_split(np.arange(len(images)), -(-len(images) // batch)):
        gray = (images.raw(index).float() @ torch.tensor(LUMA, device="cpu"))[
            :, None
        ]  # (B, 1, S, S)
        gray = center_crop(gray, round(crop * gray.shape[-1]))
        gray = F.interpolate(gray, (side, side), mode="area")
        high = gray - _local_mean(gray)
        # Gray levels are in [0, 255]; deviations below 4 are noise.
        normalized = high / (_local_mean(high**2).sqrt() + 4)
        inner = normalized[..., edge:-edge, edge:-edge]
        yield F.normalize(inner.flatten(1), dim=1), F.normalize(inner.flip(3).flatten(1), dim=1)


def _local_mean(maps: Tensor) -> Tensor:
    """Return the mean of the 5 x 5 neighborhood of each pixel."""
    return F.avg_pool2d(F.pad(maps, (2,) * 4, mode="replicate"), 5, 1)
