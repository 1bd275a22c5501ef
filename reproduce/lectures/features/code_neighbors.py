"""How often the nearest neighbors of an image, in several spaces, are of its kind or class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.lectures.features.code_pictures import KIND_SHARE, SPACES
from zfnet.analysis.embedding import nearest_neighbors
from zfnet.analysis.intervals import mean_interval


def neighbor_kinds(
    codes: torch.Tensor,
    pixels: torch.Tensor,
    points: dict[str, np.ndarray],
    kinds: np.ndarray,
    k: int,
    seed: int,
) -> dict[str, Any]:
    """How often an image's nearest neighbors are of its kind, in each space.

    Args:
        codes: Codes of layer 7, (M, F).
        pixels: Pixels (M, P).
        points: Coordinates in the planes (M, 2).
        kinds: Kinds (M,).
        k: The number of neighbors.
        seed: Seed of the bootstrap.
    """
    nearest_in = [nearest_neighbors(codes, k), nearest_neighbors(pixels, k)]
    for p in map(torch.from_numpy, points.values()):  # distance in the plane
        distance = torch.cdist(p, p).fill_diagonal_(torch.inf)
        nearest_in.append(distance.topk(k, largest=False).indices)
    agreement = {
        space: (kinds[index.numpy()] == kinds[:, None]).mean(1)
        for space, index in zip(SPACES, nearest_in, strict=True)
    }
    share = np.bincount(kinds) / len(kinds)
    return {
        KIND_SHARE.format(k): {
            space: mean_interval(values, seed=seed) for space, values in agreement.items()
        },
        "of the image's kind by chance, share": float((share**2).sum()),
        "layer 7 minus pixels": mean_interval(
            agreement[SPACES[0]] - agreement[SPACES[1]], seed=seed
        ),
        "t-SNE minus PCA": mean_interval(agreement[SPACES[3]] - agreement[SPACES[2]], seed=seed),
    }


def neighbor_classes(
    neighbors: dict[str, torch.Tensor], labels: np.ndarray, seed: int
) -> dict[str, list[float]]:
    """How often the nearest neighbor has the image's class, in each space."""
    return {
        space: mean_interval((labels[index[:, 0].numpy()] == labels).astype(float), seed=seed)
        for space, index in neighbors.items()
    }
