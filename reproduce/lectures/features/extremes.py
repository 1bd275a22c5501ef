"""The images with the strongest and the weakest response of a feature of layer 5.

R-CNN (Girshick et al. 2014, Fig. 4) reads what a unit responds to from its strongest images. Do its
weakest images share a concept too? The ReLU makes all images of a silent map equal, so maps are
ranked before it. The maximum ranks an image by a single position. The mean ranks it by all
positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import interval_bars, new_page, set_finding, show_tiles
from reproduce.lectures.sampling import (
    MIN_IMAGES,
    image_classes,
    photograph_groups,
    spread_indices,
    subset,
    too_few_images,
    unit_patches,
)
from zfnet.analysis.directions import purity
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.responses import responses
from zfnet.plot import LINES, enlarge, photograph
from zfnet.ranking import Top

LAYER = "conv5"
FIGURE = Figure(
    id="extremes",
    title="The strongest and weakest images of a feature",
    claim="The nine strongest images of a layer-5 feature share a class more than its nine "
    "weakest, by maximum and by mean: weak responses do not mark a concept.",
    inputs=("model", "images"),
    seed=5,
    time_budget=6,
    config={
        "layer": LAYER,
        "images": 4000,
        "images of samples": 128,
        "k": 9,
        "features": 3,
    },
    version=2,
    network="chain",
)
RANKINGS = {
    f"{end} by {by}": {"by": by, "largest": end == "most"}
    for end in ("most", "least")
    for by in ("maximum", "mean")
}

PATCHES = "most by maximum"
SHOWN = {PATCHES: "nine strongest", "least by mean": "nine weakest by mean"}


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    chosen = spread_indices(ctx, config["images of samples" if samples else "images"])
    if len(chosen) < MIN_IMAGES:
        return too_few_images(len(chosen))
    images = subset(ctx, chosen)
    table = responses(ctx.model, images, LAYER, rectified=False, progress=ctx.progress)[LAYER]
    groups = photograph_groups(ctx, chosen)
    tops = {
        name: table.extremes(config["k"], **options, groups=groups)
        for name, options in RANKINGS.items()
    }
    active = (table.maximum > 0).any(0)
    measured = measure(image_classes(ctx, chosen), tops, active)
    measured["images equal at zero after the ReLU, share"] = mean(
        (table.maximum[:, active] <= 0).float().mean(0).numpy()
    )
    claims, outcome = verdict(
        {f"by {by}": above(gain) for by, gain in measured["most less least"].items()}
    )
    note = (
        f"Means over the {int(active.sum())} features of layer 5 that an image activates, with "
        f"95 % intervals; {len(chosen)} images. Values are before the ReLU, so that weak responses "
        "differ. The features shown are a random sample. Their strongest images are cut to the "
        "receptive field of the strongest position; the weakest by mean are whole."
    )
    if samples:
        outcome = "not comparable"
        note += " The class of a sample crop is its photograph."
    generator = torch.Generator().manual_seed(FIGURE.seed)
    numbers = torch.where(active)[0]
    order = torch.randperm(len(numbers), generator=generator)[: config["features"]]
    numbers = numbers[order].sort().values
    arrays = {"features": numbers.numpy()} | example_images(ctx, chosen, tops, numbers)
    measured |= {"features shown": [f"{LAYER}/{i}" for i in numbers.tolist()], "claims": claims}
    return Result(arrays, measured, outcome, n=len(chosen), note=note)


def measure(labels: np.ndarray, tops: dict[str, Top], active: torch.Tensor) -> dict[str, Any]:
    """How much the nine images of each ranking share a class.

    Args:
        labels: Classes (N,).
        tops: The nine images of each feature, by ranking.
        active: The features that an image activates (C,) bool.
    """
    k = FIGURE.config["k"]
    index = {name: top.index[active] for name, top in tops.items()}
    shares = {name: purity(labels[rows.numpy()]) for name, rows in index.items()}
    pairs = zip(index["most by maximum"], index["most by mean"], strict=True)
    overlap = np.array([len(np.intersect1d(*pair)) / k for pair in pairs])
    at_random = np.random.default_rng(FIGURE.seed).choice(labels, (2000, k))
    return {
        "one class among nine images, mean share": {
            name: mean(share) for name, share in shares.items()
        },
        "most less least": {
            by: mean(shares[f"most by {by}"] - shares[f"least by {by}"])
            for by in ("maximum", "mean")
        },
        "nine at random": float(purity(at_random).mean()),
        "different images among all features' nine, share": {
            name: len(rows.unique()) / rows.numel() for name, rows in index.items()
        },
        "of the nine most by maximum also among those by mean": mean(overlap),
    }


def mean(values: np.ndarray) -> list[float]:
    return mean_interval(values, seed=FIGURE.seed)


def example_images(
    ctx: Context, chosen: np.ndarray, tops: dict[str, Top], numbers: torch.Tensor
) -> dict[str, np.ndarray]:
    """The images of some features that are drawn, (features, 9, 112, 112, 3) uint8 by ranking."""
    arrays = {}
    for name in SHOWN:
        index = chosen[tops[name].index[numbers].flatten().numpy()]
        if name == PATCHES:
            position = tops[name].position[numbers].flatten(0, 1)
            x = torch.from_numpy(unit_patches(ctx, LAYER, index, position))
        else:
            x = ctx.images.batch(index)
        pixels = (255 * enlarge(photograph(x), 112)).round().astype(np.uint8)
        arrays[name] = pixels.reshape(len(numbers), -1, 112, 112, 3)
    return arrays


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    shares = {
        name: [100 * v for v in row]
        for name, row in m["one class among nine images, mean share"].items()
    }
    figure = new_page(8.1)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(4.2, 1)).flat
    grid = above.subplots(2, len(a["features"]), squeeze=False)
    for row, (name, title) in zip(grid, SHOWN.items(), strict=True):
        for panel, feature, nine in zip(row, a["features"], a[name], strict=True):
            show_tiles(panel, nine / 255, 3, f"{LAYER}/{feature}: {title}", gap=1)
    bars = below.subplots()
    interval_bars(bars, shares, (LINES[0], LINES[0], "0.6", "0.6"))
    bars.axvline(100 * m["nine at random"], color="black", linestyle=":")
    bars.set_xlabel("most common class among nine images, % (dotted: nine random images)")
    strongest, weakest = shares["most by maximum"][0], shares["least by mean"][0]
    set_finding(
        figure,
        f"The most common class among nine images has {strongest:.0f} % of the strongest patches, "
        f"{weakest:.0f} % of the weakest images by mean, and {100 * m['nine at random']:.0f} % of "
        "random images",
    )
    return {"extremes.jpg": figure}
