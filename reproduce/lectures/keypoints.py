"""Do features know what corresponds? A dog's eye, looked for in another dog by the nearest feature.

Long, Zhang and Darrell 2014 ask whether a network trained to name images has learnt which places correspond. Each annotated
eye and nose of an image (those of Table 1) is looked for in every other image: the place whose features are nearest, by
cosine. A keypoint is found if the place is within alpha times the head's longer side of the truth (PCK). The baseline answers
the same position as in the first image, which frontal dogs in the middle make a good guess; a second one, the position in
the head's box, which no method is told. Intervals are by bootstrap over images, of which pairs are not independent.
"""

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.dog_faces import PARTS, load_faces
from zfnet.analysis.intervals import bootstrap
from zfnet.analysis.matching import correct_keypoints, match
from zfnet.plot import LINES, new_figure, photograph, show

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FIGURE = Figure(
    id="keypoints",
    title="The same part of another dog, by the nearest features",
    claim="The nearest features of layer 5 find another dog's eyes and nose more often than the same position does, and than "
    "those of layer 1.",
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
    files=("../paper/faces.yaml",),
    network="chain",
)
SAME, BOX = "same position", "same place in the head's box"
PART_COLOURS = ("cyan", "yellow", "magenta")  # none of the layers'


def compute(ctx) -> Result:
    config = FIGURE.config
    names, x, points, heads, missing = load_faces(ctx)
    if len(names) < config["at least"]:
        note = f"Fewer than {config['at least']} annotated images in the corpus. {missing}"
        return Result({}, {"images": len(names)}, "not run", n=len(names), note=note)
    reach = (heads[:, 2:] - heads[:, :2]).amax(1)
    places = {
        layer: match(
            ctx.model, x.to(ctx.device), points, layer, oversampling=config["finer"]
        ).position.cpu()
        for layer in LAYERS
    }
    places |= {
        SAME: points[:, None].expand(-1, len(points), -1, -1).float(),
        BOX: in_the_box(points, heads),
    }
    found = {  # (alphas, N, N, P)
        name: torch.stack(
            [correct_keypoints(place, points, reach, alpha) for alpha in config["alphas"]]
        ).numpy()
        for name, place in places.items()
    }
    at = {alpha: config["alphas"].index(alpha) for alpha in config["judged"]}
    strict, wide = config["judged"]
    measured = {
        "images": len(names), "keypoints looked for": len(names) * (len(names) - 1) * len(PARTS),
        **{f"PCK at {alpha}, %": {name: pck(hits[i]) for name, hits in found.items()} for alpha, i in at.items()},
        f"PCK at {strict} of conv5 by part, %": {
            part: pck(found["conv5"][at[strict]][..., p : p + 1])[0] for p, part in enumerate(PARTS)
        },
        "PCK by alpha, %": {
            name: {str(alpha): pck(h)[0] for alpha, h in zip(config["alphas"], hits, strict=True)}
            for name, hits in found.items()
        },
        "conv5 less another, points": {
            f"{other}, at {alpha}": pck(found["conv5"][i].astype(float) - found[other][i])
            for alpha, i in at.items() for other in (SAME, BOX, "conv1", "conv4")
        },
        f"an eye found at the other eye, within {wide}, % of eyes": crossed(places["conv5"], points, reach, wide),
    }  # fmt: skip
    claims, outcome = verdict({
        f"conv5 finds more than {other}, at {alpha}": above(measured["conv5 less another, points"][f"{other}, at {alpha}"])
        for alpha in at for other in (SAME, "conv1")
    })  # fmt: skip
    arrays = {f"place.{name}": place.numpy() for name, place in places.items()} | {
        "points": points.numpy()
    }
    shown = np.linspace(0, len(names) - 1, config["shown"]).round().astype(int)
    arrays |= {"x": x[shown].numpy(), "shown": shown, "reach": reach.numpy()}
    note = (
        f"{len(names)} frontal dogs, every ordered pair; alpha is in units of the head's longer side. Features are compared at "
        f"the centres of receptive fields and, between them, interpolated to {config['finer']} places a unit. 95 % intervals "
        f"by bootstrap over images. {missing}"
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(names), note=note)


def in_the_box(points: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """Where points (N, P, 2) of head i lie in head j, heads (N, 4), if moved and scaled with the box: (N, N, P, 2)."""
    corner, size = (
        heads[:, None, :2].float(),
        (heads[:, None, 2:] - heads[:, None, :2]).float(),
    )  # (N, 1, 2)
    inside = (points - corner) / size
    return corner[None] + inside[:, None] * size[None]


def pck(hits: np.ndarray) -> list[float]:
    """100 times the mean of hits (N, N, P) over pairs of different images, with its interval over images: [mean, low, high]."""
    by_pair = 100 * hits.mean(2)
    n = len(by_pair)
    apart = ~np.eye(n, dtype=bool)

    def mean(drawn: np.ndarray) -> float:
        weight = (
            np.outer(*[np.bincount(drawn, minlength=n)] * 2) * apart
        )  # an image drawn twice is no pair with itself
        return float((weight * by_pair).sum() / weight.sum()) if weight.any() else float("nan")

    return [mean(np.arange(n)), *bootstrap(mean, n, seed=FIGURE.seed)]


def crossed(place: torch.Tensor, points: torch.Tensor, reach: torch.Tensor, alpha: float) -> float:
    """How often an eye's match is at the other eye, within reach and nearer to it, in per cent of the pairs' eyes."""
    eyes, other = place[:, :, :2], points[:, [1, 0]]
    wrong = correct_keypoints(eyes, other, reach, alpha)
    nearer = (eyes - other[None]).norm(dim=-1) < (eyes - points[None, :, :2]).norm(dim=-1)
    apart = ~torch.eye(len(points), dtype=torch.bool)
    return 100 * float((wrong & nearer)[apart].float().mean())


def draw(result: Result):
    if not result.arrays:
        return {}
    a, m, config = result.arrays, result.measured, FIGURE.config
    figure = new_figure(10, 5.4)
    left, right = figure.subfigures(1, 2, width_ratios=(0.92, 1))
    grid = left.subplots(2, len(a["x"]) // 2)
    first, photos = int(a["shown"][0]), photograph(a["x"])
    for axes, photo, j in zip(grid.flat, photos, a["shown"], strict=True):
        show(axes, photo, "asked: eyes and nose of this dog" if j == first else "found in another")
        for p, (row, column) in enumerate(a["points"][j]):
            colour = PART_COLOURS[p]
            axes.plot(
                column,
                row,
                "o",
                markersize=9,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=2,
            )
            if j != first:
                r, c = a["place.conv5"][first, j, p]
                axes.plot([column, c], [row, r], color=colour, linewidth=1)
                axes.plot(
                    c, r, "x", color=colour, markersize=14 - 4 * p, markeredgewidth=2.4
                )  # seen if one lies on another
    handles = [
        grid[0, 0].plot([], [], "o", color=PART_COLOURS[p], label=part)[0]
        for p, part in enumerate(PARTS)
    ]
    left.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    left.suptitle(
        "circles: the annotated parts; crosses: the nearest features of layer 5", fontsize=9
    )
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
        xlabel="alpha, of the head's longer side", ylabel="keypoints found (PCK), %", ylim=(0, 100)
    )
    right.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_title(f"{result.n} dogs, {m['keypoints looked for']:,} keypoints")
    return {"keypoints.jpg": figure}
