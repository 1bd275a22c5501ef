"""Directions in a layer's activation space: are single units more coherent than random ones?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from zfnet.analysis.responses import positions_by_units, stream
from zfnet.data import no_progress


def random_directions(units: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw orthonormal directions, uniform over rotations.

    Args:
        units: The number of units of the layer.
        count: The number of directions, from 1 to `units`.
        generator: The source of randomness.

    Returns:
        Directions (count, units).

    Raises:
        ValueError: If count is not between 1 and `units`.

    Example:
        >>> random_directions(8, 3, torch.Generator()).shape
        torch.Size([3, 8])
    """
    if not 1 <= count <= units:
        raise ValueError(f"count must be between 1 and the {units} units, got {count}")
    q, r = torch.linalg.qr(
        torch.randn(units, count, generator=generator, dtype=torch.float64, device=generator.device)
    )
    # The signs of R's diagonal make Q uniform (Mezzadri 2007).
    return (q * r.diagonal().sign()).T.float()


def sample_vectors(
    model: nn.Module,
    dataset: Dataset,
    layer: str,
    generator: torch.Generator,
    *,
    per_image: int = 8,
    batch: int = 32,
    progress: Callable = no_progress,
) -> Tensor:
    """Sample a layer's rectified activations at random positions.

    Args:
        model: Any network.
        dataset: Preprocessed (3, H, W) tensors or (tensor, label).
        layer: A layer name.
        generator: The source of randomness.
        per_image: The number of positions per image, drawn with replacement. A dense layer has one.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Activations (N * per_image, C).

    Raises:
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the layer's output is not (N, C, H, W) or (N, C).
        ValueError: If the data set is empty or its items are wrong.

    Example:
        >>> import zfnet
        >>> images = list(torch.randn(2, 3, 28, 28))
        >>> sample_vectors(zfnet.mnist(), images, "conv2", torch.Generator(), per_image=4).shape
        torch.Size([8, 32])
    """
    samples = []
    for activations in stream(model, dataset, (layer,), batch=batch, progress=progress):
        vectors = positions_by_units(activations[layer]).cpu()  # (B, H W, C)
        images, positions, units = vectors.shape
        count = per_image if positions > 1 else 1
        index = torch.randint(
            positions, (images, count), generator=generator, device=generator.device
        )
        samples.append(vectors.gather(1, index[..., None].expand(-1, -1, units)).flatten(0, 1))
    return torch.cat(samples)


def purity(labels: np.ndarray) -> np.ndarray:
    """Return the share of the most frequent class among each unit's images.

    Args:
        labels: The classes of each unit's k images (units, k).

    Returns:
        Shares (units,) from 1 / k to 1.

    Example:
        >>> purity(np.array([[3, 3, 3, 5]])).tolist()
        [0.75]
    """
    return np.array([np.unique(row, return_counts=True)[1].max() / len(row) for row in labels])


def similarity(codes: Tensor, index: Tensor) -> Tensor:
    r"""Return the mean cosine similarity over all pairs of images in each set.

    $\frac{1}{k (k - 1)} \sum_{i \ne j} \cos(f_i, f_j)$. The cosine with a zero vector is 0.

    Args:
        codes: Codes f of all images (M, D).
        index: The image numbers of each set (sets, k), with k at least 2.

    Returns:
        Values (sets,) in [-1, 1].

    Raises:
        ValueError: If k is below 2.

    Example:
        >>> similarity(torch.eye(2), torch.tensor([[0, 1], [1, 1]])).tolist()
        [0.0, 1.0]
    """
    k = index.shape[1]
    if k < 2:
        raise ValueError(f"similarity compares pairs: sets of at least two are needed, got {k}")
    unit = F.normalize(codes, dim=1)
    total = unit[index].sum(1)  # (sets, D); its squared norm sums the cosines of all pairs
    diagonal = unit.square().sum(1)[index].sum(1)  # (sets,), the pairs i = j
    return (total.square().sum(1) - diagonal) / (k * (k - 1))
