"""Eleven attribution methods on the same images: which pixels support a class?

Each row is an image, each column a method of `zfnet.METHODS`. The class is the image's true class
where the network has it, otherwise the predicted one. Arrays hold raw maps. Each picture is scaled
by its own 99.5th percentile of |v|, which its title states: black (0) to yellow for methods without
negative values; blue (against), white, red (for) for signed ones.

Three numbers compare the methods: the rank correlation of each pair of maps, raw and of absolute
values, since a signed and an unsigned map may agree on locations and not correlate; the rank
correlation of a map with that of the most probable other class; and the share of a map's absolute
mass in the object's boxes, divided by the boxes' share of the image. The last one is 1 for a flat
map, and larger for a centered map, as objects are usually in the center. A central map, which falls
from the center to the corners, is measured as a baseline.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

import zfnet
from reproduce.core.annotations import DISTRACTOR
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.graph import UnsupportedNetwork
from zfnet.plot import ATTRIBUTION, DIVERGING, attribution_image, new_figure, photograph, show

FIGURE = Figure(
    id="attributions",
    title="Attribution methods on the same images",
    claim="Every method puts more of its map on the object than a central map does. Guided "
    "backpropagation and the deconvnet, which look like the image, change less with the class than "
    "the gradient.",
    inputs=("model", "images"),
    seed=20,
    time_budget=30,
    config={
        "integrated_gradients": {"steps": 12},
        "smoothgrad": {"samples": 12, "sigma": 0.15},
        "occlusion": {"size": 48, "stride": 16},
        "images": 3,
    },
    files=("../../paper/fig7_boxes.yaml",),
)
ON_OBJECT = "mass on the object, over its share of the image"
NEXT = "rank correlation with the map of the next class"


def compute(ctx: Context) -> Result:
    rows = choose_images(ctx)[: FIGURE.config["images"]]
    x = torch.cat([row[1] for row in rows])
    target = torch.tensor([row[2] for row in rows], device=x.device)
    logits = ctx.model(x)
    other = logits.scatter(1, target[:, None], -torch.inf).argmax(1)  # most probable other class
    inside = torch.stack([object_mask(boxes, x.shape[-2:]) for *_, boxes in rows])
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
        maps[method] = a.map.cpu()
        arrays[method] = maps[method].numpy()
        measured[method] = {
            "raw": [float(a.map.min()), float(a.map.max())],
            "state": list(a.state),
            ON_OBJECT: concentration(maps[method], inside),
        }
        if method != "occlusion":  # a second map would take longer than all other methods
            b = zfnet.explain(ctx.model, x, method, other, **options)
            correlation = rank_correlation(a.map, b.map).nan_to_num().mean()
            measured[method][NEXT] = float(correlation)
    for suffix, shown in (
        ("", maps),
        (", of absolute values", {name: map.abs() for name, map in maps.items()}),
    ):
        measured[f"rank correlation of pairs of methods{suffix}"] = {
            f"{a}, {b}": float(rank_correlation(shown[a], shown[b]).nan_to_num().mean())
            for a, b in combinations(shown, 2)
        }
    measured["a map in the middle"] = {
        ON_OBJECT: concentration(central_maps(len(x), x.shape[-1]), inside)
    }
    claims, verdict = judge(measured)
    note = (
        "Images of Fig. 7. Maps that are zero or not finite are marked in 'state' and count as 0."
    )
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(rows), note=note)


def central_maps(n: int, side: int) -> torch.Tensor:
    """Maps that do not depend on an image: 1 in the center, falling evenly to 0 in the corners.

    Args:
        n: Number of maps.
        side: Their size.

    Returns:
        (n, 1, side, side).
    """
    from_middle = torch.arange(side) - (side - 1) / 2
    distance = (from_middle[:, None] ** 2 + from_middle**2).sqrt()
    return (1 - distance / distance.max()).expand(n, 1, -1, -1)


def object_mask(boxes: dict[str, list[list[int]]], size: torch.Size) -> torch.Tensor:
    """The pixels in a box of the object, (H, W) bool."""
    inside = torch.zeros(size, dtype=torch.bool)
    for top, left, bottom, right in (
        box for kind, relative in boxes.items() if kind != DISTRACTOR for box in relative
    ):
        inside[top:bottom, left:right] = True
    return inside


def concentration(maps: torch.Tensor, inside: torch.Tensor) -> float | None:
    """The share of |map| on the object, divided by the object's share of the image.

    Args:
        maps: (N, 1, H, W).
        inside: Masks of the objects (N, H, W).

    Returns:
        The mean over images with boxes; None without any.
    """
    mass = maps[:, 0].abs()
    share = (mass * inside).sum((1, 2)) / mass.sum((1, 2)).clamp_min(1e-30)
    area = inside.float().mean((1, 2))
    relative = (share / area)[area > 0]
    return float(relative.mean()) if len(relative) else None


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """All methods beat the central map on the object, and two change less with the class."""
    methods = {
        name: row for name, row in measured.items() if isinstance(row, dict) and "raw" in row
    }
    share, central = (
        [row[ON_OBJECT] for row in methods.values()],
        measured["a map in the middle"][ON_OBJECT],
    )
    if not share or None in share:
        return {}, "not comparable"
    count = sum(s > central for s in share)
    results = [count == len(share)]
    claims = {"methods that put more on the object than a central map": f"{count} of {len(share)}"}
    for name in ("guided_backprop", "deconvnet"):
        results.append(methods[name][NEXT] > methods["saliency"][NEXT])
        claims[f"{name} changes less with the class than the gradient"] = (
            "holds" if results[-1] else "does not hold"
        )
    return claims, "reproduced" if all(results) else "partial" if any(results) else "differs"


def draw(result: Result) -> dict[str, Any]:
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
            row["class"] + ("" if right else f"\npredicted:\n{row['predicted']}"),
        )
        for axes, method in zip(places, methods, strict=False):
            signed = bool(result.arrays[method].min() < 0)
            (shown,), (top,) = attribution_image(result.arrays[method][n : n + 1], signed=signed)
            show(
                axes,
                shown,
                f"{method.replace('_', ' ').replace(' plus plus', '++')}\nm = {top:.2g}",
            )
    for panels_below, colormap, low in (
        (grid[-1, : columns // 2], ATTRIBUTION, 0),
        (grid[-1, columns // 2 :], DIVERGING, -1),
    ):
        key = figure.colorbar(
            ScalarMappable(Normalize(low, 1), colormap),
            ax=panels_below,
            location="bottom",
            shrink=0.7,
            aspect=40,
        )
        key.set_ticks(
            [-1, 0, 1] if low else [0, 1],
            labels=["−m: against", "0", "m: for"] if low else ["0", "m"],
        )
    return {"attributions.jpg": figure}
