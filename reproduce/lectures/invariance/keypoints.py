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
from reproduce.paper.dog_faces import PARTS, load_faces
from zfnet.analysis.intervals import bootstrap
from zfnet.analysis.matching import correct_keypoints, match
from zfnet.plot import LINES, new_figure, photograph, show

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
        "shown": 4,
    },
    files=("../../paper/faces.yaml",),
    network="layers",
)
SAME, BOX = "same position", "same place in the head's box"
PART_COLORS = ("cyan", "yellow", "magenta")  # different from those of the layers


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    names, x, points, heads, missing = load_faces(ctx)
    if len(names) < config["at least"]:
        note = f"The corpus has fewer than {config['at least']} annotated images. {missing}"
        return Result({}, {"images": len(names)}, "not run", n=len(names), note=note)
    head_size = (heads[:, 2:] - heads[:, :2]).amax(1)
    predicted = {
        layer: match(
            ctx.model, x.to(ctx.device), points, layer, oversampling=config["finer"]
        ).position.cpu()
        for layer in LAYERS
    }
    predicted |= {
        SAME: points[:, None].expand(-1, len(points), -1, -1).float(),
        BOX: same_in_box(points, heads),
    }
    hits_by = {  # (alphas, N, N, P)
        name: torch.stack(
            [correct_keypoints(place, points, head_size, alpha) for alpha in config["alphas"]]
        ).numpy()
        for name, place in predicted.items()
    }
    index_of = {alpha: config["alphas"].index(alpha) for alpha in config["judged"]}
    strict, loose = config["judged"]
    measured = {
        "images": len(names),
        "keypoints looked for": len(names) * (len(names) - 1) * len(PARTS),
        **{
            f"PCK at {alpha}, %": {name: pck(hits[i]) for name, hits in hits_by.items()}
            for alpha, i in index_of.items()
        },
        f"PCK at {strict} of conv5 by part, %": {
            part: pck(hits_by["conv5"][index_of[strict]][..., p : p + 1])[0]
            for p, part in enumerate(PARTS)
        },
        "PCK by alpha, %": {
            name: {str(alpha): pck(h)[0] for alpha, h in zip(config["alphas"], hits, strict=True)}
            for name, hits in hits_by.items()
        },
        "conv5 less another, points": {
            f"{other}, at {alpha}": pck(hits_by["conv5"][i].astype(float) - hits_by[other][i])
            for alpha, i in index_of.items()
            for other in (SAME, BOX, "conv1", "conv4")
        },
        f"an eye found at the other eye, within {loose}, % of eyes": swapped_eyes(
            predicted["conv5"], points, head_size, loose
        ),
    }
    claims, outcome = verdict(
        {
            f"conv5 finds more than {other}, at {alpha}": above(
                measured["conv5 less another, points"][f"{other}, at {alpha}"]
            )
            for alpha in index_of
            for other in (SAME, "conv1")
        }
    )
    arrays = {f"place.{name}": place.numpy() for name, place in predicted.items()} | {
        "points": points.numpy()
    }
    shown = np.linspace(0, len(names) - 1, config["shown"]).round().astype(int)
    arrays |= {"x": x[shown].numpy(), "shown": shown, "reach": head_size.numpy()}
    note = (
        f"{len(names)} frontal dogs, every ordered pair. Alpha is relative to the longer side of "
        "the head. Features are compared at the centers of receptive fields, and interpolated to "
        f"{config['finer']} positions per unit. 95 % intervals by bootstrap over images. "
        f"{missing}"
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(names), note=note)


def same_in_box(points: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """Map points from one head's box to another's.

    Args:
        points: Points in each image (N, P, 2).
        heads: Boxes of the heads (N, 4).

    Returns:
        The points of image i in the head of image j, (N, N, P, 2).
    """
    corner, size = (
        heads[:, None, :2].float(),
        (heads[:, None, 2:] - heads[:, None, :2]).float(),
    )  # (N, 1, 2)
    inside = (points - corner) / size
    return corner[None] + inside[:, None] * size[None]


def pck(hits: np.ndarray) -> list[float]:
    """The mean of hits over pairs of different images, in percent.

    Args:
        hits: (N, N, P).

    Returns:
        [mean, low, high], with an interval over images.
    """
    by_pair = 100 * hits.mean(2)
    n = len(by_pair)
    different = ~np.eye(n, dtype=bool)

    def mean(drawn: np.ndarray) -> float:
        # An image that is drawn twice makes no pair with itself.
        weight = np.outer(*[np.bincount(drawn, minlength=n)] * 2) * different
        return float((weight * by_pair).sum() / weight.sum()) if weight.any() else float("nan")

    return [mean(np.arange(n)), *bootstrap(mean, n, seed=FIGURE.seed)]


def swapped_eyes(
    place: torch.Tensor, points: torch.Tensor, head_size: torch.Tensor, alpha: float
) -> float:
    """The percentage of eyes whose match is at the other eye, within reach and closer to it."""
    eyes, other = place[:, :, :2], points[:, [1, 0]]
    wrong = correct_keypoints(eyes, other, head_size, alpha)
    nearer = (eyes - other[None]).norm(dim=-1) < (eyes - points[None, :, :2]).norm(dim=-1)
    different = ~torch.eye(len(points), dtype=torch.bool)
    return 100 * float((wrong & nearer)[different].float().mean())


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m, config = result.arrays, result.measured, FIGURE.config
    figure = new_figure(10, 5.4)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(0.92, 1)).flat
    grid = left.subplots(2, len(a["x"]) // 2)
    first, photos = int(a["shown"][0]), photograph(a["x"])
    for axes, photo, j in zip(grid.flat, photos, a["shown"], strict=True):
        show(axes, photo, "query: eyes and nose" if j == first else "found in another dog")
        for p, (row, column) in enumerate(a["points"][j]):
            color = PART_COLORS[p]
            axes.plot(
                column,
                row,
                "o",
                markersize=9,
                markerfacecolor="none",
                markeredgecolor=color,
                markeredgewidth=2,
            )
            if j != first:
                r, c = a["place.conv5"][first, j, p]
                axes.plot([column, c], [row, r], color=color, linewidth=1)
                # Sizes differ, so that crosses at the same position are all visible.
                axes.plot(c, r, "x", color=color, markersize=14 - 4 * p, markeredgewidth=2.4)
    handles = [
        grid[0, 0].plot([], [], "o", color=PART_COLORS[p], label=part)[0]
        for p, part in enumerate(PARTS)
    ]
    left.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    left.suptitle("circles: annotated parts; crosses: nearest features of layer 5", fontsize=9)
    axes = right.subplots()
    for number, (name, curve) in enumerate(m["PCK by alpha, %"].items()):
        plain = name in (SAME, BOX)
        style = {
            "color": "0.35" if plain else LINES[number],
            "linestyle": "-" if not plain else "--" if name == SAME else ":",
        }
        axes.plot(
            config["alphas"], list(curve.values()), marker="o", markersize=3, label=name, **style
        )
    axes.set(
        xlabel="alpha, relative to the head's longer side",
        ylabel="keypoints found (PCK), %",
        ylim=(0, 100),
    )
    right.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_title(f"{result.n} dogs, {m['keypoints looked for']:,} keypoints")
    return {"keypoints.jpg": figure}
