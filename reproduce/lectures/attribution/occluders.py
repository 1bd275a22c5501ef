"""What to fill an occluder with: the mean, black, noise, or the blurred image.

Zeiler and Fergus use gray and do not discuss it. The filling changes the question: a gray or black
square removes the object and adds an edge, noise adds a texture, and a blurred copy removes only
detail. The same squares cover the same image with each filling. The maps of the class's logit are
compared by rank correlation. The largest and the mean fall of the logit measure how much a filling
disturbs by itself.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import caption, new_page, set_finding, show_tiles
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.data.images import MEAN, STD
from zfnet.occlusion import cover
from zfnet.plot import HEAT, LINES, align_occlusion_map, photograph, show
from zfnet.synthesis.base import blur
from zfnet.validation import expand_fill

FIGURE = Figure(
    id="occluders",
    title="Fillings of an occluder: mean, black, noise, blur",
    claim="The fillings agree on where the evidence is. They differ in how much the logit falls: "
    "least with a blurred copy.",
    inputs=("model", "images"),
    seed=22,
    time_budget=16,
    config={"size": 48, "stride": 16, "noise": 1.0, "blur": 8.0, "images": 3, "agreement": 0.5},
    files=("../../paper/fig7_boxes.yaml",),
    version=2,
)
FILLINGS = ("mean gray", "black", "noise", "blurred")
SHOWN = 2  # images


def fillings(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The content of the square for each filling.

    Args:
        x: Network inputs (N, 3, H, W).

    Returns:
        Images like x, by name of the filling.
    """
    generator = torch.Generator().manual_seed(FIGURE.seed)
    black = -torch.tensor(MEAN, device=x.device) / torch.tensor(STD, device=x.device)
    noise = FIGURE.config["noise"] * torch.randn(x.shape, generator=generator).to(x.device)
    return dict(
        zip(
            FILLINGS,
            (expand_fill(0.0, x), expand_fill(black, x), noise, blur(x, FIGURE.config["blur"])),
            strict=True,
        )
    )


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    arrays: dict[str, np.ndarray] = {}
    measured: dict[str, Any] = {}
    for number, (name, x, target, _) in enumerate(choose_images(ctx)[: config["images"]]):
        measured[name], maps = occlude_with_all(ctx, x, target)
        arrays |= {f"{number}.{kind}": map for kind, map in maps.items()}
        arrays[f"{number}.x"] = x.cpu().numpy()
        arrays[f"{number}.examples"] = covered_centers(x)
    claims, verdict = judge(list(measured.values()))
    note = (
        f"A square of {config['size']} pixels with stride {config['stride']}. The noise has the "
        f"standard deviation of ImageNet's pixels, the blur one of {config['blur']:g} pixels. "
        "Images of Fig. 7."
    )
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(measured), note=note)


