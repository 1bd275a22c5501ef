"""The images with the strongest and the weakest response of a feature of layer 5.

R-CNN (Girshick et al. 2014, Fig. 4) reads what a unit responds to from its strongest images. Do its
weakest images tell as much? They can do so only if they differ from those of other features. So the
measure is the share of a feature's nine images that are also among the nine of another feature,
averaged over all pairs of features. The ReLU makes all images of a blank map equal, so maps are
ranked before it. The maximum ranks an image by a single position, the mean by all positions.
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
    claim="Features of layer 5 share more of their nine weakest images than of their nine "
    "strongest, so the weakest images say little about a single feature.",
    inputs=("model", "images"),
    seed=5,
    time_budget=6,
    config={"layer": LAYER, "images": 4000, "images of samples": 128, "k": 9, "features": 3},
    version=3,
    network="chain",
)
RANKINGS = {
    f"{end} by {by}": {"by": by, "largest": end == "strongest"}
    for end in ("strongest", "weakest")
    for by in ("maximum", "mean")
}
PATCHES = "strongest by maximum"
SHOWN = {PATCHES: "nine strongest", "weakest by mean": "nine weakest by mean"}
SHARED = "images shared with another feature, %"
DIFFERENCE = "shared images, weakest minus strongest, points"
PURITY = "most common class among nine images, %"


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    chosen = spread_indices(ctx, config["images of samples" if samples else "images"])
    if len(chosen) < MIN_IMAGES:
        return too_few_images(len(chosen))
    images, groups = subset(ctx, chosen), photograph_groups(ctx, chosen)
    table = responses(ctx.model, images, LAYER, rectified=False, progress=ctx.progress)[LAYER]
    tops = {
        name: table.extremes(config["k"], **options, groups=groups)
        for name, options in RANKINGS.items()
    }
    active = (table.maximum > 0).any(0)
    labels = image_classes(ctx, chosen)
    measured = measure(labels, {name: top.index[active] for name, top in tops.items()})
    claims, outcome = judge(measured)
    reason = state_reason(measured, outcome)
    note = (
        f"Means over the {int(active.sum())} features of layer 5 that an image activates, with "
        f"95 % intervals by bootstrap over features; {len(chosen)} images. Images are ranked "
        "before the ReLU, so that weak responses differ. The picture shows the features with the "
        "most common class among their nine strongest images. Strongest images are cropped to the "
        "receptive field of the strongest position."
    )
    if samples:
        outcome, reason = "not comparable", "The photographs are too few for a comparison."
        note += " The class of a sample crop is its photograph."
    numbers = purest_features(labels, tops[PATCHES], active)
    arrays = {"features": numbers.numpy()} | example_images(ctx, chosen, tops, numbers)
    measured |= {"features shown": [f"{LAYER}/{i}" for i in numbers.tolist()], "claims": claims}
    finding = state_finding(measured)
    return Result(arrays, measured, outcome, len(chosen), note, finding=finding, reason=reason)


def measure(labels: np.ndarray, index: dict[str, torch.Tensor]) -> dict[str, Any]:
    """How many of their nine images features share, and how often these are of one class.

    Args:
        labels: Classes (N,).
        index: The nine images of each feature (C, 9), by ranking.
    """
    shared = {name: shared_images(rows, len(labels)) for name, rows in index.items()}
    at_random = np.random.default_rng(FIGURE.seed).choice(labels, (2000, FIGURE.config["k"]))
    return {
        SHARED: {name: percent(values) for name, values in shared.items()},
        DIFFERENCE: {
            f"by {by}": percent(shared[f"weakest by {by}"] - shared[f"strongest by {by}"])
            for by in ("maximum", "mean")
        },
        "shared images by chance, %": 100 * FIGURE.config["k"] / len(labels),
        PURITY: {name: percent(purity(labels[rows.numpy()])) for name, rows in index.items()},
        "most common class among nine random images, %": 100 * float(purity(at_random).mean()),
    }


def shared_images(index: torch.Tensor, images: int) -> np.ndarray:
    """The mean share of each feature's images (C, k) that another feature has, (C,)."""
    member = torch.zeros(len(index), images).scatter_(1, index, 1)  # (C, N)
    common = member @ member.T  # (C, C)
    others = common.sum(1) - common.diagonal()
    return (others / (len(index) - 1) / index.shape[1]).numpy()


def percent(values: np.ndarray) -> list[float]:
    return mean_interval(100 * values, seed=FIGURE.seed)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Each ranking: the weakest images are shared more, beyond the interval."""
    return verdict(
        {
            f"the weakest images {by} are shared more than the strongest": above(interval)
            for by, interval in m[DIFFERENCE].items()
        }
    )


def purest_features(labels: np.ndarray, top: Top, active: torch.Tensor) -> torch.Tensor:
    """The features whose nine strongest images have the most common class, in ascending order."""
    share = torch.from_numpy(purity(labels[top.index.numpy()])).where(active, -1)
    order = share.argsort(descending=True, stable=True)
    return order[: FIGURE.config["features"]].sort().values


def state_finding(m: dict) -> str:
    strongest, weakest = (m[SHARED][f"{end} by mean"][0] for end in ("strongest", "weakest"))
    return (
        f"Two features of layer 5 share on average {weakest:.0f} % of their nine weakest images "
        f"and {strongest:.0f} % of their nine strongest."
    )


def state_reason(m: dict, outcome: str) -> str:
    """The differences, with their intervals."""
    if outcome == "reproduced":
        return ""
    differences = [
        f"{low:+.1f} to {high:+.1f} points {by}" for by, (_, low, high) in m[DIFFERENCE].items()
    ]
    return (
        "The shares of common images of the weakest and the strongest images differ by "
        f"{' and '.join(differences)}."
    )


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
    figure = new_page(8.1)
    images, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(4.2, 1)).flat
    grid = images.subplots(2, len(a["features"]), squeeze=False)
    for row, (name, title) in zip(grid, SHOWN.items(), strict=True):
        for panel, feature, nine in zip(row, a["features"], a[name], strict=True):
            show_tiles(panel, nine / 255, 3, f"{LAYER}/{feature}: {title}", gap=1)
    bars = below.subplots()
    interval_bars(bars, m[SHARED], (LINES[0], LINES[0], "0.6", "0.6"), "{:.1f}")
    bars.set_xlabel("images that a feature shares with another one, % (95 % interval)")
    set_finding(figure, result.finding)
    return {"extremes.jpg": figure}
