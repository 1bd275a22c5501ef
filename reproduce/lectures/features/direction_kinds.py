"""Units, random and principal directions: their vectors, responses and typical images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from reproduce.core.context import Context
from reproduce.lectures.sampling import spread_indices, subset, unit_patches
from zfnet.analysis.directions import random_directions, sample_vectors
from zfnet.analysis.embedding import pca
from zfnet.analysis.responses import Responses, responses
from zfnet.plot import enlarge, photograph
from zfnet.ranking import Top

LAYERS = ("conv5", "fc7")
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


def directions_and_responses(
    ctx: Context,
    chosen: np.ndarray,
    count: int,
    generator: torch.Generator,
    config: Mapping[str, Any],
) -> tuple[dict[str, list[torch.Tensor]], dict[str, Responses], torch.Tensor]:
    """The directions of both layers, and the responses of images along them.

    Args:
        ctx: The network and the corpus.
        chosen: The images.
        count: Number of images for the principal directions of layer 5.
        generator: Random numbers.
        config: The numbers of "directions" and of "principal directions".

    Returns:
        The three kinds of directions by layer, the responses by layer, and the layer-7 codes of the
        images (N, units).
    """
    counts = config["directions"], config["principal directions"]
    images = subset(ctx, spread_indices(ctx, count))
    vectors = sample_vectors(ctx.model, images, "conv5", generator, progress=ctx.progress)
    axes = {"conv5": three_kinds(vectors, generator, *counts)}
    by_layer = responses(
        ctx.model,
        subset(ctx, chosen),
        LAYERS,
        directions={"conv5": torch.cat(axes["conv5"]).to(ctx.device)},
        progress=ctx.progress,
    )
    codes = by_layer["fc7"].maximum
    axes["fc7"] = three_kinds(codes[:: max(1, len(codes) // 1000)], generator, *counts)
    along = codes @ torch.cat(axes["fc7"]).T
    # Directions of layer 7 have no position.
    by_layer["fc7"] = Responses(along, along, torch.zeros(*along.shape, 2, dtype=torch.int64))
    return axes, by_layer, codes


def example_tiles(
    ctx: Context,
    chosen: np.ndarray,
    top: Top,
    parts: dict[str, torch.Tensor],
    cosine: np.ndarray,
    axes: list[torch.Tensor],
    shown: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The patches of typical directions of layer 5: those with the mean cosine of their kind.

    Args:
        ctx: The network and the corpus.
        chosen: The images that are measured.
        top: Their strongest responses.
        parts: The directions of each kind, as rows of `top`.
        cosine: The mean cosine of each direction's nine images (directions,).
        axes: The directions of each kind.
        shown: The number of directions per kind.

    Returns:
        (directions, 9, 76, 76, 3) uint8 by kind, and the names of the units among them.
    """
    arrays: dict[str, np.ndarray] = {}
    for kind, rows in parts.items():
        difference = np.abs(cosine[rows] - cosine[rows].mean())
        drawn = rows[np.argsort(difference, kind="stable")[:shown].copy()]
        index = chosen[top.index[drawn].flatten().numpy()]
        patches = unit_patches(ctx, "conv5", index, top.position[drawn].flatten(0, 1))
        pixels = (255 * enlarge(photograph(patches), 76)).astype(np.uint8)
        arrays[kind] = pixels.reshape(len(drawn), -1, 76, 76, 3)
        if kind == KINDS[0]:
            channels = axes[0][drawn].argmax(1).tolist()
            arrays["units.channels"] = np.array(channels)
    return arrays, [f"conv5/{channel}" for channel in arrays["units.channels"]]
