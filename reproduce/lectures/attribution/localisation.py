"""Boxes of objects from attribution maps, without boxes in training.

Simonyan et al. (2014, section 3.2) take the strongest saliency for the object and the weakest for
the background, spread both by a segmentation, and use the box of its largest component. Zhou et al.
(2016, section 3.2) use the box of the largest component of a class activation map above a fifth of
its maximum. Here the random walker (Grady 2006) replaces GraphCut, at half the resolution and from
blurred saliency. A box is correct if its intersection over union with the box drawn by eye is at
least one half, as in ILSVRC. The baseline is one centered box, chosen on
the other images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from reproduce.core.annotations import find_annotated
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import caption, interval_bars, new_page, set_finding
from reproduce.lectures.attribution.boxes import (
    METHODS,
    SEGMENTATION,
    SHARE,
    area,
    best_of_others,
    overlap,
    predict_boxes,
)
from reproduce.lectures.outlines import object_annotations
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.plot import LINES, photograph, rectangle, show

FIGURE = Figure(
    id="localisation",
    title="Boxes of objects from attribution maps, without boxes in training",
    claim="The box of a class activation map, and that of a segmentation from saliency, finds the "
    "object more often than one centered box for all images.",
    inputs=("model", "images"),
    seed=39,
    time_budget=2,
    config={
        "share": SHARE,
        **SEGMENTATION,
        "overlap": 0.5,
        "shown": 8,
    },
    files=("../objects.yaml",),
    version=2,
)
ONE = "one box for all"
CORRECT = "boxes that are right, %"


def compute(ctx: Context) -> Result:
    if ctx.corpus == SAMPLES:
        note = "The sample photographs have no boxes; give ImageNet with --data."
        return Result({}, {}, "not run", n=0, note=note)
    annotated = object_annotations()["boxes"]
    hashes = {name: annotated[name]["sha256"] for name in sorted(annotated)}
    rows_of, missing = find_annotated(ctx, hashes)
    if len(rows_of) < MIN_IMAGES:
        note = f"The corpus has fewer than {MIN_IMAGES} images with boxes. {missing}"
        return Result({}, {}, "not run", n=len(rows_of), note=note)
    truth = np.array([annotated[name]["box"] for name in rows_of])
    rows = list(rows_of.values())
    boxes = predict_boxes(ctx, rows, FIGURE.config) | {
        ONE: best_of_others(truth, ctx.images.size, FIGURE.config["overlap"])
    }
    overlaps = {name: overlap(of, truth) for name, of in boxes.items()}
    measured = measure(boxes, overlaps, truth, ctx.images.size)
    gains = measured[f"right, less {ONE}, points"]
    claims, outcome = verdict(
        {f"{name} is right more often than {ONE}": above(gain) for name, gain in gains.items()}
    )
    note = (
        f"A random sample of {len(rows)} validation images with boxes drawn by eye. Maps are of "
        f"the true class, even if the prediction is wrong. {ONE.capitalize()}: for each image the "
        "centered box that is correct most often on the other images. 95 % intervals over images. "
        f"{missing}"
    )
    shown = np.linspace(0, len(rows) - 1, FIGURE.config["shown"]).round().astype(int)
    x = ctx.images.batch([rows[i] for i in shown])
    names = [ctx.model.classes[int(ctx.images.labels[rows[i]])] for i in shown]
    arrays = {f"boxes.{name}": of[shown] for name, of in boxes.items()}
    arrays |= {f"overlap.{name}": of for name, of in overlaps.items()}
    arrays |= {"truth": truth[shown], "shown": shown, "names": np.array(names)}
    arrays["photographs"] = photograph(x).astype(np.float16)
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(rows), note=note)


def measure(
    boxes: dict[str, np.ndarray], overlaps: dict[str, np.ndarray], truth: np.ndarray, side: int
) -> dict[str, Any]:
    """How often boxes are correct, and how large they are.

    Args:
        boxes: Boxes (N, 4) by method.
        overlaps: Their intersection over union with the truth (N,).
        truth: The boxes drawn by eye (N, 4).
        side: Side of the view, in pixels.
    """
    correct = {name: of >= FIGURE.config["overlap"] for name, of in overlaps.items()}
    gains = {name: 100.0 * (of.astype(float) - correct[ONE]) for name, of in correct.items()}
    return {
        CORRECT: {name: percent(of) for name, of in correct.items()},
        "overlap, mean": {
            name: mean_interval(of, seed=FIGURE.seed) for name, of in overlaps.items()
        },
        f"right, less {ONE}, points": {
            name: mean_interval(gain, seed=FIGURE.seed)
            for name, gain in gains.items()
            if name != ONE
        },
        "share of the view in the box, drawn by eye": float(area(truth).mean() / side**2),
        "share of the view in the box": {
            name: float(area(of).mean() / side**2) for name, of in boxes.items()
        },
    }


def percent(correct: np.ndarray) -> list[float]:
    """The share of correct boxes in percent with Wilson's interval: [share, low, high]."""
    return [100 * v for v in (correct.mean(), *wilson(int(correct.sum()), len(correct)))]


COLORS = dict(zip((*METHODS, ONE), (*LINES[:5], "0.6"), strict=True))
STYLES: dict[str, Any] = {ONE: "--"}
DRAWN = ("CAM", "saliency, segmented", ONE)
TRUTH = {"color": "white", "linewidth": 2.2}
OUTLINE = withStroke(linewidth=4.6, foreground="black")  # visible on white objects too


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, correct = result.arrays, result.measured[CORRECT]
    figure = new_page(6.2)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.4, 1)).flat
    grid = above.subplots(2, len(a["shown"]) // 2)
    drawn = [name for name in DRAWN if name in correct]
    for n, (panel, name) in enumerate(zip(grid.flat, a["names"], strict=True)):
        picture = a["photographs"][n].astype(np.float32)
        show(panel, picture)
        caption(panel, str(name))
        truth = np.clip(a["truth"][n], 3, len(picture) - 3)  # visible at the border
        rectangle(panel, truth, **TRUTH, path_effects=[OUTLINE])
        for method in drawn:
            options = {"linewidth": 1.6, "linestyle": STYLES.get(method, "-")}
            rectangle(panel, a[f"boxes.{method}"][n], COLORS[method], **options)
    handles = [Line2D([], [], **TRUTH, path_effects=[OUTLINE], label="drawn by eye")]
    handles += [
        Line2D([], [], color=COLORS[name], linestyle=STYLES.get(name, "-"), label=name)
        for name in drawn
    ]
    above.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    bars = below.subplots()
    interval_bars(bars, correct, [COLORS[name] for name in correct])
    bars.set_xlabel("correct boxes, %, with 95 % interval")
    best = max((name for name in correct if name != ONE), key=lambda name: correct[name][0])
    set_finding(
        figure,
        f"The best method, {best}, finds {correct[best][0]:.0f} % of the objects, and one centered "
        f"box for all images {correct[ONE][0]:.0f} % ({result.n} images)",
    )
    return {"localisation.jpg": figure}
