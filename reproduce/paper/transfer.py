"""What Tables 4 and 5 and Figure 9 share: Caltech's settings, the comparison, and its pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import verdict
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
from zfnet.plot import LINES, new_figure
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
CALTECH256_PAPER = {
    "pretrained": {
        "15 a class": [65.7, 0.2], "30 a class": [70.6, 0.2],
        "45 a class": [72.7, 0.4], "60 a class": [74.2, 0.3],
    },
    "from scratch": {
        "15 a class": [9.0, 1.4], "30 a class": [22.5, 0.7],
        "45 a class": [31.2, 0.5], "60 a class": [38.8, 1.4],
    },
    "best before": {  # Bo et al. 2013
        "15 a class": [40.5, 0.4], "30 a class": [48.0, 0.2],
        "45 a class": [51.9, 0.2], "60 a class": [55.2, 0.3],
    },
    "images that overlap": 243,
    "images": 30607,
}  # fmt: skip
SHALLOW = "pretrained, layers 1-5 only"
MAIN = "pretrained features beat training from scratch, in every fold"
FEWEST_POINTS = 15  # the smallest gain for which the claims hold


def absent(name: str) -> Result:
    """The result without a data set."""
    note = f"{name} was not found; give the folder of torchvision's data sets with --datasets."
    return Result({}, {}, "not run", n=0, note=note, scale="smoke")


def compare(ctx: Context, figure: Figure) -> Result:
    """Compare frozen features and training from scratch on a figure's data set."""
    config, data = figure.config, unseen(ctx, figure.corpus)
    per_class, counts = config["per class"], data.counts
    curve = _accuracies(ctx, figure, data, config["layer"], {*config["curve"], *per_class})
    shallow = _accuracies(ctx, figure, data, config["also"], per_class)
    scratch = {n: train_from_scratch(ctx, data.rows, n, figure) for n in per_class}
    measured = _measure(curve, shallow, scratch)
    claims, summary = _judge(figure, curve, shallow, scratch)
    measured |= counts | {"claims": claims}
    measured["pretrained, by images a class"] = {
        str(n): mean_and_deviation(result.accuracy) for n, result in curve.items()
    }
    measured["C of the softmax, by fold"] = {str(n): result.c for n, result in curve.items()}
    measured["C of the softmax on layers 1-5, by fold"] = {
        str(n): result.c for n, result in shallow.items()
    }
    arrays = {"curve": np.array([[n, *result.accuracy] for n, result in curve.items()])}
    arrays["scratch"] = np.array([[n, *accuracy] for n, accuracy in scratch.items()])
    recipe = protocol.FROM_SCRATCH
    note = data.note + (
        f"{counts['images']:,} images: the background class is left out. A class with too few "
        "images keeps one for the test. Training from scratch at "
        f"{load_config(recipe).model.size} pixels, by {recipe.name}, whose epochs were chosen on "
        f"Caltech-101's first fold; frozen features at {ctx.model.size} pixels, pretrained on a "
        "part of ImageNet. So neither the accuracies nor the gain compare with the paper's. "
        f"{grid_note([*curve.values(), *shallow.values()])}{ctx.differences_from_paper}"
    )
    return Result(arrays, measured, summary, n=len(data.rows), note=note, scale="subset")


def _accuracies(
    ctx: Context, figure: Figure, data: Unseen, layer: str, counts: Iterable[int]
) -> dict[int, Classified]:
    """A softmax on a frozen layer, by training images per class."""
    products = inner_products(ctx, data.images, data.rows, layer)
    labels = data.images.labels[data.rows]
    return {n: classify_frozen(ctx, products, labels, softmax, n, figure) for n in sorted(counts)}


