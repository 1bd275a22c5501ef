"""What Tables 4 and 5 and Figure 9 share: Caltech's settings, and the comparison with scratch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper import protocol
from reproduce.paper.protocol import (
    Classified,
    Unseen,
    classify_frozen,
    grid_note,
    inner_products,
    mean_and_deviation,
    train_from_scratch,
    unseen,
)
from zfnet.analysis.transfer import softmax
from zfnet.training.config import load_config

FILES = ("../../configs/caltech101.yaml",)
CONFIG = {
    "per class": (15, 30),
    "curve": (1, 2, 5, 10, 15, 20, 25, 30),
    "layer": "fc7",
    "also": "pool5",
    "most to test": 50,
    "folds": 5,
}
PRETRAINED, SCRATCH = "pretrained", "from scratch"
SHALLOW = "pretrained, layers 1-5 only"
BEFORE = "best before the paper"
GAIN, SHALLOW_GAIN = "gain over training from scratch, points", "gain of layers 1-5 only, points"
MAIN = "pretrained features beat training from scratch in every fold"
OVERLAPS = protocol.OVERLAPS
CALTECH256_PAPER = {
    PRETRAINED: {
        "15 per class": [65.7, 0.2], "30 per class": [70.6, 0.2],
        "45 per class": [72.7, 0.4], "60 per class": [74.2, 0.3],
    },
    SCRATCH: {
        "15 per class": [9.0, 1.4], "30 per class": [22.5, 0.7],
        "45 per class": [31.2, 0.5], "60 per class": [38.8, 1.4],
    },
    BEFORE: {  # Bo et al. 2013
        "15 per class": [40.5, 0.4], "30 per class": [48.0, 0.2],
        "45 per class": [51.9, 0.2], "60 per class": [55.2, 0.3],
    },
    OVERLAPS: 243,
    "images": 30607,
}  # fmt: skip
FEWEST_POINTS = 15  # the smallest gain for which the claims hold
Accuracies = dict[int, list[float]]  # of each fold, in percent, by training images per class


def absent(name: str) -> Result:
    """The result without a data set."""
    note = f"{name} was not found; give the folder of torchvision's data sets with --datasets."
    return Result({}, {}, "not run", n=0, note=note, scale="smoke")


def compare(ctx: Context, figure: Figure) -> Result:
    """Compare frozen features and training from scratch on a figure's data set."""
    config, data = figure.config, unseen(ctx, figure.corpus)
    per_class, counts = config["per class"], data.counts
    curve = _classify(ctx, figure, data, config["layer"], {*config["curve"], *per_class})
    shallow = _classify(ctx, figure, data, config["also"], per_class)
    scratch = {n: train_from_scratch(ctx, data.rows, n, figure) for n in per_class}
    measured = _measure(curve, shallow, scratch) | counts
    judgments, evidence = judge(measured, _published(figure))
    measured["claims"], summary = verdict(judgments, MAIN)
    measured["pretrained, by images per class"] = {
        str(n): mean_and_deviation(result.accuracy) for n, result in curve.items()
    }
    measured["C of the softmax, by fold"] = {str(n): result.c for n, result in curve.items()}
    measured["C of the softmax on layers 1-5, by fold"] = {
        str(n): result.c for n, result in shallow.items()
    }
    recipe = protocol.FROM_SCRATCH
    note = data.note + (
        f"{counts['images']:,} images: the background class is left out. A class with too few "
        "images keeps one for the test. Training from scratch at "
        f"{load_config(recipe).model.size} pixels, by {recipe.name}, whose epochs were chosen on "
        f"Caltech-101's first fold; frozen features at {ctx.model.size} pixels, pretrained on a "
        "part of ImageNet. So neither the accuracies nor the gain compare with the paper's. "
        f"{grid_note([*curve.values(), *shallow.values()])}{ctx.differences_from_paper}"
    )
    return Result(
        {}, measured, summary, n=len(data.rows), note=note, scale="subset",
        finding=_finding(measured), reason=explain(judgments, evidence),
    )  # fmt: skip


def _classify(
    ctx: Context, figure: Figure, data: Unseen, layer: str, counts: Iterable[int]
) -> dict[int, Classified]:
    """A softmax on a frozen layer, by training images per class."""
    products = inner_products(ctx, data.images, data.rows, layer)
    labels = data.images.labels[data.rows]
    return {n: classify_frozen(ctx, products, labels, softmax, n, figure) for n in sorted(counts)}


def _measure(
    curve: dict[int, Classified], shallow: dict[int, Classified], scratch: Accuracies
) -> dict:
    """The rows of the table, and the gains over training from scratch, by images per class."""
    deep, shallow_accuracy = (
        {n: results[n].accuracy for n in scratch} for results in (curve, shallow)
    )
    gains = {n: np.subtract(deep[n], scratch[n]).tolist() for n in scratch}
    shallow_gains = {n: np.subtract(shallow_accuracy[n], scratch[n]).tolist() for n in scratch}
    rows = {
        PRETRAINED: deep,
        SHALLOW: shallow_accuracy,
        SCRATCH: scratch,
        GAIN: gains,
        SHALLOW_GAIN: shallow_gains,
    }
    measured: dict = {
        name: {f"{n} per class": mean_and_deviation(values) for n, values in row.items()}
        for name, row in rows.items()
    }
    smallest = min(points for folds in gains.values() for points in folds)
    return measured | {"smallest gain of a fold, points": round(smallest, 2)}


def _published(figure: Figure) -> dict[str, float]:
    """The best accuracy before the paper, by images per class."""
    return {
        count: value[0] if isinstance(value, list) else value
        for count, value in figure.paper[BEFORE].items()
    }


def judge(
    measured: dict, before: dict[str, float]
) -> tuple[dict[str, bool | None], dict[str, str]]:
    """Judge the claims.

    Args:
        measured: The numbers of `_measure`.
        before: The best accuracy before the paper, by images per class.

    Returns:
        The judgments, and for each claim what was measured.
    """
    smallest, ours = measured["smallest gain of a fold, points"], measured[PRETRAINED]
    judgments: dict[str, bool | None] = {MAIN: smallest > 0}
    evidence = {MAIN: f"in one fold the gain over training from scratch is {smallest:.1f} points"}
    *_, most = measured[SCRATCH]  # "30 per class"
    with_most = most.replace(" per", " images per")
    for layers, name in (("1-7", GAIN), ("1-5", SHALLOW_GAIN)):
        gain = measured[name][most][0]
        claim = f"layers {layers} gain at least {FEWEST_POINTS} points with {with_most}"
        judgments[claim] = gain >= FEWEST_POINTS
        evidence[claim] = (
            f"layers {layers} gain {gain:.1f} points with {with_most}, fewer than {FEWEST_POINTS}"
        )
    claim = "pretrained features beat the best result before the paper"
    judgments[claim] = all(ours[count][0] > before[count] for count in measured[SCRATCH])
    evidence[claim] = (
        f"{ours[most][0]:.1f} % with {with_most} is less than the {before[most]:.1f} % published "
        "before the paper"
    )
    return judgments, evidence


def _finding(measured: dict) -> str:
    """How far pretrained features are above training from scratch."""
    *_, most = measured[SCRATCH]
    deep, shallow, scratch = (measured[name][most][0] for name in (PRETRAINED, SHALLOW, SCRATCH))
    return (
        f"With {most.replace(' per', ' images per')}, pretrained features reach {deep:.1f} % "
        f"({shallow:.1f} % with layers 1-5 only), and training from scratch {scratch:.1f} %."
    )
