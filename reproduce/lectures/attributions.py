"""Eleven methods asked the same question: which pixels speak for this class?

One row an image, one column a method of `zfnet.METHODS`, for the image's true class where it has one in the network, else for
the predicted one. Maps are raw in the arrays; each picture is normalised by its own 99.5th percentile of |v|, noted above it:
from black (0) to yellow for methods without negative values, and blue (against) over white to red (for) for signed ones.
Three numbers compare them: the rank correlation of each pair of methods, as they are and of their absolute values (a signed
map and an unsigned one may agree on where, and not correlate); that of a method's map with its map for the most
probable other class; and the share of a map's absolute mass in the annotated boxes of the object over the boxes' share of the
image: 1 for an even map, and more for one that lies in the middle of every image, as its objects do. So the same is measured of
such a map, which falls evenly from the middle to the corners.
"""

from itertools import combinations

import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

import zfnet
from reproduce.core.annotations import DISTRACTOR
from reproduce.core.figure import Figure, Result
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.graph import UnsupportedNetwork
from zfnet.plot import ATTRIBUTION, DIVERGING, attribution_image, new_figure, photograph, show

FIGURE = Figure(
    id="attributions",
    title="Every attribution method on the same images",
    claim="Every method puts more of its map on the object than a map that lies in the middle does; guided backpropagation and "
    "the deconvnet, which look like the image, change less with the class than the gradient.",
    inputs=("model", "images"),
    seed=20,
    time_budget=30,
    config={
        "integrated_gradients": {"steps": 12}, "smoothgrad": {"samples": 12, "sigma": 0.15},
        "occlusion": {"size": 48, "stride": 16}, "images": 3,
    },
    files=("../paper/fig7_boxes.yaml",),
)  # fmt: skip
ON_OBJECT = "mass on the object, over its share of the image"
NEXT = "rank correlation with the map of the next class"


def compute(ctx) -> Result:
    rows = choose_images(ctx)[: FIGURE.config["images"]]
    x = torch.cat([row[1] for row in rows])
    target = torch.tensor([row[2] for row in rows], device=x.device)
    logits = ctx.model(x)
    other = logits.scatter(1, target[:, None], -torch.inf).argmax(
        1
    )  # the most probable of the other classes
    inside = torch.stack([covered(boxes, x.shape[-2:]) for *_, boxes in rows])
    arrays = {"x": x.cpu().numpy(), "boxes": inside.numpy()}
    measured: dict = {
        "images": {
            name: {"class": ctx.model.classes[int(c)], "predicted": ctx.model.classes[int(p)]}
            for (name, *_), c, p in zip(rows, target, logits.argmax(1), strict=True)
        }
    }
    maps: dict[str, torch.Tensor] = {}
    for method in ctx.progress(zfnet.METHODS, total=len(zfnet.METHODS), desc="methods"):
        options = FIGURE.config.get(method, {})
        try:
            a = zfnet.explain(ctx.model, x, method, target, **options)
        except UnsupportedNetwork as error:
            measured[method] = {"not run": str(error)}
            continue
        maps[method] = arrays[method] = a.map.cpu()
        arrays[method] = arrays[method].numpy()
        measured[method] = {
            "raw": [float(a.map.min()), float(a.map.max())],
            "state": list(a.state),
            ON_OBJECT: concentration(maps[method], inside),
        }
        if method != "occlusion":  # a second occlusion map would cost more than all the others
            b = zfnet.explain(ctx.model, x, method, other, **options)
            same = rank_correlation(a.map, b.map).nan_to_num().mean()
            measured[method][NEXT] = float(same)
    for what, shown in (
        ("", maps),
        (", of absolute values", {name: map.abs() for name, map in maps.items()}),
    ):
        measured[f"rank correlation of pairs of methods{what}"] = {
            f"{a}, {b}": float(rank_correlation(shown[a], shown[b]).nan_to_num().mean())
            for a, b in combinations(shown, 2)
        }
    measured["a map in the middle"] = {
        ON_OBJECT: concentration(central(len(x), x.shape[-1]), inside)
    }
    claims, verdict = judge(measured)
    note = "The images of Fig. 7. A map that is all zero, or not finite, is reported under 'state' and counts 0."
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(rows), note=note)


