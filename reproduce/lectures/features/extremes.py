"""The images with the strongest and the weakest response of a feature of layer 5.

R-CNN (Girshick et al. 2014, Fig. 4) reads what a unit responds to from its strongest images. Do its
weakest images share a concept too? The ReLU makes all images of a silent map equal, so maps are
ranked before it. The maximum ranks an image by a single position, which the box marks. The mean
ranks it by all positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.sampling import (
    MIN_IMAGES,
    image_classes,
    photograph_groups,
    spread_indices,
    subset,
)
from zfnet.analysis.directions import purity
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.responses import responses
from zfnet.graph import chain, map_sizes
from zfnet.plot import enlarge, new_figure, photograph, rectangle, show
from zfnet.receptive_field import receptive_field_box

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
        "shown": 6,
    },
    network="chain",
)
RANKINGS = {
    f"{end} by {by}": {"by": by, "largest": end == "most"}
    for end in ("most", "least")
    for by in ("maximum", "mean")
}


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    chosen = spread_indices(ctx, config["images of samples" if samples else "images"])
    if len(chosen) < MIN_IMAGES:
        return Result(
            {}, {}, "not run", n=len(chosen), note=f"The corpus has fewer than {MIN_IMAGES} images."
        )
    table = responses(
        ctx.model, subset(ctx, chosen), LAYER, rectified=False, progress=ctx.progress
    )[LAYER]
    tops = {
        name: table.extremes(config["k"], **options, groups=photograph_groups(ctx, chosen))
        for name, options in RANKINGS.items()
    }
    labels, active = image_classes(ctx, chosen), (table.maximum > 0).any(0)
    shares = {name: purity(labels[top.index[active].numpy()]) for name, top in tops.items()}
    pairs = zip(*(tops[f"most by {by}"].index[active] for by in ("maximum", "mean")), strict=True)
    overlap = [len(np.intersect1d(*pair)) / config["k"] for pair in pairs]
    zeros = (table.maximum[:, active] <= 0).float().mean(0).numpy()

    def mean(values: np.ndarray) -> list[float]:
        return mean_interval(values, seed=FIGURE.seed)

    measured = {
        "one class among nine images, mean share": {
            name: mean(share) for name, share in shares.items()
        },
        "most less least": {
            by: mean(shares[f"most by {by}"] - shares[f"least by {by}"])
            for by in ("maximum", "mean")
        },
        "nine at random": float(
            purity(np.random.default_rng(FIGURE.seed).choice(labels, (2000, config["k"]))).mean()
        ),
        "different images among all features' nine, share": {
            name: len(top.index[active].unique()) / top.index[active].numel()
            for name, top in tops.items()
        },
        "of the nine most by maximum also among those by mean": mean(np.array(overlap)),
        "images equal at zero after the ReLU, share": mean(zeros),
    }
    claims, outcome = verdict(
        {f"by {by}": above(gain) for by, gain in measured["most less least"].items()}
    )
    note = (
        f"Means over the {int(active.sum())} features of layer 5 that an image activates, with "
        f"95 % intervals; {len(chosen)} images. Values are before the ReLU, so that weak responses "
        "differ. The features shown are a random sample. A box is the receptive field of the "
        "strongest position."
    )
    if samples:
        outcome = "not comparable"
        note += " The class of a sample crop is its photograph."
    generator = torch.Generator().manual_seed(FIGURE.seed)
    numbers = torch.where(active)[0]
    numbers = (
        numbers[torch.randperm(len(numbers), generator=generator)[: config["features"]]]
        .sort()
        .values
    )
    arrays = {"features": numbers.numpy()} | strip_arrays(ctx, chosen, tops, numbers)
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def strip_arrays(
    ctx: Context, chosen: np.ndarray, tops: dict, numbers: torch.Tensor
) -> dict[str, np.ndarray]:
    """The first images of some features in each ranking, with receptive fields and values."""
    count, arrays = FIGURE.config["shown"], {}
    steps = chain(ctx.model)
    steps = steps[: [step.name for step in steps].index(LAYER) + 1]
    size = ctx.images.size
    for name, top in tops.items():
        index = top.index[numbers, :count]
        x = ctx.images.batch(chosen[index.flatten().numpy()])
        arrays[f"{name}.images"] = (
            enlarge(photograph(x), 112).reshape(*index.shape, 112, 112, 3).astype(np.float16)
        )
        boxes = receptive_field_box(
            steps, map_sizes(steps, (size, size)), top.position[numbers, :count]
        )
        arrays[f"{name}.boxes"] = boxes.numpy() * 112 / size
        arrays[f"{name}.values"] = top.value[numbers, :count].numpy()
    return arrays


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, count = result.arrays, FIGURE.config["shown"]
    features = a["features"]
    figure = new_figure(0.96 * 2 * count + 0.9, (0.96 * 2 + 0.25) * len(features))
    blocks = figure.subfigures(len(features), 2, squeeze=False)
    for row, (feature, pair) in enumerate(zip(features, blocks, strict=True)):
        for end, block in zip(("most", "least"), pair, strict=True):
            for by, axes in zip(("maximum", "mean"), block.subplots(2, count), strict=True):
                for place, panel in enumerate(axes):
                    name = f"{end} by {by}"
                    show(panel, a[f"{name}.images"][row, place].astype(np.float32))
                    if by == "maximum":
                        rectangle(panel, a[f"{name}.boxes"][row, place], "yellow", linewidth=1)
                    value = a[f"{name}.values"][row, place]
                    panel.text(
                        4,
                        108,
                        f"{value:.2g}",
                        color="white",
                        fontsize=7,
                        bbox={"color": "black", "pad": 1},
                    )
                axes[0].text(-6, 56, f"by {by}", rotation=90, ha="right", va="center", fontsize=8)
            block.suptitle(f"conv5/{feature} before the ReLU: {end}", fontsize=9)
    return {"extremes.jpg": figure}
