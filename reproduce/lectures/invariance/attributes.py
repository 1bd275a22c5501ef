"""Accuracy against what an image looks like, and against the training images of its class.

The attributes are brightness, contrast, sharpness and colorfulness of the 224 x 224 view, the share
of it in the object's annotated box, and the number of training images of the class. Bins hold equal
numbers of images. Brightness is the mean luma, contrast its standard deviation, sharpness the
deviation of the Laplacian over contrast, and colorfulness the measure of Hasler and Suesstrunk
(2003). An attribute may correlate with accuracy through the class: flowers are colorful,
and easy. So each attribute is also compared within classes, as the share of pairs of a correct and
a wrong image in which the correct one has more of it. Without a relation, the share is one half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reproduce.core.annotations import find_annotated
from reproduce.core.claims import above, below, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import interval_bars, label_lines, new_page, set_finding, show_tiles
from reproduce.lectures.invariance.class_comparison import by_class, within_classes
from reproduce.lectures.outlines import object_annotations
from reproduce.lectures.predictions import Predictions, predict_corpus, training_images
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.attributes import ATTRIBUTES, QuantileBins, accuracy_by_quantile
from zfnet.data.images import center_crop
from zfnet.plot import LINES, enlarge, photograph

FIGURE = Figure(
    id="attributes",
    title="Accuracy against attributes of an image",
    claim="Images with more contrast, detail or color, with larger objects, and of classes with "
    "more training images are classified correctly more often.",
    inputs=("model", "images"),
    seed=33,
    time_budget=2,
    config={"bins": 5, "bins of sizes": 3, "shown": 3},
    files=("../objects.yaml",),
    version=2,
    labels=True,
)
SIZE, TRAINING_IMAGES = "object size", "training images"
NAMES: tuple[str, ...] = (
    "brightness",
    "contrast",
    "sharpness",
    "colorfulness",
    SIZE,
    TRAINING_IMAGES,
)
COLORS: dict[str, str] = dict(zip(NAMES, LINES, strict=True))
GAIN = "last less first, points"


def compute(ctx: Context) -> Result:
    if ctx.corpus == SAMPLES or len(ctx.images) < MIN_IMAGES:
        note = f"It needs at least {MIN_IMAGES} labeled images; give them with --data."
        return Result({}, {}, "not run", n=0, note=note)
    config, predictions = FIGURE.config, predict_corpus(ctx)
    values, rows_of, missing = attribute_values(ctx, predictions.labels)
    measured = measure(predictions, values, rows_of)
    claims, outcome = judge(measured)
    arrays = {f"value.{name}": v for name, v in values.items()}
    for name in ATTRIBUTES:
        order = np.argsort(values[name])
        shown = order[(np.linspace(0.02, 0.98, config["shown"]) * len(order)).astype(int)]
        arrays[f"shown.{name}"] = photograph(ctx.images.batch(shown))
    note = (
        "Top-1 in bins of equal size with Wilson's 95 % intervals. The difference of the last "
        "and the first bin has Newcombe's interval, for training images one by bootstrap over "
        "classes. The small images are at the 2nd, 50th and 98th percentile. Within classes: "
        "pairs of a correct and a wrong image of one class, 95 % by bootstrap over classes. "
        f"Object size: a random sample of images, with boxes drawn by eye. {missing}"
    )
    n = len(predictions.labels)
    return Result(arrays, measured | {"claims": claims}, outcome, n=n, note=note)


def attribute_values(
    ctx: Context, labels: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """The attributes of images, by name.

    Args:
        ctx: The corpus.
        labels: Classes (N,).

    Returns:
        The values of each attribute, the images that have it, and a sentence on missing boxes.
    """
    values = measure_images(ctx)
    rows_of = {name: np.arange(len(labels)) for name in ATTRIBUTES}
    boxes = object_annotations()["boxes"]
    rows, missing = find_annotated(ctx, {name: boxes[name]["sha256"] for name in sorted(boxes)})
    if len(rows) >= MIN_IMAGES:
        rows_of[SIZE] = np.array(list(rows.values()))
        values[SIZE] = np.array([area(boxes[name]["box"]) for name in rows])
    per_class = training_images(ctx)
    if per_class is not None:
        rows_of[TRAINING_IMAGES] = np.arange(len(labels))
        values[TRAINING_IMAGES] = per_class[labels].astype(float)
    return values, rows_of, missing


WITHIN = "within classes, the recognized image has more of it, share of pairs"


def measure(
    predictions: Predictions, values: dict[str, np.ndarray], rows_of: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Accuracy by bins of each attribute, and the comparison within classes.

    Args:
        predictions: Predictions of the corpus.
        values: Values of each attribute.
        rows_of: The images that have it.
    """
    config, correct = FIGURE.config, predictions.correct
    measured: dict[str, Any] = {"top-1, %": 100 * float(correct.mean())}
    for name, v in values.items():
        if v.min() < v.max():
            count = config["bins of sizes" if name == SIZE else "bins"]
            bins = accuracy_by_quantile(v, correct[rows_of[name]], count)
            measured[name] = describe(bins)
            if name == TRAINING_IMAGES:  # an attribute of the class: the interval is over classes
                gain = by_class(v, correct, predictions.labels, bins.edges, FIGURE.seed)
                measured[name][GAIN] = gain
    measured[WITHIN] = {
        name: within_classes(values[name], correct, predictions.labels, FIGURE.seed)
        for name in ATTRIBUTES
    }
    if SIZE in measured:
        in_top5 = predictions.rank()[rows_of[SIZE]] <= 5
        sized = accuracy_by_quantile(values[SIZE], in_top5, config["bins of sizes"])
        measured[SIZE]["top-5, % by bin"] = [round(100 * s, 1) for s in sized.share]
        measured[SIZE]["top-5, last less first, points"] = [100 * v for v in sized.difference]
    return measured


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Accuracy rises with each attribute but brightness, overall and within classes."""
    names = [name for name in NAMES if name in measured and name != "brightness"]
    results = {f"accuracy rises with {name}": above(measured[name][GAIN]) for name in names}
    within = measured[WITHIN]
    return verdict(
        results
        | {
            f"accuracy rises with {name} within classes": above(within[name], 0.5)
            for name in names
            if within.get(name)
        }
    )


def measure_images(ctx: Context) -> dict[str, np.ndarray]:
    """All attributes of all images of the corpus, (N,) each."""
    rows: dict[str, list] = {name: [] for name in ATTRIBUTES}
    for part in ctx.progress(
        np.array_split(np.arange(len(ctx.images)), -(-len(ctx.images) // 100)), desc="measuring"
    ):
        # The pixels of batch() before normalization.
        pixels = (
            center_crop(ctx.images.raw(part).permute(0, 3, 1, 2), ctx.images.size).float() / 255
        )
        for name, attribute in ATTRIBUTES.items():
            rows[name].append(attribute(pixels).numpy())
    return {name: np.concatenate(parts).astype(float) for name, parts in rows.items()}


def area(box: list[int], side: int = 224) -> float:
    """The share of a square view that a box (top, left, bottom, right) covers."""
    return (box[2] - box[0]) * (box[3] - box[1]) / side**2


def describe(b: QuantileBins) -> dict:
    return {
        "bins from": [float(e) for e in b.edges],
        "images": b.count.tolist(),
        "top-1, % by bin": [round(100 * s, 1) for s in b.share],
        GAIN: [100 * v for v in b.difference],
    }


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    names = [name for name in NAMES if name in m]
    figure = new_page(5.4)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.35)).flat
    shown = [name for name in names if f"shown.{name}" in a]
    for panel, name in zip(left.subplots(len(shown), 1), shown, strict=True):
        tiles = enlarge(a[f"shown.{name}"], 110)
        show_tiles(panel, tiles, len(tiles), f"{name}: low, median, high", gap=6)
    curves, bars = right.subplots(2, 1, height_ratios=(1.2, 1))
    draw_curves(curves, m, names)
    gains = {name: m[name][GAIN] for name in names}
    interval_bars(bars, gains, [COLORS[name] for name in names], "{:+.0f}")
    bars.axvline(0, color="black", linewidth=0.8)
    bars.set_xlabel("top-1 of the highest bin less the lowest, points (95 %)")
    rising = [name for name, gain in gains.items() if above(gain)]
    falling = [name for name, gain in gains.items() if below(gain)]
    set_finding(
        figure,
        f"Accuracy rises with {', '.join(rising) or 'none of the attributes'}"
        + (f", and falls with {', '.join(falling)}" if falling else "")
        + f"; {result.n:,} images",
    )
    return {"attributes.jpg": figure}


def draw_curves(axes: Axes, m: dict, names: list[str]) -> None:
    """Draw the accuracy by bins of each attribute."""
    ends = {}
    for name in names:
        share = m[name]["top-1, % by bin"]
        places = np.linspace(0, 1, len(share))
        axes.plot(places, share, "o-", color=COLORS[name], markersize=3)
        ends[name] = (share[-1], COLORS[name])
    axes.axhline(m["top-1, %"], color="0.6", linewidth=0.8, linestyle="--")
    axes.set_xticks((0, 0.5, 1), ("lowest bin", "middle", "highest bin"))
    axes.set(ylabel="top-1, % (dashed: all images)", ylim=(0, None))
    label_lines(axes, ends, 1)
