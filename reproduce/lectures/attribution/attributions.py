"""Eleven attribution methods on the same images: which pixels support a class?

Each picture is of one image, with the map of each method of `zfnet.METHODS`. The class is the
image's true class where the network has it, otherwise the predicted one. Arrays hold raw maps. Each
map is scaled by its own 99.5th percentile of |v|: black (0) to yellow for methods without negative
values; blue (against), white, red (for) for signed ones.

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
from matplotlib.figure import Figure as Picture

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import blank, caption, new_page, set_finding
from reproduce.lectures.attribution.concentration import (
    central_maps,
    concentration,
    object_mask,
)
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.graph import UnsupportedNetwork
from zfnet.plot import ATTRIBUTION, DIVERGING, attribution_image, photograph, show

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
    logits, classes = ctx.model(x), ctx.model.classes
    inside = torch.stack([object_mask(boxes, x.shape[-2:]) for *_, boxes in rows])
    measured: dict = {
        "images": {
            name: {"class": classes[int(c)], "predicted": classes[int(p)]}
            for (name, *_), c, p in zip(rows, target, logits.argmax(1), strict=True)
        }
    }
    other = logits.scatter(1, target[:, None], -torch.inf).argmax(1)  # most probable other class
    maps: dict[str, torch.Tensor] = {}
    for method in ctx.progress(zfnet.METHODS, total=len(zfnet.METHODS), desc="methods"):
        try:
            maps[method], measured[method] = explain_both(ctx, x, target, other, method)
            measured[method][ON_OBJECT] = concentration(maps[method], inside)
        except UnsupportedNetwork as error:
            measured[method] = {"not run": str(error)}
    measured |= pair_correlations(maps)
    measured["a map in the middle"] = {
        ON_OBJECT: concentration(central_maps(len(x), x.shape[-1]), inside)
    }
    claims, verdict = judge(measured)
    arrays = {"x": x.cpu().numpy(), "boxes": inside.numpy()}
    arrays |= {method: map.numpy() for method, map in maps.items()}
    note = (
        "Images of Fig. 7. Maps that are zero or not finite are marked in 'state' and count as 0. "
        "Each picture is scaled by the 99.5th percentile of its map's absolute values."
    )
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(rows), note=note)


def explain_both(
    ctx: Context, x: torch.Tensor, target: torch.Tensor, other: torch.Tensor, method: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The map (N, 1, H, W) of a method for the target, and how it differs for another class."""
    options = FIGURE.config.get(method, {})
    a = zfnet.explain(ctx.model, x, method, target, **options)
    measured: dict[str, Any] = {
        "raw": [float(a.map.min()), float(a.map.max())],
        "state": list(a.state),
    }
    if method != "occlusion":  # a second map would take longer than all other methods
        b = zfnet.explain(ctx.model, x, method, other, **options)
        measured[NEXT] = float(rank_correlation(a.map, b.map).nan_to_num().mean())
    return a.map.cpu(), measured


def pair_correlations(maps: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    """The rank correlations of each pair of methods, raw and of absolute values."""
    absolute = {name: map.abs() for name, map in maps.items()}
    return {
        f"rank correlation of pairs of methods{suffix}": {
            f"{a}, {b}": float(rank_correlation(of[a], of[b]).nan_to_num().mean())
            for a, b in combinations(of, 2)
        }
        for suffix, of in (("", maps), (", of absolute values", absolute))
    }


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
    """One picture per image."""
    rows = list(result.measured["images"].values())
    return {
        f"attributions{n + 1 if n else ''}.jpg": draw_image(result, n, row)
        for n, row in enumerate(rows)
    }


def draw_image(result: Result, n: int, row: dict[str, str]) -> Picture:
    """Draw an image and its map by each method."""
    methods = [name for name in zfnet.METHODS if name in result.arrays]
    figure = new_page(7.0)
    grid = figure.subplots(3, 4)
    blank(grid)
    photo, *panels = grid.flat
    show(photo, photograph(result.arrays["x"][n : n + 1])[0])
    caption(photo, f"predicted: {row['predicted']}")
    for axes, method in zip(panels, methods, strict=False):
        maps = result.arrays[method]
        (shown,), _ = attribution_image(maps[n : n + 1], signed=bool(maps.min() < 0))
        show(axes, shown)
        caption(axes, method.replace("_plus_plus", "++").replace("_", " "))
    ends = {ATTRIBUTION: (0, ("0", "largest")), DIVERGING: (-1, ("against", "for"))}
    for place, (colormap, (low, labels)) in zip(
        (grid[-1, :2], grid[-1, 2:]), ends.items(), strict=True
    ):
        scale = ScalarMappable(Normalize(low, 1), colormap)
        key = figure.colorbar(scale, ax=place, location="bottom", shrink=0.7, aspect=40)
        key.set_ticks([low, 1], labels=labels)
    share = {method: result.measured[method][ON_OBJECT] for method in methods}
    central = result.measured["a map in the middle"][ON_OBJECT]
    finding = f"Why {row['class']}? {len(methods)} methods, different answers"
    if central is not None:
        more = sum(value > central for value in share.values())
        finding += f"; {more} of them put more on the object than a map in the middle does"
    set_finding(figure, finding)
    return figure
