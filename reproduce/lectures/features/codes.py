"""Layer-7 codes of many images: nearest neighbors, PCA and t-SNE.

Krizhevsky et al. (2012, Fig. 4) and Karpathy's t-SNE of CNN codes: images with similar layer-7
activations are of one kind, though their pixels have little in common. A plane keeps part of this
similarity, and t-SNE keeps more of it than two principal components. The measure is the share of an
image's nearest neighbors that are of its kind, one of six.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.features import code_pictures
from reproduce.lectures.features.code_neighbors import neighbor_classes, neighbor_kinds
from reproduce.lectures.features.code_pictures import CLASS_SHARE, KIND_SHARE
from reproduce.lectures.kinds import KIND_NAMES, kind_table
from reproduce.lectures.sampling import (
    MIN_IMAGES,
    image_classes,
    spread_indices,
    subset,
    too_few_images,
)
from zfnet.analysis.embedding import grid_layout, nearest_neighbors, pca, tsne
from zfnet.analysis.responses import responses
from zfnet.plot import enlarge, photograph

FIGURE = Figure(
    id="codes",
    title="Layer-7 codes: neighbors, PCA, t-SNE and a grid of images",
    claim="Neighbors in layer 7 are of one kind more often than neighbors in pixels, and t-SNE "
    "keeps more of this in a plane than the first two principal components.",
    inputs=("model", "images"),
    seed=7,
    time_budget=14,
    config={
        "images": 2500, "images in layouts": 900, "images of samples": 121,
        "neighbors": 5, "queries": 6, "pixels": 16,
    },
    version=2,
    network="layers",
)  # fmt: skip


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    chosen = spread_indices(ctx, config["images of samples" if samples else "images"])
    if len(chosen) < MIN_IMAGES:
        return too_few_images(len(chosen))
    codes = responses(ctx.model, subset(ctx, chosen), "fc7", progress=ctx.progress)["fc7"].maximum
    pixels = small_pixels(ctx, chosen)
    kinds, names = kinds_of(ctx, chosen)
    side = int(min(len(chosen), config["images in layouts"]) ** 0.5)
    laid_out = np.linspace(0, len(chosen) - 1, side * side).round().astype(int)
    plane = pca(F.normalize(codes[laid_out], dim=1)).codes
    points = {"PCA": plane.numpy(), "t-SNE": tsne(codes[laid_out], seed=FIGURE.seed)}
    k = config["neighbors"]
    neighbors = {"layer 7": nearest_neighbors(codes, k), "pixels": nearest_neighbors(pixels, k)}
    measured = neighbor_kinds(
        codes[laid_out], pixels[laid_out], points, kinds[laid_out], k, FIGURE.seed
    )
    measured[CLASS_SHARE] = neighbor_classes(neighbors, image_classes(ctx, chosen), FIGURE.seed)
    claims, outcome = verdict(
        {
            "neighbors in layer 7 are more alike than in pixels": above(
                measured["layer 7 minus pixels"]
            ),
            "neighbors in the t-SNE plane are more alike than in the PCA plane": above(
                measured["t-SNE minus PCA"]
            ),
        }
    )
    note = (
        f"Layouts and kinds are of {len(laid_out)} images, and classes of {len(chosen)}, evenly "
        "spread over the corpus. The 95 % intervals are by bootstrap over images. Neighbors have "
        "the largest cosine, or in a plane the smallest distance. Pixels are averaged to "
        f"{config['pixels']} x {config['pixels']}."
    )
    reason = state_reason(measured, outcome)
    if samples:
        outcome, reason = "not comparable", "The sample photographs are too few for a comparison."
        note += " The kind of a sample crop is its photograph."
    arrays = {
        "kinds": kinds[laid_out],
        "names": np.array(names),
        **points,
        "cells": grid_layout(points["t-SNE"], side),
        "tiles": tiles(ctx, chosen[laid_out], 1200 // side),
        "neighbors": neighbor_rows(ctx, chosen, neighbors),
    }
    finding, measured = state_finding(measured), measured | {"claims": claims}
    return Result(arrays, measured, outcome, len(chosen), note, finding=finding, reason=reason)


def state_finding(m: dict) -> str:
    k = FIGURE.config["neighbors"]
    codes, pixels, pca_plane, tsne_plane = (100 * v[0] for v in m[KIND_SHARE.format(k)].values())
    return (
        f"Of an image's {k} nearest neighbors, {codes:.0f} % are of its kind in layer 7 and "
        f"{pixels:.0f} % in pixels; {tsne_plane:.0f} % are in a plane of t-SNE, and "
        f"{pca_plane:.0f} % in a plane of PCA."
    )


def state_reason(m: dict, outcome: str) -> str:
    """The two differences, with their intervals."""
    if outcome == "reproduced":
        return ""
    differences = [
        "{}: {:+.0f} points [{:+.0f}, {:+.0f}]".format(name, *(100 * v for v in m[name]))
        for name in ("layer 7 minus pixels", "t-SNE minus PCA")
    ]
    return f"The shares of neighbors of the image's kind differ by: {'; '.join(differences)}."


def small_pixels(ctx: Context, chosen: np.ndarray) -> torch.Tensor:
    """The images at a low resolution, (M, 3 * pixels * pixels)."""
    side = FIGURE.config["pixels"]
    parts = np.array_split(chosen, 20)
    thumbnails = [F.interpolate(ctx.images.batch(part), side, mode="area") for part in parts]
    return torch.cat(thumbnails).flatten(1)


def neighbor_rows(
    ctx: Context, chosen: np.ndarray, neighbors: dict[str, torch.Tensor]
) -> np.ndarray:
    """Random images with their nearest in layer 7 and pixels, (queries, 1 + 2 k, H, W, 3)."""
    rng = np.random.default_rng(FIGURE.seed)
    queries = rng.choice(len(chosen), FIGURE.config["queries"], replace=False)
    nearest_in = [index[queries].numpy() for index in neighbors.values()]
    rows = np.concatenate([queries[:, None], *nearest_in], 1)
    return tiles(ctx, chosen[rows.flatten()], 112).reshape(*rows.shape, 112, 112, 3)


def kinds_of(ctx: Context, chosen: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The kind of each image.

    Args:
        ctx: The network and the corpus.
        chosen: The images.

    Returns:
        Kinds (M,) and their names. Without ILSVRC's 1,000 classes, the classes
        themselves, and for the sample corpus the photographs.
    """
    labels = image_classes(ctx, chosen)
    if ctx.corpus == SAMPLES:
        return labels, sorted({str(ctx.images.names[i]).split("@")[0] for i in chosen})
    if len(ctx.model.wnids) != 1000:
        shown, kinds = np.unique(labels, return_inverse=True)
        return kinds, [ctx.model.classes[label] for label in shown]
    return kind_table()[labels], list(KIND_NAMES)


def tiles(ctx: Context, index: np.ndarray, side: int) -> np.ndarray:
    """Images (M,) as tiles (M, side, side, 3) uint8."""
    parts = (
        enlarge(photograph(ctx.images.batch(part)), side)
        for part in np.array_split(index, -(-len(index) // 64))
    )
    return np.concatenate([(255 * part).round().astype(np.uint8) for part in parts])


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    return {
        "planes.png": code_pictures.draw_planes(result, FIGURE.config["neighbors"]),
        "grid.jpg": code_pictures.draw_grid(result),
        "neighbors.jpg": code_pictures.draw_neighbors(result, FIGURE.config["neighbors"]),
    }
