"""Why polar bear: the snow, the fur, or the face?

A gray square of 32 pixels covers a polar bear's image at every second pixel, and the class's logit
and probability are recorded. If the network uses the face, covering the face must cost most. If it
has learned that polar bears come with snow, covering snow must. A position counts for the kind of
box that it covers most. The images are annotated ones of ImageNet's validation set: those with snow
first, then those with the highest probability. The mean fall under each kind of box is shown beside
the maps. The maps show the logit too, since a saturated probability hides changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import zfnet
from reproduce.core.annotations import covering_positions
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from zfnet.plot import LINES, align_occlusion_map, heat_map, new_figure, photograph, rectangle, show

FIGURE = Figure(
    id="polar_bear",
    title="Why polar bear: snow, fur or face?",
    claim="Covering the bear lowers the class's logit: the face more than the fur, and both more "
    "than the snow around it.",
    inputs=("model", "images"),
    seed=21,
    time_budget=3,
    config={"wnid": "n02134084", "size": 32, "stride": 2, "fill": 0.0, "images": 5},
    files=("polar_bear.yaml",),
)
BOXES = Path(__file__).with_name("polar_bear.yaml")
KINDS = {"face": LINES[1], "fur": LINES[4], "snow": LINES[5], "elsewhere": "0.5"}


def compute(ctx: Context) -> Result:
    config, classes = FIGURE.config, ctx.model.classes
    chosen = choose(ctx)
    if not chosen:
        return Result(
            {},
            {},
            "not run",
            n=0,
            note="The corpus has no annotated polar bears; give ImageNet with --data.",
        )
    target, arrays, measured = ctx.model.wnids.index(config["wnid"]), {}, {}
    for number, (name, x, boxes) in enumerate(chosen):
        o = zfnet.occlude(
            ctx.model,
            x,
            target,
            size=config["size"],
            stride=config["stride"],
            fill=config["fill"],
            progress=ctx.progress,
        )
        base = o.baseline
        arrays |= {
            f"{number}.{key}": getattr(o, key).cpu().numpy() for key in ("logit", "probability")
        }
        arrays[f"{number}.x"] = x.cpu().numpy()
        arrays[f"{number}.boxes"] = np.array(
            [box for candidates in boxes.values() for box in candidates]
        )
        arrays[f"{number}.kinds"] = np.array(
            [kind for kind, candidates in boxes.items() for _ in candidates]
        )
        drops: dict = {"logit": {}, "probability": {}}
        for kind, positions in covering_positions(o.boxes, boxes).items():
            if positions.any():
                drops["logit"][kind] = float((base.logit - o.logit).cpu()[positions].mean())
                drops["probability"][kind] = float(
                    (base.probability - o.probability).cpu()[positions].mean()
                )
        measured[name] = {
            "predicted": classes[int(base.label)],
            "logit": float(base.logit),
            "probability": float(base.probability),
            "mean fall of the logit": drops["logit"],
            "mean fall of the probability": drops["probability"],
            "positions where it is the predicted class, %": 100
            * float((o.label == target).float().mean()),
        }
    claims, verdict = judge([row["mean fall of the logit"] for row in measured.values()])
    note = (
        f"An occluder of {config['size']} pixels with stride {config['stride']}. Images with snow "
        "come first, then those with the highest probability. A position counts for the kind of "
        "box that it covers most, if it covers half of a box or half of the occluder is inside "
        "it. 'Elsewhere' touches no box."
    )
    summary = {
        kind: mean_drop([row["mean fall of the logit"] for row in measured.values()], kind)
        for kind in KINDS
    }
    measured["mean fall of the logit over the images"] = {
        kind: value for kind, value in summary.items() if value is not None
    }
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(chosen), note=note)


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


def mean_drop(drops: list[dict[str, float]], kind: str) -> float | None:
    """The mean fall for a kind of box over the images that have it; None without any."""
    values = [fall[kind] for fall in drops if kind in fall]
    return float(np.mean(values)) if values else None


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
    names = [name for name in result.measured if name.endswith(".JPEG")]
    figure = new_figure(11.6, 2.45 * len(names))
    grid = figure.subplots(len(names), 4, squeeze=False, width_ratios=(1, 1.2, 1.2, 1.25))
    widest = max(
        max(map(abs, result.measured[name]["mean fall of the logit"].values())) for name in names
    )
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        row, a = (
            result.measured[name],
            {
                k: result.arrays[f"{number}.{k}"]
                for k in ("x", "logit", "probability", "boxes", "kinds")
            },
        )
        is_polar_bear = "ice bear" in row["predicted"] or "polar bear" in row["predicted"]
        show(
            axes[0],
            photograph(a["x"])[0],
            "predicted: polar bear" if is_polar_bear else f"predicted: {row['predicted']}",
        )
        for kind, box in zip(a["kinds"], a["boxes"], strict=True):
            rectangle(axes[0], box, KINDS[kind], linewidth=1.4)
        heat_map(axes[1], a["logit"], f"logit under the square ({row['logit']:.1f} uncovered)")
        heat_map(axes[2], a["probability"], f"probability ({row['probability']:.2f} uncovered)")
        for panel in axes[1:3]:
            align_occlusion_map(
                panel, FIGURE.config["size"], FIGURE.config["stride"], a["x"].shape[-1]
            )
        drops = row["mean fall of the logit"]
        kinds = [kind for kind in KINDS if kind in drops]
        axes[3].barh(kinds, [drops[kind] for kind in kinds], color=[KINDS[kind] for kind in kinds])
        axes[3].axvline(0, color="black", linewidth=0.8)
        axes[3].set(
            xlim=(-0.35 * widest, 1.1 * widest), title="mean fall of the logit where covered"
        )
        axes[3].invert_yaxis()
    return {"polar_bear.jpg": figure}
