"""Why polar bear: the snow, the fur, or the face?

A gray square of 32 pixels covers a polar bear's image at every eighth pixel, and the class's logit
and probability are recorded. If the network uses the face, covering the face must cost most. If it
has learned that polar bears come with snow, covering snow must. A position counts for the kind of
box that it covers most. The images are annotated ones of ImageNet's validation set: those with snow
first, then those with the highest probability. The mean fall under each kind of box is shown beside
the maps. The maps show the logit, since a saturated probability hides changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import zfnet
from reproduce.core.annotations import Boxes, covering_positions
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import caption, new_page, set_finding
from zfnet.plot import LINES, align_occlusion_map, heat_map, photograph, rectangle, show

FIGURE = Figure(
    id="polar_bear",
    title="Why polar bear: snow, fur or face?",
    claim="Covering the bear lowers the class's logit: the face more than the fur, and both more "
    "than the snow around it.",
    inputs=("model", "images"),
    seed=21,
    time_budget=3,
    config={"wnid": "n02134084", "size": 32, "stride": 8, "fill": 0.0, "images": 5, "shown": 3},
    files=("polar_bear.yaml",),
    version=2,
)
BOXES = Path(__file__).with_name("polar_bear.yaml")
OVER_IMAGES = "mean fall of the logit over the images"
KINDS = {"face": LINES[1], "fur": LINES[4], "snow": LINES[5], "elsewhere": "0.5"}


def compute(ctx: Context) -> Result:
    config, chosen = FIGURE.config, choose(ctx)
    if not chosen:
        note = "The corpus has no annotated polar bears; give ImageNet with --data."
        return Result({}, {}, "not run", n=0, note=note)
    arrays: dict[str, np.ndarray] = {}
    measured: dict[str, Any] = {}
    for number, (name, x, boxes) in enumerate(chosen):
        measured[name], arrays_of = occlude_bear(ctx, x, boxes)
        arrays |= {f"{number}.{key}": array for key, array in arrays_of.items()}
    falls = [row["mean fall of the logit"] for row in measured.values()]
    claims, verdict = judge(falls)
    note = (
        f"An occluder of {config['size']} pixels with stride {config['stride']}. Images with snow "
        "come first, then those with the highest probability; the picture shows "
        f"{config['shown']}. "
        "A position counts for the kind of box that it covers most, if it covers half of a box or "
        "half of the occluder is inside it. 'Elsewhere' touches no box."
    )
    measured[OVER_IMAGES] = mean_falls(falls)
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(chosen), note=note)


def occlude_bear(
    ctx: Context, x: torch.Tensor, boxes: Boxes
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Occlude an image (1, 3, H, W): the mean falls under each kind of box, and the map."""
    config, target = FIGURE.config, ctx.model.wnids.index(FIGURE.config["wnid"])
    options = {key: config[key] for key in ("size", "stride", "fill")}
    o = zfnet.occlude(ctx.model, x, target, **options, progress=ctx.progress)
    falls = {
        name: (getattr(o.baseline, name) - getattr(o, name)).cpu()
        for name in ("logit", "probability")
    }
    covering = covering_positions(o.boxes, boxes)
    measured = {
        "predicted": ctx.model.classes[int(o.baseline.label)],
        "logit": float(o.baseline.logit),
        "probability": float(o.baseline.probability),
        **{
            f"mean fall of the {name}": {
                kind: float(fall[positions].mean())
                for kind, positions in covering.items()
                if positions.any()
            }
            for name, fall in falls.items()
        },
        "positions where it is the predicted class, %": 100
        * float((o.label == target).float().mean()),
    }
    pairs = [(kind, box) for kind, candidates in boxes.items() for box in candidates]
    arrays = {
        "fall": falls["logit"].numpy(),
        "x": x.cpu().numpy(),
        "kinds": np.array([kind for kind, _ in pairs]),
        "boxes": np.array([box for _, box in pairs]),
    }
    return measured, arrays