def _measure(
    curve: dict[int, Classified],
    shallow: dict[int, Classified],
    scratch: dict[int, list[float]],
) -> dict:
    """The rows of the table, and the gains over training from scratch, by images per class."""
    rows = {
        "pretrained": {n: curve[n].accuracy for n in scratch},
        SHALLOW: {n: shallow[n].accuracy for n in scratch},
        "from scratch": scratch,
        "gain, points": _gain(curve, scratch),
        "gain, layers 1-5 only, points": _gain(shallow, scratch),
    }
    return {
        name: {f"{n} a class": mean_and_deviation(values) for n, values in row.items()}
        for name, row in rows.items()
    }


def _gain(
    results: dict[int, Classified], scratch: dict[int, list[float]]
) -> dict[int, list[float]]:
    """Points above training from scratch, by fold."""
    return {n: np.subtract(results[n].accuracy, scratch[n]).tolist() for n in scratch}


def _judge(
    figure: Figure,
    curve: dict[int, Classified],
    shallow: dict[int, Classified],
    scratch: dict[int, list[float]],
) -> tuple[dict[str, str], str]:
    gain, shallow_gain, most = _gain(curve, scratch), _gain(shallow, scratch), max(scratch)
    before = {
        name: value[0] if isinstance(value, list) else value
        for name, value in figure.paper["best before"].items()
    }
    judgments = {
        MAIN: all(points > 0 for folds in gain.values() for points in folds),
        f"layers 1-7 gain at least {FEWEST_POINTS} points at the most images per class": bool(
            np.mean(gain[most]) >= FEWEST_POINTS
        ),
        f"layers 1-5 gain at least {FEWEST_POINTS} points at the most images per class": bool(
            np.mean(shallow_gain[most]) >= FEWEST_POINTS
        ),
        "pretrained features beat the best result before the paper": all(
            mean_and_deviation(curve[n].accuracy)[0] > before[f"{n} a class"] for n in scratch
        ),
    }
    return verdict(judgments, MAIN)


def draw_comparison(result: Result, figure: Figure) -> dict[str, Picture]:
    """The accuracy over training images per class."""
    if "curve" not in result.arrays:
        return {}
    picture = new_figure(8.4, 4.2)
    axes = picture.subplots()
    _draw_curve(axes, result, figure)
    axes.set_title(_finding(result, figure), fontsize=11)
    return {f"{figure.id}.png": picture}


def _finding(result: Result, figure: Figure) -> str:
    """The title: how far pretrained features are above training from scratch."""
    most = f"{max(figure.config['per class'])} a class"
    pretrained, scratch = (
        result.measured[name][most][0] for name in ("pretrained", "from scratch")
    )
    count = most.split()[0]
    return (
        f"Pretrained features reach {pretrained:.0f} %, training from scratch {scratch:.0f} %, "
        f"with {count} images per class"
    )


def _draw_curve(axes: Axes, result: Result, figure: Figure) -> None:
    series = {
        "pretrained": result.measured["pretrained, by images a class"],
        SHALLOW: result.measured[SHALLOW],
        "from scratch": result.measured["from scratch"],
    }
    colors = (LINES[0], LINES[2], LINES[1])
    for (name, values), color, marker in zip(series.items(), colors, "o^s", strict=True):
        n, (mean, deviation) = images_per_class(values), np.transpose(list(values.values()))
        style = {"color": color, "marker": marker, "ms": 4, "capsize": 2}
        axes.errorbar(n, mean, deviation, label=f"{name}, ours", **style)
        if name in figure.paper:
            paper = figure.paper[name]
            means = [value[0] for value in paper.values()]
            style = {"ls": ":", "marker": "x", "color": color, "alpha": 0.7}
            axes.plot(images_per_class(paper), means, label=f"{name}, paper", **style)
    label_axes(axes)
    axes.legend(frameon=False, fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))


def images_per_class(values: dict) -> list[int]:
    """The numbers of images in keys such as "15 a class"."""
    return [int(text.split()[0]) for text in values]


def label_axes(axes: Axes) -> None:
    """Label a curve over images per class."""
    axes.set(xlabel="training images per class", ylim=(0, 100))
    axes.set_ylabel("accuracy, % (mean over classes)")
