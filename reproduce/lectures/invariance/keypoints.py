"""Keypoints of a dog, found in other dogs by the nearest features.

Long, Zhang and Darrell (2014) ask whether a network trained on classes has learned correspondence.
Each annotated eye and nose of an image (those of Table 1) is searched for in every other image, at
the position with the most similar features by cosine. A keypoint is found if that position is
within alpha times the longer side of the head (PCK). One baseline predicts the same position as in
the first image, a good guess for centered frontal dogs. A second one predicts the same position in
the head's box, which no method knows. Intervals are by bootstrap over images, whose pairs are not
independent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import caption, new_page, set_finding
from reproduce.lectures.invariance.keypoint_pictures import PART_COLORS, draw_curves, draw_points
from reproduce.lectures.invariance.keypoint_scores import (
    example_pairs,
    pck,
    same_in_box,
    swapped_eyes,
)
from reproduce.paper.dog_faces import PARTS, load_faces
from zfnet.analysis.matching import correct_keypoints, match
from zfnet.plot import photograph, show

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FIGURE = Figure(
    id="keypoints",
    title="Keypoints of another dog, by the nearest features",
    claim="The nearest features of layer 5 find another dog's eyes and nose more often than the "
    "same position does, and more often than features of layer 1.",
    inputs=("model", "images"),
    seed=31,
    time_budget=4,
    config={
        "layers": LAYERS,
        "judged": [0.1, 0.2],
        "alphas": [0.05, 0.1, 0.15, 0.2, 0.3, 0.4],
        "finer": 2,
        "at least": 10,
    },
    version=2,
    files=("../../paper/faces.yaml",),
    network="layers",
)
SAME, BOX = "same position", "same place in the head's box"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    names, x, points, heads, missing = load_faces(ctx)
    if len(names) < config["at least"]:
        note = f"The corpus has fewer than {config['at least']} annotated images. {missing}"
        return Result({}, {"images": len(names)}, "not run", n=len(names), note=note)
    head_size = (heads[:, 2:] - heads[:, :2]).amax(1)
    predicted = predict(ctx, x, points, heads)
    measured = measure(predicted, points, head_size)
    claims, outcome = verdict(
        {
            f"conv5 finds more keypoints than {other}, within {alpha}": above(
                measured["conv5 less another, points"][f"{other}, at {alpha}"]
            )
            for alpha in config["judged"]
            for other in (SAME, "conv1")
        }
    )
    pairs, errors = example_pairs(predicted["conv5"], points, head_size)
    arrays = {
        "pairs": pairs,
        "errors": errors,
        "x": x[torch.from_numpy(pairs)].numpy(),
        "points": points[torch.from_numpy(pairs)].numpy(),
        "matches": np.stack([predicted["conv5"][i, j].numpy() for i, j in pairs]),
    }
    note = (
        f"{len(names)} frontal dogs, every ordered pair. Alpha is relative to the longer side of "
        "the head. Features are compared at the centers of receptive fields, and interpolated to "
        f"{config['finer']} positions per unit. 95 % intervals by bootstrap over images. The pairs "
        "shown have the smallest, the median and the largest mean error of the three keypoints. "
        f"{missing}"
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(names), note=note)


def predict(
    ctx: Context, x: torch.Tensor, points: torch.Tensor, heads: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The predicted keypoints of image i in image j by each method, (N, N, P, 2)."""
    predicted = {}
    for layer in LAYERS:
        matches = match(
            ctx.model, x.to(ctx.device), points, layer, oversampling=FIGURE.config["finer"]
        )
        predicted[layer] = matches.position.cpu()
    predicted[SAME] = points[:, None].expand(-1, len(points), -1, -1).float()
    return predicted | {BOX: same_in_box(points, heads)}


def measure(
    predicted: dict[str, torch.Tensor], points: torch.Tensor, head_size: torch.Tensor
) -> dict[str, Any]:
    """The percentage of correct keypoints (PCK) of each method, and differences.

    Args:
        predicted: Predicted keypoints (N, N, P, 2) by method.
        points: Annotated keypoints (N, P, 2).
        head_size: The longer side of each head (N,).
    """
    alphas, judged = FIGURE.config["alphas"], FIGURE.config["judged"]
    hits = {  # by method and alpha, (N, N, P)
        name: {
            alpha: correct_keypoints(place, points, head_size, alpha).numpy() for alpha in alphas
        }
        for name, place in predicted.items()
    }
    (strict, loose), seed, n = judged, FIGURE.seed, len(points)
    return {
        "images": n,
        "keypoints looked for": n * (n - 1) * len(PARTS),
        **{
            f"PCK at {alpha}, %": {name: pck(rows[alpha], seed) for name, rows in hits.items()}
            for alpha in judged
        },
        f"PCK at {strict} of conv5 by part, %": {
            part: pck(hits["conv5"][strict][..., p : p + 1], seed)[0]
            for p, part in enumerate(PARTS)
        },
        "PCK by alpha, %": {
            name: {str(alpha): pck(h, seed)[0] for alpha, h in rows.items()}
            for name, rows in hits.items()
        },
        "conv5 less another, points": {
            f"{other}, at {alpha}": pck(
                hits["conv5"][alpha].astype(float) - hits[other][alpha], seed
            )
            for alpha in judged
            for other in (SAME, BOX, "conv1", "conv4")
        },
        f"an eye found at the other eye, within {loose}, % of eyes": swapped_eyes(
            predicted["conv5"], points, head_size, loose
        ),
    }


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    figure = new_page(5.1)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.45, 1)).flat
    grid = left.subplots(2, 3)
    cases = zip(("best", "typical", "worst"), a["errors"], strict=True)
    for n, (case, error) in enumerate(cases):
        for panel, photo, points in zip(
            grid[:, n], photograph(a["x"][n]), a["points"][n], strict=True
        ):
            show(panel, photo)
            draw_points(panel, points, "o", markersize=8, markerfacecolor="none")
        draw_points(grid[1, n], a["matches"][n], "x", markersize=8)
        caption(grid[0, n], f"{case} pair:")
        caption(grid[1, n], f"off by {error:.0%} of the head")
    handles = [
        grid[0, 0].plot([], [], "o", color=color, label=part)[0]
        for part, color in zip(PARTS, PART_COLORS, strict=True)
    ]
    left.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False,
        title="circles: annotated; crosses: nearest features of layer 5",
    )  # fmt: skip
    draw_curves(right.subplots(), m["PCK by alpha, %"], {SAME: "--", BOX: ":"})
    strict = FIGURE.config["judged"][0]
    scores = {name: values[0] for name, values in m[f"PCK at {strict}, %"].items()}
    set_finding(
        figure,
        f"Within {strict:.0%} of the head, features of layer 5 find {scores['conv5']:.0f} % of "
        f"another dog's eyes and nose; the same position finds {scores[SAME]:.0f} %, and the same "
        f"place in the head's box {scores[BOX]:.0f} %",
    )
    return {"keypoints.jpg": figure}