def choose(ctx: Context) -> list[tuple[str, torch.Tensor, dict]]:
    """Choose annotated images of the corpus.

    Returns:
        (name, x, boxes) of each: images with snow first, then by probability of the class.
    """
    wnid, rows = (
        FIGURE.config["wnid"],
        {name.split("/")[-1]: i for i, name in enumerate(ctx.images.names)},
    )
    if wnid not in ctx.model.wnids:
        return []
    candidates = []
    for name, boxes in yaml.safe_load(BOXES.read_text()).items():
        if name in rows:
            x = ctx.images.batch([rows[name]]).to(ctx.device)
            probability = float(ctx.model(x).softmax(1)[0, ctx.model.wnids.index(wnid)])
            candidates.append(("snow" not in boxes, -probability, name, x, boxes))
    return [
        row[2:] for row in sorted(candidates, key=lambda row: row[:3])[: FIGURE.config["images"]]
    ]


def mean_falls(falls: list[dict[str, float]]) -> dict[str, float]:
    """The mean fall for each kind of box over the images that have it."""
    values = {kind: [fall[kind] for fall in falls if kind in fall] for kind in KINDS}
    return {kind: float(np.mean(of)) for kind, of in values.items() if of}


def judge(drops: list[dict[str, float]]) -> tuple[dict[str, str], str]:
    """The claims as counts of images. Partial means that more than half of all tests hold."""
    tests = {
        "covering the face lowers the logit, more than elsewhere": [
            fall["face"] > max(0.0, fall["elsewhere"])
            for fall in drops
            if {"face", "elsewhere"} <= fall.keys()
        ],
        "covering the fur lowers the logit, more than elsewhere": [
            fall["fur"] > max(0.0, fall["elsewhere"])
            for fall in drops
            if {"fur", "elsewhere"} <= fall.keys()
        ],
        "the face costs more than the fur": [
            fall["face"] > fall["fur"] for fall in drops if {"face", "fur"} <= fall.keys()
        ],
        "the face costs more than the snow": [
            fall["face"] > fall["snow"] for fall in drops if {"face", "snow"} <= fall.keys()
        ],
        "the fur costs more than the snow": [
            fall["fur"] > fall["snow"] for fall in drops if {"fur", "snow"} <= fall.keys()
        ],
    }
    claims = {
        claim: f"{sum(results)} of {len(results)}" for claim, results in tests.items() if results
    }
    if not all(tests.values()):
        return claims, "not comparable"
    results_all = [results for results in tests.values() for results in results]
    return claims, "reproduced" if all(results_all) else "partial" if np.mean(
        results_all
    ) > 0.5 else "differs"


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    rows = [row for name, row in result.measured.items() if name not in (OVER_IMAGES, "claims")]
    rows = rows[: FIGURE.config["shown"]]
    figure = new_page(2.5 * len(rows) + 0.5)
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1, 1.2, 1.1))
    for number, (axes, row) in enumerate(zip(grid, rows, strict=True)):
        a = {key: result.arrays[f"{number}.{key}"] for key in ("x", "fall", "boxes", "kinds")}
        show(axes[0], photograph(a["x"])[0])
        caption(axes[0], f"predicted: {row['predicted']}, logit {row['logit']:.1f}", 40)
        for kind, box in zip(a["kinds"], a["boxes"], strict=True):
            rectangle(axes[0], box, KINDS[kind], linewidth=1.6)
        heat_map(axes[1], a["fall"])
        caption(axes[1], "fall of the logit under the square", 40)
        align_occlusion_map(
            axes[1], FIGURE.config["size"], FIGURE.config["stride"], a["x"].shape[-1]
        )
        falls = row["mean fall of the logit"]
        kinds = [kind for kind in KINDS if kind in falls]
        axes[2].barh(kinds, [falls[kind] for kind in kinds], color=[KINDS[k] for k in kinds])
        axes[2].axvline(0, color="black", linewidth=0.8)
        axes[2].invert_yaxis()
        axes[2].locator_params(axis="x", nbins=5)
    for panel in grid[:-1, 2]:
        panel.sharex(grid[-1, 2])
    grid[-1, 2].set_xlabel("mean fall of the logit where covered")
    falls = result.measured[OVER_IMAGES]
    set_finding(
        figure,
        f"Covering the bear's face lowers its class's logit by {falls['face']:z.1f}, fur by "
        f"{falls['fur']:z.1f}"
        + (f", snow by {falls['snow']:z.1f}" if "snow" in falls else "")
        + f" (means over {result.n} images)",
    )
    return {"polar_bear.jpg": figure}
