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

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from scipy.ndimage import find_objects, gaussian_filter, label
from skimage.segmentation import random_walker

import zfnet
from reproduce.core.annotations import find_annotated
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import caption, interval_bars, new_page, set_finding
from reproduce.lectures.outlines import object_annotations
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.graph import UnsupportedNetwork
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
        "share": 0.2,
        "object": 0.95,
        "ground": 0.3,
        "scale": 2,
        "blur": 4.0,
        "beta": 130,
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
    boxes = predict_boxes(ctx, rows) | {ONE: best_of_others(truth, ctx.images.size)}
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


def predict_boxes(ctx: Context, rows: list[int]) -> dict[str, np.ndarray]:
    """The boxes of images by each method that supports the network, (N, 4)."""
    methods = {name: how for name, how in METHODS.items() if supports(ctx, how[0])}
    boxes: dict[str, list] = {name: [] for name in methods}
    for i in ctx.progress(rows, total=len(rows), desc="boxes"):
        x = ctx.images.batch([i]).to(ctx.device)
        target, pixels = int(ctx.images.labels[i]), photograph(x.cpu())[0]
        for name, (method, to_box) in methods.items():
            map = zfnet.explain(ctx.model, x, method, target).map[0, 0].cpu().numpy()
            boxes[name].append(to_box(map, pixels))
    return {name: np.array(of) for name, of in boxes.items()}


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


def supports(ctx: Context, method: str) -> bool:
    """Whether a method supports this network: CAM needs a pooling head, for example."""
    try:
        zfnet.explain(ctx.model, ctx.images.batch([0]).to(ctx.device), method)
    except UnsupportedNetwork:
        return False
    return True


def box_above(map: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The box of the largest component above a share of the map's maximum."""
    return box_of(map > FIGURE.config["share"] * map.max())


def segment_box(map: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The box of the segment that grows from the strongest values of a map (H, W)."""
    config, scale = FIGURE.config, FIGURE.config["scale"]
    height, width = (n // scale for n in map.shape)
    small = (
        np.asarray(pixels)[: height * scale, : width * scale]
        .reshape(height, scale, width, scale, 3)
        .mean((1, 3))
    )
    smooth = gaussian_filter(map, config["blur"])[: height * scale : scale, : width * scale : scale]
    seeds = np.zeros(smooth.shape, dtype=int)
    seeds[smooth <= np.quantile(smooth, config["ground"])] = 1
    seeds[smooth > np.quantile(smooth, config["object"])] = 2
    if not (seeds == 2).any():  # a constant map
        return box_of(np.zeros(map.shape, dtype=bool))
    return scale * box_of(
        random_walker(small, seeds, beta=config["beta"], mode="cg_j", tol=1e-5, channel_axis=-1)
        == 2
    )


def box_of(mask: np.ndarray) -> np.ndarray:
    """The box of the largest component of a mask (H, W); the whole view for an empty mask."""
    parts, count = label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    if not count:
        return np.array([0, 0, *mask.shape])
    rows, columns = find_objects(parts)[np.bincount(parts.ravel())[1:].argmax()]
    return np.array([rows.start, columns.start, rows.stop, columns.stop])


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The intersection over union of corresponding boxes (N, 4), (N,) in [0, 1]."""
    both = area(
        np.concatenate(
            [np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])], 1
        )
    )
    return both / (area(one) + area(other) - both)


def best_of_others(truth: np.ndarray, side: int, step: int = 8) -> np.ndarray:
    """For each image, the centered box that is correct for most other images.

    Args:
        truth: Boxes drawn by eye (N, 4).
        side: Side of the view, in pixels.
        step: Steps of the boxes' half height and half width, in pixels.

    Returns:
        (N, 4). An image's own box has no part in the choice.
    """
    halves, middle = range(step, side // 2 + 1, step), side // 2
    boxes = np.array(
        [[middle - h, middle - w, middle + h, middle + w] for h in halves for w in halves]
    )
    overlaps = [overlap(np.tile(box, (len(truth), 1)), truth) for box in boxes]
    correct = np.array(overlaps) >= FIGURE.config["overlap"]  # (boxes, N)
    return boxes[(correct.sum(1, keepdims=True) - correct).argmax(0)]


def percent(correct: np.ndarray) -> list[float]:
    """The share of correct boxes in percent with Wilson's interval: [share, low, high]."""
    return [100 * v for v in (correct.mean(), *wilson(int(correct.sum()), len(correct)))]


METHODS: dict[str, tuple[str, Callable]] = {
    "CAM": ("cam", box_above),
    "Grad-CAM": ("grad_cam", box_above),
    "saliency, segmented": ("saliency", segment_box),
    "guided backpropagation, segmented": ("guided_backprop", segment_box),
    "deconvnet, segmented": ("deconvnet", segment_box),
}

COLORS = dict(zip((*METHODS, ONE), (*LINES[:5], "0.6"), strict=True))
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
            style = "--" if method == ONE else "-"
            options = {"linewidth": 1.6, "linestyle": style}
            rectangle(panel, a[f"boxes.{method}"][n], COLORS[method], **options)
    handles = [Line2D([], [], **TRUTH, path_effects=[OUTLINE], label="drawn by eye")]
    handles += [Line2D([], [], color=COLORS[name], label=name) for name in drawn]
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
