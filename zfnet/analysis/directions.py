"""Directions of a layer other than its units: are single units any more coherent than random directions?"""

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
    """Draw orthonormal directions, uniform over rotations: (count, units). Raises ValueError for more than there are units."""
    if not 1 <= count <= units:
        raise ValueError(
            f"between 1 and {units} directions of {units} units can be orthogonal, got {count}"
        )
    q, r = torch.linalg.qr(torch.randn(units, count, generator=generator, dtype=torch.float64))
    return (
        q * r.diagonal().sign()
    ).T.float()  # without the signs, QR would not be uniform (Mezzadri 2007)


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
    """A layer's rectified activations at random positions, `per_image` of each image: (N per_image, C).

    Positions are drawn with replacement; a dense layer has one. Raises as `responses`.
    """
    rows = []
    for found in stream(model, dataset, (layer,), batch=batch, progress=progress):
        vectors = positions_by_units(found[layer]).cpu()  # (B, H W, C)
        places = vectors.shape[1]
        drawn = torch.randint(
            places, (len(vectors), per_image if places > 1 else 1), generator=generator
        )
        rows.append(
            vectors.gather(1, drawn[..., None].expand(-1, -1, vectors.shape[2])).flatten(0, 1)
        )
    return torch.cat(rows)


def purity(labels: np.ndarray) -> np.ndarray:
    """The share of the most frequent class among each unit's images: labels (units, k) to (units,), from 1 / k to 1."""
    return np.array([np.unique(row, return_counts=True)[1].max() / len(row) for row in labels])


def similarity(codes: Tensor, index: Tensor) -> Tensor:
    r"""How alike the images of each set are: the mean cosine of the codes (N, D) of all pairs of a row of index (U, k): (U,).

    $\frac{1}{k (k - 1)} \sum_{i \ne j} \cos(f_i, f_j)$, in [-1, 1]; of a code of zeros every cosine is 0. Raises ValueError for
    sets of fewer than two.
    """
    k = index.shape[1]
    if k < 2:
        raise ValueError("images are alike in pairs: at least two a set")
    units = F.normalize(codes, dim=1)
    total, own = (
        units[index].sum(1),
        units.square().sum(1)[index].sum(1),
    )  # (U, D), whose square sums all pairs, and (U,)
    return (total.square().sum(1) - own) / (k * (k - 1))
