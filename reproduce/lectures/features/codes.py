"""Layer-7 codes of many images: nearest neighbors, PCA and t-SNE.

Krizhevsky et al. (2012, Fig. 4) and Karpathy's t-SNE of CNN codes: images with similar layer-7
activations are of one kind, though their pixels have little in common. A plane keeps part of this
similarity, and t-SNE keeps more of it than two principal components. The measure is the share of an
image's nearest neighbors that are of its kind, one of six.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.kinds import KIND_NAMES, kind_table
from reproduce.lectures.sampling import MIN_IMAGES, image_classes, spread_indices, subset
from zfnet.analysis.embedding import grid_layout, nearest_neighbors, pca, tsne
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.responses import responses
from zfnet.plot import enlarge, mosaic, new_figure, photograph, show

FIGURE = Figure(
    id="codes",
    title="Layer-7 codes: neighbors, PCA, t-SNE and a grid of images",
    claim="Neighbors in layer 7 are of one kind more often than neighbors in pixels, and t-SNE "
    "keeps more of this in a plane than the first two principal components.",
    inputs=("model", "images"),
    seed=7,
    time_budget=14,
    config={
        "images": 2500,
        "laid out": 900,
        "images of samples": 121,
        "neighbours": 5,
        "queries": 6,
        "pixels": 16,
    },
    network="layers",
)
COLORS = ("#D55E00", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2")
SPACES = ("layer 7", "pixels", "PCA, 2 numbers", "t-SNE, 2 numbers")


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    chosen = spread_indices(ctx, config["images of samples" if samples else "images"])
    if len(chosen) < MIN_IMAGES:
        return Result(
            {}, {}, "not run", n=len(chosen), note=f"The corpus has fewer than {MIN_IMAGES} images."
        )
    codes = responses(ctx.model, subset(ctx, chosen), "fc7", progress=ctx.progress)["fc7"].maximum
    thumbnails = [
        F.interpolate(ctx.images.batch(part), config["pixels"], mode="area")
        for part in np.array_split(chosen, 20)
    ]
    pixels = torch.cat(thumbnails).flatten(1)
    kinds, names = kinds_of(ctx, chosen)
    side = int(min(len(chosen), config["laid out"]) ** 0.5)
    laid_out = np.linspace(0, len(chosen) - 1, side * side).round().astype(int)
    plane = pca(F.normalize(codes[laid_out], dim=1)).codes
    points = {"PCA": plane.numpy(), "t-SNE": tsne(codes[laid_out], seed=FIGURE.seed)}
    k, labels = config["neighbours"], image_classes(ctx, chosen)
    nearest_in = [nearest_neighbors(codes[laid_out], k), nearest_neighbors(pixels[laid_out], k)]
    for p in map(torch.from_numpy, points.values()):  # distance in the plane
        nearest_in.append(
            torch.cdist(p, p).fill_diagonal_(torch.inf).topk(k, largest=False).indices
        )
    agreement = {
        space: (kinds[laid_out][i.numpy()] == kinds[laid_out][:, None]).mean(1)
        for space, i in zip(SPACES, nearest_in, strict=True)
    }
    share = np.bincount(kinds[laid_out]) / len(laid_out)

    def mean(values: np.ndarray) -> list[float]:
        return mean_interval(values, seed=FIGURE.seed)

    measured = {
        f"share of the {k} nearest that are of the image's kind": {
            s: mean(v) for s, v in agreement.items()
        },
        "the same, by chance": float((share**2).sum()),
        "layer 7 less pixels": mean(agreement[SPACES[0]] - agreement[SPACES[1]]),
        "t-SNE less PCA": mean(agreement[SPACES[3]] - agreement[SPACES[2]]),
    }
    neighbors = {"layer 7": nearest_neighbors(codes, k), "pixels": nearest_neighbors(pixels, k)}
    measured["nearest is of the same class, share"] = {
        space: mean((labels[index[:, 0].numpy()] == labels).astype(float))
        for space, index in neighbors.items()
    }
    claims, outcome = verdict(
        {name: above(measured[name]) for name in ("layer 7 less pixels", "t-SNE less PCA")}
    )
    note = (
        f"Layouts and kinds of {len(laid_out)} images, classes of {len(chosen)}, evenly spread "
        "over the corpus; 95 % intervals over images. Similarity is the cosine, in a plane the "
        f"distance. Pixels are averaged to {config['pixels']} x {config['pixels']}."
    )
    if samples:
        outcome = "not comparable"
        note += " Kinds are photographs, and the images overlapping crops of them."
    rng = np.random.default_rng(FIGURE.seed)
    queries = rng.choice(len(chosen), config["queries"], replace=False)
    rows = np.concatenate(
        [
            queries[:, None],
            neighbors["layer 7"][queries].numpy(),
            neighbors["pixels"][queries].numpy(),
        ],
        1,
    )
    arrays = {
        "kinds": kinds[laid_out],
        "names": np.array(names),
        **points,
        "cells": grid_layout(points["t-SNE"], side),
        "tiles": tiles(ctx, chosen[laid_out], 1200 // side),
        "neighbours": tiles(ctx, chosen[rows.flatten()], 112).reshape(*rows.shape, 112, 112, 3),
    }
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


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
    a, m, k = result.arrays, result.measured, FIGURE.config["neighbours"]
    share, chance = (
        m[f"share of the {k} nearest that are of the image's kind"],
        m["the same, by chance"],
    )
    names = a["names"].tolist()
    colors = (
        COLORS
        if len(names) <= len(COLORS)
        else [mpl.colormaps["tab20"](i % 20) for i in range(len(names))]
    )
    planes = new_figure(13.4, 5.4)
    *panels, bars = planes.subplots(1, 3, width_ratios=(1.25, 1.25, 0.8))
    for panel, space in zip(panels, ("PCA", "t-SNE"), strict=True):
        for number, name in enumerate(names):
            x, y = a[space][a["kinds"] == number].T
            panel.scatter(x, y, s=11, color=colors[number], label=name, linewidth=0)
        panel.set(title=f"{space} of the codes of {len(a['kinds'])} images", xticks=(), yticks=())
    if len(names) <= 20:
        handles = panels[0].get_legend_handles_labels()
        planes.legend(*handles, loc="outside lower center", ncols=7, frameon=False, markerscale=1.6)
    for place, (mean, low, high) in enumerate(share.values()):
        bars.bar(
            place, mean, yerr=[[mean - low], [high - mean]], color="0.55", capsize=3, width=0.65
        )
    bars.axhline(chance, color="black", linestyle=":", label="by chance")
    bars.set_xticks(range(len(share)), [space.replace(", ", "\n") for space in share])
    bars.set(ylim=(0, 1), title=f"Share of the {k} nearest of the same kind")
    bars.legend(frameon=False)

    sheet = new_figure(7.6, 7.9)
    side = int(len(a["cells"]) ** 0.5)
    show(sheet.subplots(), mosaic(a["tiles"][np.argsort(a["cells"])] / 255, side, gap=1))
    sheet.suptitle(f"{len(a['cells'])} images on a grid, arranged by t-SNE of their layer-7 codes")

    rows, side = new_figure(11.6, 1.02 * len(a["neighbours"]) + 0.3), a["neighbours"].shape[2] + 2
    panel = rows.subplots()
    image = mosaic(np.concatenate(a["neighbours"]) / 255, 2 * k + 1, gap=2)
    show(panel, np.insert(image, np.repeat([side - 1, (k + 1) * side - 1], 16), 1, axis=1))
    for title, left, count in (
        ("image", 0, 1),
        ("nearest in layer 7", 1, k),
        ("nearest in pixels", k + 1, k),
    ):
        panel.text(
            (left + count / 2) * side + 16 * (left > 0) + 16 * (left > 1),
            -6,
            title,
            ha="center",
            va="bottom",
        )
    return {"planes.png": planes, "grid.jpg": sheet, "neighbours.jpg": rows}
