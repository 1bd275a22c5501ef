"""Boxes of objects from attribution maps, without boxes in training.

Simonyan et al. (2014, section 3.2) take the strongest saliency for the object and the weakest for
the background, spread both by a segmentation, and use the box of its largest component. Zhou et al.
(2016, section 3.2) use the box of the largest component of a class activation map above a fifth of
its maximum. Here the random walker (Grady 2006) replaces GraphCut, at half the resolution and from
blurred saliency. A box is correct if its intersection over union with the box drawn by eye is at
least one half, as in ILSVRC. The baseline is the best single box for all images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.patheffects import withStroke
from scipy.ndimage import find_objects, gaussian_filter, label
from skimage.segmentation import random_walker

import zfnet
from reproduce.core.annotations import find_annotated
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.outlines import object_annotations
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.graph import UnsupportedNetwork
from zfnet.plot import LINES, new_figure, photograph, rectangle, show

FIGURE = Figure(
    id="localisation",
    title="Boxes of objects from attribution maps, without boxes in training",
    claim="The box of a class activation map, and that of a segmentation from saliency, finds the "
    "object more often than the best single box for all images.",
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
)
ONE = "one box for all"


def compute(ctx: Context) -> Result:
    if ctx.corpus == SAMPLES:
        return Result(
            {},
            {},
            "not run",
            n=0,
            note="The sample photographs have no boxes; give ImageNet with --data.",
        )
    config, boxes_by_name = FIGURE.config, object_annotations()["boxes"]
    places, missing = find_annotated(
        ctx, {name: boxes_by_name[name]["sha256"] for name in sorted(boxes_by_name)}
    )
    if len(places) < MIN_IMAGES:
        return Result(
            {},
            {},
            "not run",
            n=len(places),
            note=f"The corpus has fewer than {MIN_IMAGES} images with boxes. {missing}",
        )
    truth = np.array([boxes_by_name[name]["box"] for name in places])
    rows = list(places.values())
    methods = {name_: how for name_, how in METHODS.items() if supports(ctx, how[0])}
    predicted: dict[str, list] = {name_: [] for name_ in methods}
    for i in ctx.progress(rows, total=len(rows), desc="boxes"):
        x = ctx.images.batch([i]).to(ctx.device)
        target, pixels = int(ctx.images.labels[i]), photograph(x.cpu())[0]
        for name_, (method, boxed) in methods.items():
            predicted[name_].append(
                boxed(zfnet.explain(ctx.model, x, method, target).map[0, 0].cpu().numpy(), pixels)
            )
    boxes = {name_: np.array(of) for name_, of in predicted.items()} | {
        ONE: np.tile(best_single(truth, ctx.images.size), (len(truth), 1))
    }
    overlaps = {name_: overlap(of, truth) for name_, of in boxes.items()}
    correct = {name_: of >= config["overlap"] for name_, of in overlaps.items()}
    gains = {
        name_: mean_interval(
            100.0 * (correct[name_].astype(float) - correct[ONE]), seed=FIGURE.seed
        )
        for name_ in methods
    }
    measured = {
        "boxes that are right, %": {name_: percent(of) for name_, of in correct.items()},
        "overlap, mean": {
            name_: mean_interval(of, seed=FIGURE.seed) for name_, of in overlaps.items()
        },
        f"right, less {ONE}, points": gains,
        "share of the view in the box, drawn by eye": float(
            area(truth).mean() / ctx.images.size**2
        ),
        "share of the view in the box": {
            name_: float(area(of).mean() / ctx.images.size**2) for name_, of in boxes.items()
        },
    }
    claims, outcome = verdict(
        {f"{name_} is right more often than {ONE}": above(gain) for name_, gain in gains.items()}
    )
    note = (
        f"A random sample of {len(rows)} validation images with boxes drawn by eye. Maps are of "
        f"the true class, even if the prediction is wrong. {ONE.capitalize()}: the centered box "
        f"that is correct most often on these images. 95 % intervals over images. {missing}"
    )
    shown = np.linspace(0, len(rows) - 1, config["shown"]).round().astype(int)
    x = ctx.images.batch([rows[i] for i in shown])
    names = np.array([ctx.model.classes[int(ctx.images.labels[rows[i]])] for i in shown])
    arrays = {f"boxes.{name_}": of for name_, of in boxes.items()} | {
        f"overlap.{name_}": of for name_, of in overlaps.items()
    }
    arrays |= {
        "truth": truth,
        "shown": shown,
        "names": names,
        "photographs": photograph(x).astype(np.float16),
    }
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(rows), note=note)


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


def best_single(truth: np.ndarray, side: int, step: int = 8) -> np.ndarray:
    """The centered box that is correct for most of the boxes `truth` (N, 4)."""
    halves, middle = range(step, side // 2 + 1, step), side // 2
    boxes = [
        np.array([middle - h, middle - w, middle + h, middle + w]) for h in halves for w in halves
    ]
    return max(
        boxes,
        key=lambda box: float(
            (overlap(np.tile(box, (len(truth), 1)), truth) >= FIGURE.config["overlap"]).mean()
        ),
    )


def percent(correct: np.ndarray) -> list[float]:
    """The share of correct boxes in percent with Wilson's interval: [share, low, high]."""
    return [100 * v for v in (correct.mean(), *wilson(int(correct.sum()), len(correct)))]


METHODS: dict[str, tuple[str, Callable]] = {
    "CAM": ("cam", box_above),
    "Grad-CAM": ("grad_cam", box_above),
    "saliency, segmented": ("saliency", segment_box),
    "guided back-propagation, segmented": ("guided_backprop", segment_box),
    "deconvnet, segmented": ("deconvnet", segment_box),
}

COLOR_NAMES = {"CAM": "blue", "saliency, segmented": "green"}  # of LINES


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, correct = result.arrays, result.measured["boxes that are right, %"]
    colors = dict(zip(METHODS, LINES, strict=False)) | {ONE: "0.6"}
    figure = new_figure(12.4, 4.6)
    left, axes = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.75, 1)).flat
    drawn = [name_ for name_ in ("CAM", "saliency, segmented") if name_ in correct]
    for panel, i, picture, name in zip(
        left.subplots(2, 4).flat, a["shown"], a["photographs"], a["names"], strict=True
    ):
        show(panel, picture.astype(np.float32), name)
        truth = np.clip(a["truth"][i], 3, picture.shape[0] - 3)  # visible at the border
        rectangle(
            panel,
            truth,
            "white",
            linewidth=2.5,
            path_effects=[withStroke(linewidth=4.5, foreground="0.1")],
        )
        rectangle(panel, a[f"boxes.{ONE}"][i], colors[ONE], linewidth=1.4, linestyle="--")
        for name_ in drawn:
            rectangle(panel, a[f"boxes.{name_}"][i], colors[name_], linewidth=1.8)
    left.suptitle(
        "; ".join(
            [
                "drawn by eye: white",
                f"{ONE}: dashed",
                *(f"{name_}: {COLOR_NAMES[name_]}" for name_ in drawn),
            ]
        )
    )
    bars = axes.subplots()
    values = np.array(list(correct.values()))
    bars.barh(list(correct), values[:, 0], color=[colors[name_] for name_ in correct])
    bars.errorbar(
        values[:, 0],
        range(len(correct)),
        xerr=abs(values[:, 1:] - values[:, :1]).T,
        fmt="none",
        color="0.2",
        capsize=2,
    )
    bars.invert_yaxis()
    bars.set(xlabel="correct boxes, %, with 95 % interval", title=f"{result.n} images")
    return {"localisation.jpg": figure}
