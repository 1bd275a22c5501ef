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
from reproduce.core.page import new_page, set_finding
from reproduce.lectures.invariance.keypoint_pictures import draw_curves, draw_pairs
from reproduce.lectures.invariance.keypoint_scores import (
    example_pairs,
    pck,
    same_in_box,
    swapped_eyes,
)
from reproduce.paper.dog_faces import PARTS, load_faces
from zfnet.analysis.matching import correct_keypoints, match

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
        "positions per unit": 2,
        "minimum images": 10,
    },
    version=3,
    files=("../../paper/faces.yaml",),
    network="layers",
)
SAME, BOX = "same position", "same place in the head's box"
NAMES = {SAME: "the same position", "conv1": "layer 1"}  # in sentences
DIFFERENCE = "conv5 minus another method, points"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    names, x, points, heads, missing = load_faces(ctx)
    if len(names) < config["minimum images"]:
        note = f"The corpus has fewer than {config['minimum images']} annotated images. {missing}"
        return Result({}, {"images": len(names)}, "not run", n=len(names), note=note)
    head_size = (heads[:, 2:] - heads[:, :2]).amax(1)
    predicted = predict(ctx, x, points, heads)
    measured = measure(predicted, points, head_size)
    claims, outcome = verdict(
        {
            f"layer 5 finds more keypoints than {NAMES[other]} within {100 * alpha:.0f} %": above(
                measured[DIFFERENCE][f"{other}, within {alpha}"]
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
        f"All ordered pairs of {len(names)} frontal dogs are compared. Alpha is relative to the "
        "longer side of the head. Features are compared at the centers of receptive fields, and "
        f"interpolated to {config['positions per unit']} positions per unit. The 95 % intervals "
        "are by bootstrap over images. The pairs shown have the smallest, the median and the "
        "largest mean error of the three keypoints. "
        f"{missing}"
    )
    finding, reason = state_finding(measured), state_reason(measured, outcome)
    measured |= {"claims": claims}
    return Result(arrays, measured, outcome, len(names), note, finding=finding, reason=reason)


def state_finding(m: dict) -> str:
    """The share of keypoints that layer 5 and the baselines find within the strict tolerance."""
    strict = FIGURE.config["judged"][0]
    scores = {name: values[0] for name, values in m[f"PCK at {strict}, %"].items()}
    return (
        f"Within {100 * strict:.0f} % of the head's size, features of layer 5 find "
        f"{scores['conv5']:.0f} % of another dog's eyes and nose; the same position in the image "
        f"finds {scores[SAME]:.0f} %, and the same place in the head's box {scores[BOX]:.0f} %."
    )


def state_reason(m: dict, outcome: str) -> str:
    """The comparisons that layer 5 does not win, with their intervals."""
    if outcome == "reproduced":
        return ""
    misses = [
        f"than {NAMES[other]} within {100 * alpha:.0f} % "
        f"(difference {row[1]:+.0f} to {row[2]:+.0f} points)"
        for alpha in FIGURE.config["judged"]
        for other in (SAME, "conv1")
        if not above(row := m[DIFFERENCE][f"{other}, within {alpha}"])
    ]
    return f"Layer 5 does not find more keypoints {' and '.join(misses)}."


def predict(
    ctx: Context, x: torch.Tensor, points: torch.Tensor, heads: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The predicted keypoints of image i in image j by each method, (N, N, P, 2)."""
    predicted = {}
    for layer in LAYERS:
        matches = match(
            ctx.model,
            x.to(ctx.device),
            points,
            layer,
            oversampling=FIGURE.config["positions per unit"],
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
        "keypoints to find": n * (n - 1) * len(PARTS),
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
        DIFFERENCE: {
            f"{other}, within {alpha}": pck(
                hits["conv5"][alpha].astype(float) - hits[other][alpha], seed
            )
            for alpha in judged
            for other in (SAME, BOX, "conv1", "conv4")
        },
        f"eyes matched to the other eye, within {loose}, %": swapped_eyes(
            predicted["conv5"], points, head_size, loose
        ),
    }


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    figure = new_page(5.1)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.45, 1)).flat
    draw_pairs(left, result.arrays, PARTS)
    draw_curves(right.subplots(), result.measured["PCK by alpha, %"], {SAME: "--", BOX: ":"})
    set_finding(figure, result.finding)
    return {"keypoints.jpg": figure}