def occlude_with_all(
    ctx: Context, x: torch.Tensor, target: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Occlude an image (1, 3, H, W) with each filling: the numbers, and the maps of the logit."""
    config, maps, falls = FIGURE.config, {}, {}
    options = {"size": config["size"], "stride": config["stride"], "progress": ctx.progress}
    baseline = None
    for kind, fill in fillings(x).items():
        o = zfnet.occlude(ctx.model, x, target, fill=fill, **options)
        baseline, maps[kind] = o.baseline, o.logit.cpu()
        falls[kind] = {
            "largest": float(baseline.logit - o.logit.min()),
            "mean": float((baseline.logit - o.logit).mean()),
        }
    assert baseline is not None
    measured = {
        "class": ctx.model.classes[target],
        "predicted": ctx.model.classes[int(baseline.label)],
        "logit": float(baseline.logit),
        "fall of the logit": falls,
        "rank correlation of the maps": {
            f"{a}, {b}": float(rank_correlation(maps[a][None], maps[b][None]))
            for a, b in combinations(FILLINGS, 2)
        },
    }
    return measured, {kind: map.numpy() for kind, map in maps.items()}


def covered_centers(x: torch.Tensor) -> np.ndarray:
    """The middle of an image, its center covered with each filling, (4, 112, 112, 3)."""
    size, side = FIGURE.config["size"], x.shape[-1]
    start = (side - size) // 2
    center = torch.tensor([[start, start, start + size, start + size]], device=x.device)
    covered = torch.cat([cover(x[0], center, fill[0]) for fill in fillings(x).values()])
    middle = slice(side // 4, side - side // 4)
    return photograph(covered.cpu())[:, middle, middle]


def judge(rows: list[dict]) -> tuple[dict[str, str], str]:
    """Both claims as counts of images: all maps agree, and the blur costs least on average."""
    agreement = [
        min(row["rank correlation of the maps"].values()) > FIGURE.config["agreement"]
        for row in rows
    ]
    blur_is_least = [
        min(row["fall of the logit"], key=lambda k: row["fall of the logit"][k]["mean"])
        == FILLINGS[-1]
        for row in rows
    ]
    results = {
        f"every pair of maps has a rank correlation above {FIGURE.config['agreement']}": agreement,
        "the blurred copy lowers the logit least, on average over positions": blur_is_least,
    }
    claims = {claim: f"{sum(images)} of {len(images)}" for claim, images in results.items()}
    results_all = agreement + blur_is_least
    return claims, "reproduced" if all(results_all) else "partial" if any(
        results_all
    ) else "differs"


def draw(result: Result) -> dict[str, Any]:
    a, rows = result.arrays, {k: v for k, v in result.measured.items() if k != "claims"}
    shown = list(rows.items())[:SHOWN]
    figure = new_page(2.0 * len(shown) + 2.2)
    above, below = figure.subfigures(
        2, 1, squeeze=False, height_ratios=(2.0 * len(shown), 2.0)
    ).flat
    grid = above.subplots(len(shown), len(FILLINGS) + 1, squeeze=False)
    for number, (axes, (_, row)) in enumerate(zip(grid, shown, strict=True)):
        draw_maps(axes, a, number, row)
    example, bars = below.subplots(1, 2, width_ratios=(1.5, 1))
    show_tiles(example, a["0.examples"], 4, ", ".join(FILLINGS), gap=6, characters=60)
    falls = {
        kind: np.array([row["fall of the logit"][kind]["mean"] for row in rows.values()])
        for kind in FILLINGS
    }
    for place, values in enumerate(falls.values()):
        bars.plot(values, np.full(len(values), place), "o", color=LINES[0], alpha=0.7)
        bars.plot(values.mean(), place, "D", color=LINES[1])
    bars.set_yticks(range(len(FILLINGS)), FILLINGS)
    bars.axvline(0, color="black", linewidth=0.8)
    bars.set_ylim(len(FILLINGS) - 0.5, -0.5)
    bars.set_xlabel("mean fall of the logit: each image (circles)\nand their mean (diamonds)")
    lowest = min(min(row["rank correlation of the maps"].values()) for row in rows.values())
    least = min(falls, key=lambda kind: float(falls[kind].mean()))
    set_finding(
        figure,
        f"The maps of two fillings have a rank correlation of at least {lowest:.2f}; "
        f"{least} lowers the logit least on average",
    )
    return {"occluders.jpg": figure}


def draw_maps(axes: np.ndarray, a: dict[str, np.ndarray], number: int, row: dict) -> None:
    """One image, and the map of the logit with each filling, on one scale."""
    size, stride, x = FIGURE.config["size"], FIGURE.config["stride"], a[f"{number}.x"]
    maps = [a[f"{number}.{kind}"] for kind in FILLINGS]
    low, high = min(map.min() for map in maps), max(map.max() for map in maps)
    show(axes[0], photograph(x)[0])
    right = row["class"] == row["predicted"]
    caption(axes[0], row["class"] + ("" if right else f" (predicted: {row['predicted']})"), 24)
    for panel, kind, map in zip(axes[1:], FILLINGS, maps, strict=True):
        image = panel.imshow(map, cmap=HEAT, vmin=low, vmax=high)
        align_occlusion_map(panel, size, stride, x.shape[-1])
        panel.set_axis_off()
        caption(
            panel, f"{kind}: falls by up to {row['fall of the logit'][kind]['largest']:.1f}", 20
        )
    figure = axes[0].get_figure(root=True)
    figure.colorbar(image, ax=list(axes), fraction=0.03, pad=0.01, label="logit under\nthe square")
