"""What to fill an occluder with: the mean, black, noise, or the blurred image.

Zeiler and Fergus use gray and do not discuss it. The filling changes the question: a gray or black
square removes the object and adds an edge, noise adds a texture, and a blurred copy removes only
detail. The same squares cover the same image with each filling. The maps of the class's logit are
compared by rank correlation. The largest and the mean fall of the logit measure how much a filling
disturbs by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.data.images import MEAN, STD
from zfnet.occlusion import cover
from zfnet.plot import HEAT, align_occlusion_map, new_figure, photograph, show
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
)
FILLINGS = ("mean grey", "black", "noise", "blurred")


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
    config, arrays, measured = FIGURE.config, {}, {}
    for number, (name, x, target, _) in enumerate(choose_images(ctx)[: config["images"]]):
        maps, drops = {}, {}
        center = torch.tensor([[88, 88, 136, 136]], device=x.device)
        for kind, filled in fillings(x).items():
            o = zfnet.occlude(
                ctx.model,
                x,
                target,
                size=config["size"],
                stride=config["stride"],
                fill=filled,
                progress=ctx.progress,
            )
            maps[kind] = o.logit.cpu()
            drops[kind] = {
                "largest": float(o.baseline.logit - o.logit.min()),
                "mean": float((o.baseline.logit - o.logit).mean()),
            }
            arrays[f"{number}.{kind}"] = maps[kind].numpy()
            arrays[f"{number}.{kind}.example"] = cover(x[0], center, filled[0]).cpu().numpy()
        flat = torch.stack([maps[kind].flatten() for kind in FILLINGS])
        pairs = [(a, b) for i, a in enumerate(FILLINGS) for b in FILLINGS[i + 1 :]]
        correlations = [float(rank_correlation(maps[a][None], maps[b][None])) for a, b in pairs]
        measured[name] = {
            "class": ctx.model.classes[target],
            "predicted": ctx.model.classes[int(o.baseline.label)],
            "logit": float(o.baseline.logit),
            "fall of the logit": drops,
            "rank correlation of the maps": {
                f"{a}, {b}": r for (a, b), r in zip(pairs, correlations, strict=True)
            },
        }
        arrays[f"{number}.limits"] = np.array([float(flat.min()), float(flat.max())])
    claims, verdict = judge(list(measured.values()))
    note = (
        f"A square of {config['size']} pixels with stride {config['stride']}. The noise has the "
        f"standard deviation of ImageNet's pixels, the blur one of {config['blur']:g} pixels. "
        "Images of Fig. 7."
    )
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(measured), note=note)


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
    names = [name for name in result.measured if name != "claims"]
    figure = new_figure(8.6, 4.4 * len(names))
    grid = figure.subplots(2 * len(names), len(FILLINGS), squeeze=False)
    for number, name in enumerate(names):
        row, pair = result.measured[name], grid[2 * number : 2 * number + 2]
        low, high = result.arrays[f"{number}.limits"]
        for top, below, kind in zip(*pair, FILLINGS, strict=True):
            right = row["class"] == row["predicted"]
            caption = row["class"] + ("" if right else f" (predicted: {row['predicted']})")
            show(top, photograph(result.arrays[f"{number}.{kind}.example"])[0], kind)
            top.set_title(f"{caption}\n" if kind == FILLINGS[0] else "", loc="left", weight="bold")
            fall = row["fall of the logit"][kind]
            shown = below.imshow(result.arrays[f"{number}.{kind}"], cmap=HEAT, vmin=low, vmax=high)
            align_occlusion_map(
                below,
                FIGURE.config["size"],
                FIGURE.config["stride"],
                len(top.images[0].get_array()),
            )
            way = "falls" if fall["mean"] >= 0 else "rises"
            below.set_title(
                f"falls by {fall['largest']:.1f} at most,\n"
                f"{way} by {abs(fall['mean']):.2f} on average"
            )
            below.set_axis_off()
        figure.colorbar(
            shown, ax=list(pair.flat), fraction=0.03, pad=0.02, label="logit under the square"
        )
    return {"occluders.jpg": figure}
