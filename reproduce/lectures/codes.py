"""Layer 7's codes of many images: their neighbours, and where PCA and t-SNE lay them out.

What lectures show (Krizhevsky et al. 2012, Fig. 4; Karpathy's t-SNE of CNN codes): images near each other in the numbers
of layer 7 are of one kind, though their pixels have little in common; a plane keeps part of that, t-SNE's more than the plane
of the two principal components. Measured as the share of an image's nearest others that are of its kind, one of six.
"""

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.claims import above, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.shared import FEW, classes, spread, subset
from zfnet.analysis.embedding import grid_layout, nearest_neighbors, pca, tsne
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.responses import responses
from zfnet.plot import enlarge, mosaic, new_figure, photograph, show

FIGURE = Figure(
    id="codes",
    title="The codes of layer 7: neighbours, PCA, t-SNE and a grid of images",
    claim="Images near each other in layer 7 are of one kind more often than those near each other in pixels, and the plane of "
    "t-SNE keeps more of that than the plane of the two principal components.",
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
    network="chain",
)
KINDS = {  # of ILSVRC's classes, by the number of the output: the sorted WordNet ids keep kin together
    "dogs": [(151, 269)], "other mammals": [(101, 107), (147, 151), (269, 300), (330, 389)],
    "birds": [(7, 25), (80, 101), (127, 147)],
    "other animals": [(0, 7), (25, 80), (107, 127), (300, 330), (389, 398)], "food and plants": [(924, 970), (984, 999)],
}  # fmt: skip
REST = "things and places"
COLOURS = ("#D55E00", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2")
SPACES = ("layer 7", "pixels", "PCA, 2 numbers", "t-SNE, 2 numbers")


def compute(ctx) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    chosen = spread(ctx, config["images of samples" if samples else "images"])
    if len(chosen) < FEW:
        return Result(
            {}, {}, "not run", n=len(chosen), note=f"The corpus has fewer than {FEW} images."
        )
    codes = responses(ctx.model, subset(ctx, chosen), "fc7", progress=ctx.progress)["fc7"].maximum
    small = [
        F.interpolate(ctx.images.batch(part), config["pixels"], mode="area")
        for part in np.array_split(chosen, 20)
    ]
    pixels = torch.cat(small).flatten(1)
    kinds, names = kinds_of(ctx, chosen)
    side = int(min(len(chosen), config["laid out"]) ** 0.5)
    some = np.linspace(0, len(chosen) - 1, side * side).round().astype(int)
    plane = pca(F.normalize(codes[some], dim=1)).codes
    points = {"PCA": plane.numpy(), "t-SNE": tsne(codes[some], seed=FIGURE.seed)}
    k, labels = config["neighbours"], classes(ctx, chosen)
    near = [nearest_neighbors(codes[some], k), nearest_neighbors(pixels[some], k)]
    for p in map(torch.from_numpy, points.values()):  # in a plane nearness is distance
        near.append(torch.cdist(p, p).fill_diagonal_(torch.inf).topk(k, largest=False).indices)
    agree = {
        space: (kinds[some][i.numpy()] == kinds[some][:, None]).mean(1)
        for space, i in zip(SPACES, near, strict=True)
    }
    share = np.bincount(kinds[some]) / len(some)

    def mean(values: np.ndarray) -> list[float]:
        return mean_interval(values, seed=FIGURE.seed)

    measured = {
        f"share of the {k} nearest that are of the image's kind": {
            s: mean(v) for s, v in agree.items()
        },
        "the same, by chance": float((share**2).sum()),
        "layer 7 less pixels": mean(agree[SPACES[0]] - agree[SPACES[1]]),
        "t-SNE less PCA": mean(agree[SPACES[3]] - agree[SPACES[2]]),
    }
    everyone = {"layer 7": nearest_neighbors(codes, k), "pixels": nearest_neighbors(pixels, k)}
    measured["nearest is of the same class, share"] = {
        space: mean((labels[found[:, 0].numpy()] == labels).astype(float))
        for space, found in everyone.items()
    }
    claims, outcome = verdict(
        {name: above(measured[name]) for name in ("layer 7 less pixels", "t-SNE less PCA")}
    )
    note = f"Layouts and kinds of {len(some)} images, classes of {len(chosen)}, spread evenly over the corpus; 95 % intervals "
    note += f"over images. Near is the cosine, in a plane the distance; pixels are {config['pixels']} x {config['pixels']}."
    if samples:
        outcome, note = (
            "not comparable",
            note + " Kinds are the photographs, of which the images are overlapping crops.",
        )
    rng = np.random.default_rng(FIGURE.seed)
    queries = rng.choice(len(chosen), config["queries"], replace=False)
    rows = np.concatenate(
        [
            queries[:, None],
            everyone["layer 7"][queries].numpy(),
            everyone["pixels"][queries].numpy(),
        ],
        1,
    )
    arrays = {
        "kinds": kinds[some], "names": np.array(names), **points, "cells": grid_layout(points["t-SNE"], side),
        "tiles": tiles(ctx, chosen[some], 1200 // side),
        "neighbours": tiles(ctx, chosen[rows.flatten()], 112).reshape(*rows.shape, 112, 112, 3),
    }  # fmt: skip
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def kinds_of(ctx, chosen: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Each image's kind and the kinds' names; of networks of other classes than ILSVRC's, and of samples, the classes."""
    labels = classes(ctx, chosen)
    if ctx.corpus == SAMPLES:
        return labels, sorted({ctx.images.names[i].split("@")[0] for i in chosen})
    if len(ctx.model.wnids) != 1000:
        shown, kinds = np.unique(labels, return_inverse=True)
        return kinds, [ctx.model.classes[label] for label in shown]
    table = np.full(1000, len(KINDS))
    for number, ranges in enumerate(KINDS.values()):
        for low, high in ranges:
            table[low:high] = number
    return table[labels], [*KINDS, REST]


def tiles(ctx, index: np.ndarray, side: int) -> np.ndarray:
    """Images (M,) as tiles: (M, side, side, 3) uint8."""
    parts = (
        enlarge(photograph(ctx.images.batch(part)), side)
        for part in np.array_split(index, -(-len(index) // 64))
    )
    return np.concatenate([(255 * part).round().astype(np.uint8) for part in parts])


def draw(result: Result):
    if not result.arrays:
        return {}
    a, m, k = result.arrays, result.measured, FIGURE.config["neighbours"]
    share, chance = (
        m[f"share of the {k} nearest that are of the image's kind"],
        m["the same, by chance"],
    )
    names = a["names"].tolist()
    colours = (
        COLOURS
        if len(names) <= len(COLOURS)
        else [mpl.colormaps["tab20"](i % 20) for i in range(len(names))]
    )
    planes = new_figure(13.4, 5.4)
    *panels, bars = planes.subplots(1, 3, width_ratios=(1.25, 1.25, 0.8))
    for panel, space in zip(panels, ("PCA", "t-SNE"), strict=True):
        for number, name in enumerate(names):
            x, y = a[space][a["kinds"] == number].T
            panel.scatter(x, y, s=11, color=colours[number], label=name, linewidth=0)
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
    bars.set(ylim=(0, 1), title=f"Of the {k} nearest, the share of the same kind")
    bars.legend(frameon=False)

    sheet = new_figure(7.6, 7.9)
    side = int(len(a["cells"]) ** 0.5)
    show(sheet.subplots(), mosaic(a["tiles"][np.argsort(a["cells"])] / 255, side, gap=1))
    sheet.suptitle(f"{len(a['cells'])} images in a grid, where t-SNE puts their layer-7 codes")

    rows, side = new_figure(11.6, 1.02 * len(a["neighbours"]) + 0.3), a["neighbours"].shape[2] + 2
    panel = rows.subplots()
    image = mosaic(np.concatenate(a["neighbours"]) / 255, 2 * k + 1, gap=2)
    show(
        panel, np.insert(image, np.repeat([side - 1, (k + 1) * side - 1], 16), 1, axis=1)
    )  # white between the three
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
