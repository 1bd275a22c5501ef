"""Figure 5: translating, scaling and rotating the picture.

The paper's claim: a small transform changes the first layer's features dramatically, but those of
layer 7 little, where the distance grows quasi-linearly with translation and scale. The probability
of the true class is stable under both, but not under rotation, except for objects with rotational
symmetry (its entertainment center peaks every 90 degrees).

Rows: (a) vertical translation, (b) scale, (c) rotation. Columns: five images, the distance of the
features of layer 1 and of layer 7 from the untransformed ones, the probability of the true class.
Five images prove little, so the numbers and fig5_average.jpg are means over 200.
"""

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.paper.fig5_claims import (
    LAYERS,
    judge,
    limit_verdict,
    measure,
    summarize,
    transform_grids,
)
from reproduce.paper.fig5_pictures import draw_images, draw_means
from reproduce.paper.transformed_images import Chosen, choose
from zfnet.analysis.invariance import IDENTITY, SHARE, invariance, views
from zfnet.plot import enlarge, photograph

FIGURE = Figure(
    id="fig5",
    title="Invariance to translation, scale and rotation",
    claim="A small transform moves layer 1 far and layer 7 little. Layer 7 moves quasi-linearly "
    "with translation and scale, under which the class is more stable than under rotation. There "
    "it peaks at quarter turns for a symmetric object.",
    inputs=("model", "images"),
    seed=5,
    time_budget=30,
    config={
        "layers": list(LAYERS), "share": SHARE, "average": 200,
        "small": {"translation": 5, "scale": 1.05, "rotation": 10},
        # First, last, step.
        "translation": [-60, 60, 5], "scale": [1, 1.8, 0.05], "rotation": [0, 350, 10],
        "shown": {
            "translation": [-60, -30, 0, 30, 60], "scale": [1, 1.2, 1.4, 1.6, 1.8],
            "rotation": [0, 45, 90, 180, 270],
        },
        # The paper's: lawn mower, Shih-Tzu, African crocodile, African grey, and the symmetric
        # one, entertainment center.
        "classes": ["n03649909", "n02086240", "n01697457", "n01817953", "n03290653"],
        # The last is the symmetric one.
        "photographs": ["cat", "coffee", "motorcycle", "rocket", "coins"],
    },
    network="layers",
    version=2,
    headline=(
        "relative distance, translation by 5 pixels: layer 1",
        "relative distance, translation by 5 pixels: layer 7",
        "R squared of distance against translation: layer 7",
        "R squared of distance against scale: layer 7",
        "mean probability over all transforms, relative to the untransformed image: translation",
        "mean probability over all transforms, relative to the untransformed image: scale",
        "mean probability over all transforms, relative to the untransformed image: rotation",
    ),
)  # fmt: skip


def compute(ctx: Context) -> Result:
    config, grids = FIGURE.config, transform_grids(FIGURE.config)
    chosen = choose(ctx, config)
    titles, averaged, symmetric = chosen.titles, chosen.averaged, chosen.symmetric
    arrays: dict[str, np.ndarray] = {
        "titles": np.array(titles), "averaged": averaged, "symmetric": symmetric,
    }  # fmt: skip
    labels = torch.empty(0)
    for family in IDENTITY:
        result = invariance(
            ctx.model, chosen.squares, chosen.targets, family, grids[family].tolist(),
            layers=tuple(LAYERS), share=SHARE, progress=ctx.progress,
        )  # fmt: skip
        arrays[f"{family}.tiles"] = _tiles(chosen.squares[: len(titles)], family)
        for layer in LAYERS:
            arrays[f"{family}.{layer}"] = result.distance[layer].cpu().numpy()
        arrays[f"{family}.probability"] = result.probability.cpu().numpy()
        arrays["reference"], labels = result.reference.cpu().numpy(), result.reference_label
    predicted = [ctx.model.classes[int(label)] for label in labels[: len(titles)]]
    shown = {
        title: {"predicted class": name, "probability": float(p)}
        for title, name, p in zip(titles, predicted, arrays["reference"], strict=False)
    }
    measured: dict = {}
    if len(averaged) > 1:
        measured = measure(arrays, config, FIGURE.seed)
    measured["shown images"] = shown
    labeled = ctx.corpus != SAMPLES and len(averaged) >= 20 and len(symmetric) >= 2
    last_class = ctx.model.wnids[int(chosen.targets[len(titles) - 1])] if labeled else ""
    has_symmetric = last_class == config["classes"][-1]
    finding = summarize(measured, config) if len(averaged) > 1 else ""
    claims, summary, reason = {}, "not comparable", "The corpus has no labels, or too few images."
    if labeled:
        judgments, evidence = judge(measured, config, has_symmetric)
        (claims, summary), reason = verdict(judgments), explain(judgments, evidence)
    summary, reason = limit_verdict(summary, reason, ctx.shared_fc6)
    measured["claims"] = claims
    note = _note(ctx, chosen, labeled, has_symmetric)
    return Result(arrays, measured, summary, len(averaged), note, finding=finding, reason=reason)


def _note(ctx: Context, chosen: Chosen, labeled: bool, has_symmetric: bool) -> str:
    parts = [
        f"The reference view is the central {SHARE:.0%} of the square at 224 pixels, so that every "
        "transform samples inside the picture, once; at scale 1.8 it sees the central "
        f"{SHARE / 1.8:.0%}. Distances are Euclidean, relative to the norm of the untransformed "
        f"features (the paper does not divide). Means are over {len(chosen.averaged)} images "
        "spread over the corpus, with 95 % intervals by bootstrap over them. R squared is of a "
        "line per image. "
    ]
    if has_symmetric:
        parts.append(
            f"The symmetric object has {len(chosen.symmetric)} images of its class, which are not "
            "in the means. "
        )
    if ctx.shared_fc6:
        parts.append("With a layer 6 that is blind to position, the result is partial at best. ")
    parts.append(ctx.differences_from_paper)
    if labeled:
        parts.append(
            "Shown: of each of the paper's classes (of any classes, where the corpus lacks one) "
            "the image whose class is most probable."
        )
    else:
        parts.append(
            "Too few images, or photographs without labels, which count as the class that the "
            "network predicts: no proof."
        )
    return "".join(parts)


def _tiles(squares: Tensor, family: str) -> np.ndarray:
    """The shown views of some squares, as uint8 tiles."""
    tiles = views(squares, family, FIGURE.config["shown"][family], share=SHARE).flatten(0, 1)
    return (255 * enlarge(photograph(tiles.cpu()), 112)).round().astype(np.uint8)


def draw(result: Result) -> dict[str, Picture]:
    grids = transform_grids(FIGURE.config)
    return {
        "fig5.jpg": draw_images(result, grids, FIGURE.config["shown"]),
        "fig5_average.jpg": draw_means(result, grids),
    }