def central(n: int, side: int) -> torch.Tensor:
    """n maps (n, 1, side, side) that know nothing of an image: 1 in its middle, falling evenly to 0 in the corners."""
    from_middle = torch.arange(side) - (side - 1) / 2
    away = (from_middle[:, None] ** 2 + from_middle**2).sqrt()
    return (1 - away / away.max()).expand(n, 1, -1, -1)


def covered(boxes: dict[str, list[list[int]]], size: torch.Size) -> torch.Tensor:
    """The pixels (H, W) that lie in a box of the object."""
    inside = torch.zeros(size, dtype=torch.bool)
    for top, left, bottom, right in (
        box for kind, found in boxes.items() if kind != DISTRACTOR for box in found
    ):
        inside[top:bottom, left:right] = True
    return inside


def concentration(maps: torch.Tensor, inside: torch.Tensor) -> float | None:
    """The share of |map| (N, 1, H, W) on the object (N, H, W) over its share of the image: the mean over images with boxes."""
    mass = maps[:, 0].abs()
    share = (mass * inside).sum((1, 2)) / mass.sum((1, 2)).clamp_min(1e-30)
    area = inside.float().mean((1, 2))
    found = (share / area)[area > 0]
    return float(found.mean()) if len(found) else None


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Whether all methods are above the middle on the object, and whether two change less with the class than the gradient."""
    methods = {
        name: row for name, row in measured.items() if isinstance(row, dict) and "raw" in row
    }
    share, middle = (
        [row[ON_OBJECT] for row in methods.values()],
        measured["a map in the middle"][ON_OBJECT],
    )
    if not share or None in share:
        return {}, "not comparable"
    held = [all(s > middle for s in share)]
    claims = {
        "methods that put more on the object than a map in the middle": f"{sum(s > middle for s in share)} of {len(share)}"
    }
    for name in ("guided_backprop", "deconvnet"):
        held.append(methods[name][NEXT] > methods["saliency"][NEXT])
        claims[f"{name} changes less with the class than the gradient"] = (
            "holds" if held[-1] else "does not hold"
        )
    return claims, "reproduced" if all(held) else "partial" if any(held) else "differs"


def draw(result: Result):
    x, methods = result.arrays["x"], [name for name in zfnet.METHODS if name in result.arrays]
    columns = -(-(len(methods) + 1) // 2)
    figure = new_figure(1.4 * columns, 3.6 * len(x))
    grid = figure.subplots(2 * len(x), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.title.set_fontsize(7)
    for n, (photo, row) in enumerate(
        zip(photograph(x), result.measured["images"].values(), strict=True)
    ):
        places = iter(grid[2 * n : 2 * n + 2].flat)
        right = row["class"] == row["predicted"]
        show(
            next(places),
            photo,
            row["class"] + ("" if right else f"\ntaken for\n{row['predicted']}"),
        )
        for axes, method in zip(places, methods, strict=False):
            signed = bool(result.arrays[method].min() < 0)
            (shown,), (top,) = attribution_image(result.arrays[method][n : n + 1], signed=signed)
            show(
                axes,
                shown,
                f"{method.replace('_', ' ').replace(' plus plus', '++')}\nm = {top:.2g}",
            )
    for place, colours, least in (
        (grid[-1, : columns // 2], ATTRIBUTION, 0),
        (grid[-1, columns // 2 :], DIVERGING, -1),
    ):
        key = figure.colorbar(
            ScalarMappable(Normalize(least, 1), colours),
            ax=place,
            location="bottom",
            shrink=0.7,
            aspect=40,
        )
        key.set_ticks(
            [-1, 0, 1] if least else [0, 1],
            labels=["−m: against", "0", "m: for"] if least else ["0", "m"],
        )
    return {"attributions.jpg": figure}
