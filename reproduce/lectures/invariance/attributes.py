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

from reproduce.core.claims import above, below, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.invariance.attribute_pictures import BY_BIN, GAIN, draw_attributes
from reproduce.lectures.invariance.attribute_values import (
    NAMES,
    SIZE,
    TRAINING_IMAGES,
    attribute_values,
)
from reproduce.lectures.invariance.class_comparison import by_class, within_classes
from reproduce.lectures.predictions import Predictions, predict_corpus
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.attributes import ATTRIBUTES, QuantileBins, accuracy_by_quantile
from zfnet.plot import photograph

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
    version=3,
    labels=True,
)
WITHIN = "within classes, pairs in which the correct image has more of it, %"


def compute(ctx: Context) -> Result:
    if ctx.corpus == SAMPLES or len(ctx.images) < MIN_IMAGES:
        note = f"It needs at least {MIN_IMAGES} labeled images; give them with --data."
        return Result({}, {}, "not run", n=0, note=note)
    config, predictions = FIGURE.config, predict_corpus(ctx)
    values, rows_of, missing = attribute_values(ctx, predictions.labels, MIN_IMAGES)
    measured, arrays = measure(predictions, values, rows_of)
    claims, outcome = judge(measured)
    arrays |= {f"value.{name}": v for name, v in values.items()}
    for name in ATTRIBUTES:
        order = np.argsort(values[name])
        shown = order[(np.linspace(0.02, 0.98, config["shown"]) * len(order)).astype(int)]
        arrays[f"shown.{name}"] = photograph(ctx.images.batch(shown))
    note = (
        "Bins hold equal numbers of images, except where values are equal. Their accuracy has "
        "Wilson's 95 % interval. The difference of the highest and the lowest bin has Newcombe's "
        "interval, and for training images one by bootstrap over classes. The small images are at "
        "the 2nd, 50th and 98th percentile. Within classes, a correct and a wrong image of one "
        "class are compared, with intervals by bootstrap over classes. Object size is measured on "
        f"a random sample of images, with boxes drawn by eye. {missing}"
    )
    finding, reason = state_finding(measured), state_reason(measured)
    n, measured = len(predictions.labels), measured | {"claims": claims}
    return Result(arrays, measured, outcome, n, note, finding=finding, reason=reason)


def measure(
    predictions: Predictions, values: dict[str, np.ndarray], rows_of: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Accuracy by bins of each attribute, and the comparison within classes.

    Args:
        predictions: Predictions of the corpus.
        values: Values of each attribute.
        rows_of: The images that have it.

    Returns:
        The measured numbers, and the accuracy of the bins with intervals, (bins, 3) in percent.
    """
    config, correct = FIGURE.config, predictions.correct
    measured: dict[str, Any] = {"top-1, %": 100 * float(correct.mean())}
    arrays = {}
    for name, v in values.items():
        if v.min() < v.max():
            count = config["bins of sizes" if name == SIZE else "bins"]
            bins = accuracy_by_quantile(v, correct[rows_of[name]], count)
            measured[name] = describe(bins)
            arrays[f"top-1.{name}"] = 100 * np.column_stack([bins.share, bins.interval])
            if name == TRAINING_IMAGES:  # an attribute of the class: the interval is over classes
                gain = by_class(v, correct, predictions.labels, bins.edges, FIGURE.seed)
                measured[name][GAIN] = gain
    measured[WITHIN] = {
        name: [
            100 * v for v in within_classes(values[name], correct, predictions.labels, FIGURE.seed)
        ]
        for name in ATTRIBUTES
    }
    if SIZE in measured:
        in_top5 = predictions.rank()[rows_of[SIZE]] <= 5
        sized = accuracy_by_quantile(values[SIZE], in_top5, config["bins of sizes"])
        measured[SIZE]["top-5 by bin, %"] = [round(100 * s, 1) for s in sized.share]
        measured[SIZE]["top-5, highest minus lowest bin, points"] = [
            100 * v for v in sized.difference
        ]
    return measured, arrays


def describe(b: QuantileBins) -> dict[str, Any]:
    return {
        "edges of the bins": [float(edge) for edge in b.edges],
        "images": b.count.tolist(),
        BY_BIN: [round(100 * share, 1) for share in b.share],
        GAIN: [100 * v for v in b.difference],
    }


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Accuracy rises with each attribute but brightness, overall and within classes."""
    names = [name for name in NAMES if name in measured and name != "brightness"]
    results = {f"accuracy rises with {name}": above(measured[name][GAIN]) for name in names}
    within = measured[WITHIN]
    return verdict(
        results
        | {
            f"accuracy rises with {name} within classes": above(within[name], 50)
            for name in names
            if within.get(name)
        }
    )


def state_finding(m: dict) -> str:
    """The attributes with which accuracy rises or falls, beyond the intervals."""
    gains = {name: m[name][GAIN] for name in NAMES if name in m}
    changes = [
        f"{gain[0]:+.0f} for {name}" for name, gain in gains.items() if above(gain) or below(gain)
    ]
    if not changes:
        return "Top-1 accuracy does not change with an attribute beyond its interval."
    return (
        "From the lowest to the highest bin of an attribute, top-1 accuracy changes in points by "
        f"{join(changes)}; the intervals of the other changes contain 0."
    )


def state_reason(m: dict) -> str:
    """Why the claim does not hold for all attributes, overall and within classes."""
    gains = {name: m[name][GAIN] for name in NAMES if name in m and name != "brightness"}
    undecided = [name for name, gain in gains.items() if above(gain) is None]
    falling = [name for name, gain in gains.items() if below(gain)]
    within = [name for name in gains if m[WITHIN].get(name) and not above(m[WITHIN][name], 50)]
    reasons = [f"Accuracy falls with {join(falling)}."] if falling else []
    reasons += [f"The interval contains 0 for {join(undecided)}."] if undecided else []
    reasons += [f"Within classes, accuracy does not rise with {join(within)}."] if within else []
    return " ".join(reasons)


def join(names: list[str]) -> str:
    """Names as a list in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def draw(result: Result) -> dict[str, Any]:
    return {"attributes.jpg": draw_attributes(result)} if result.arrays else {}
