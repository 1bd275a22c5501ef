"""Figure 9: Caltech-256 accuracy against training images per class.

The paper's claim: with six training images per class, a softmax on frozen ImageNet features beats
the leading method with sixty. It runs on the user's copy of Caltech-256. Table 4's picture has the
same curve for Caltech-101.
"""

import itertools

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.protocol import (
    classify_frozen,
    grid_note,
    inner_products,
    mean_and_deviation,
    unseen,
)
from reproduce.paper.transfer import (
    CALTECH256_PAPER,
    FILES,
    absent,
    images_per_class,
    label_axes,
)
from zfnet.analysis.transfer import softmax
from zfnet.plot import LINES, new_figure

FIGURE = Figure(
    id="fig9",
    title="Caltech-256: accuracy by training images per class",
    claim="Six training images per class with pretrained features beat the leading method with "
    "sixty.",
    inputs=("model", "caltech256", "pretraining"),
    seed=0,
    time_budget=3600,
    paper={name: CALTECH256_PAPER[name] for name in ("pretrained", "best before")},
    config={
        "curve": (1, 2, 4, 6, 10, 15, 20, 30, 45, 60),
        "layer": "fc7",
        "most to test": 50,
        "folds": 5,
    },
    files=FILES,
    manual=True,
    corpus="caltech256",
    network="chain",
)


def compute(ctx: Context) -> Result:
    if ctx.dataset("caltech256") is None:
        return absent("Caltech-256")
    images, rows, counts, note = unseen(ctx, "caltech256")
    products = inner_products(ctx, images, rows, FIGURE.config["layer"])
    labels = images.labels[rows]
    curve = {
        n: classify_frozen(ctx, products, labels, softmax, n, FIGURE)
        for n in FIGURE.config["curve"]
    }
    best = FIGURE.paper["best before"]["60 a class"][0]
    means = {n: float(np.mean(result.accuracy)) for n, result in curve.items()}
    judgments = {
        "six images per class beat the leading method's sixty": means[6] > best,
        "more images are better at every step": all(
            b > a for a, b in itertools.pairwise(means.values())
        ),
    }
    claims, summary = verdict(judgments)
    measured: dict = {
        "pretrained": {
            f"{n} a class": mean_and_deviation(result.accuracy) for n, result in curve.items()
        },
        **counts,
        "C of the softmax, by fold": {str(n): result.c for n, result in curve.items()},
        "claims": claims,
    }
    arrays = {"curve": np.array([[n, *result.accuracy] for n, result in curve.items()])}
    note += grid_note([*curve.values()]) + ctx.differences_from_paper
    return Result(arrays, measured, summary, len(rows), note, "subset")


def draw(result: Result) -> dict[str, Picture]:
    if "curve" not in result.arrays:
        return {}
    picture = new_figure(5.6, 3.6)
    axes = picture.subplots()
    n, accuracy = result.arrays["curve"][:, 0], result.arrays["curve"][:, 1:]
    style = {"color": LINES[0], "marker": "o", "ms": 4, "capsize": 2}
    axes.errorbar(n, accuracy.mean(1), accuracy.std(1), label="pretrained, ours", **style)
    for (name, values), color in zip(FIGURE.paper.items(), (LINES[0], LINES[2]), strict=True):
        mean, deviation = np.transpose(list(values.values()))
        style = {"ls": ":", "marker": "x", "capsize": 2, "color": color}
        label = f"{name}, the paper's"
        axes.errorbar(images_per_class(values), mean, deviation, label=label, **style)
    label_axes(axes)
    axes.legend(frameon=False)
    return {"fig9.png": picture}
