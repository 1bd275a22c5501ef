"""The three kinds of directions that are compared: units, random and principal directions."""

from __future__ import annotations

import torch

from zfnet.analysis.directions import random_directions
from zfnet.analysis.embedding import pca
from zfnet.ranking import Top

KINDS = ("units", "random directions", "principal directions")


def three_kinds(
    vectors: torch.Tensor, generator: torch.Generator, most: int, principal: int
) -> list[torch.Tensor]:
    """The directions that are compared.

    Args:
        vectors: Activations (N, C).
        generator: Chooses the units and the random directions.
        most: Number of units and of random directions, at most.
        principal: Number of principal directions, at most.

    Returns:
        Units (rows of the identity), random directions, and principal directions of the vectors.
    """
    units, count = vectors.shape[1], min(most, vectors.shape[1])
    chosen = torch.randperm(units, generator=generator)[:count].sort().values
    principal = min(principal, len(vectors) - 1, units)
    return [
        torch.eye(units)[chosen],
        random_directions(units, count, generator),
        pca(vectors, principal).axes,
    ]


def with_nine_images(top: Top, sizes: list[int]) -> dict[str, torch.Tensor]:
    """The directions of each kind that nine images activate, as rows of `top`."""
    parts = torch.arange(len(top.index)).split(sizes)
    return {
        kind: part[(top.value[part] > 0).all(1)] for kind, part in zip(KINDS, parts, strict=True)
    }
