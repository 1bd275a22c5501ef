"""The most confident mistakes, each beside a typical image of the predicted class.

Are confident mistakes like human ones? Karpathy (2014) and Russakovsky et al. (2015, section 6.4)
compare errors of people and networks on ImageNet: fine distinctions within a kind, several objects
in one image, wrong labels. This figure shows the images with the highest probability of a wrong
class, at most one per predicted class, beside the image whose layer-7 code is closest to the mean
code of the predicted class. It measures how often such a mistake stays within the kind (a dog for a
dog), and how often the true class is among the five most probable, against other mistakes and
against chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import blank, caption, new_page, set_finding
from reproduce.lectures.kinds import KINDS, kind_table
from reproduce.lectures.predictions import Predictions, predict_corpus
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.intervals import difference_interval, wilson
from zfnet.plot import enlarge, mosaic, photograph, show

FIGURE = Figure(
    id="mistakes",
    title="The most confident mistakes",
    claim="The most confident mistakes stay within the kind more often than other mistakes, and "
    "have the true class among the top five more often. Most images with the same confidence are "
    "classified correctly.",
    inputs=("model", "images"),
    seed=34,
    time_budget=2,
    config={"confident": 100, "shown": 12},
    labels=True,
)
REASON = (
    f"It needs at least {MIN_IMAGES} images with labels of ILSVRC's 1,000 classes; give ImageNet "
    "with --data."
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    if ctx.corpus == SAMPLES or len(ctx.images) < MIN_IMAGES or len(ctx.model.wnids) != 1000:
        return Result({}, {}, "not run", n=0, note=REASON)
    predictions = predict_corpus(ctx)
    n, confidence = len(predictions.labels), predictions.probability.max(1)
    wrong = np.flatnonzero(~predictions.correct)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    confident, others = wrong[: config["confident"]], wrong[config["confident"] :]
    if len(others) < MIN_IMAGES:
        note = f"{len(wrong)} mistakes are too few for a comparison."
        return Result({}, {}, "not run", n=n, note=note)
    measured: dict[str, Any] = {"images": n, "mistakes": len(wrong)}
    measured |= compare(predictions, confident, others)
    # A tree of few classes has no typical images of the others.
    has_images = np.isin(predictions.predicted[confident], predictions.labels)
    shown = one_per_class(confident[has_images], predictions.predicted)[: config["shown"]]
    measured["shown"] = describe(ctx, predictions, shown)
    typical = [typical_image(predictions, int(predictions.predicted[i])) for i in shown]
    arrays = {
        "shown": photograph(ctx.images.batch(shown)),
        "typical": photograph(ctx.images.batch(np.array(typical, dtype=int))),
        "probability": confidence,
        "predicted": predictions.predicted,
        "labels": predictions.labels,
        "rank": predictions.rank(),
    }
    claims, outcome = judge(measured)
    note = (
        f"The {len(confident)} mistakes with the highest probability against all others. The six "
        f"kinds are {', '.join(KINDS)}, and the rest. Shown is one image per predicted class, "
        "beside the image of that class whose code is closest to the mean. Shares have Wilson's "
        "95 % intervals, differences intervals by bootstrap over images."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=n, note=note)


def compare(predictions: Predictions, confident: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Compare the most confident mistakes with the others, and with chance.

    Args:
        predictions: Predictions of the corpus.
        confident: The most confident mistakes, in descending order.
        others: The other mistakes.
    """
    labels, predicted = predictions.labels, predictions.predicted
    kind, in_top5 = kind_table(), predictions.rank() <= 5
    same = kind[labels] == kind[predicted]
    kind_share = np.bincount(kind[labels], minlength=kind.max() + 1) / len(labels)
    confidence = predictions.probability.max(1)
    threshold = float(confidence[confident[-1]])
    return {
        "most confident mistakes": len(confident),
        "their least probability of the wrong class": threshold,
        "within the kind, %": {
            "most confident": percent(same[confident]),
            "other mistakes": percent(same[others]),
        },
        "within the kind by chance, %": 100 * float(kind_share[kind[labels[confident]]].mean()),
        "true class among the five most probable, %": {
            "most confident": percent(in_top5[confident]),
            "other mistakes": percent(in_top5[others]),
        },
        "most confident less other mistakes, points": {
            "within the kind": difference(same[confident], same[others]),
            "among the five": difference(in_top5[confident], in_top5[others]),
        },
        "right, of all images judged as confidently, %": percent(
            predictions.correct[confidence >= threshold]
        ),
    }


def describe(ctx: Context, predictions: Predictions, shown: np.ndarray) -> dict[str, Any]:
    """The true and the predicted class of images, by file name."""
    classes, rank = ctx.model.classes, predictions.rank()
    return {
        str(ctx.images.names[i]): {
            "true class": classes[predictions.labels[i]],
            "taken for": classes[predictions.predicted[i]],
            "probability": float(predictions.probability[i].max()),
            "rank of the true class": int(rank[i]),
        }
        for i in shown
    }


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """The claims, each beyond its interval."""
    gain = measured["most confident less other mistakes, points"]
    correct = measured["right, of all images judged as confidently, %"]
    return verdict(
        {
            "confident mistakes stay within the kind more often than other mistakes": above(
                gain["within the kind"]
            ),
            "true class in the top five more often than other mistakes": above(
                gain["among the five"]
            ),
            "most images with the same confidence are classified correctly": above(correct, 50),
        }
    )


def typical_image(predictions: Predictions, label: int) -> int:
    """The image of a class whose normalized code is closest to the class's mean code.

    Args:
        predictions: Predictions of the corpus.
        label: The class.

    Returns:
        Its index in the corpus.
    """
    members = np.flatnonzero(predictions.labels == label)
    codes = predictions.codes[members] / np.maximum(
        np.linalg.norm(predictions.codes[members], axis=1, keepdims=True), 1e-12
    )
    return int(members[(codes @ codes.mean(0)).argmax()])


def one_per_class(order: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The first image of each predicted class, in the given order."""
    _, first = np.unique(predicted[order], return_index=True)
    return order[np.sort(first)]


def percent(hits: np.ndarray) -> list[float]:
    """The share of hits (N,) in percent with Wilson's interval: [share, low, high]."""
    return [100 * v for v in (hits.mean(), *wilson(int(hits.sum()), len(hits)))]


def difference(one: np.ndarray, other: np.ndarray) -> list[float]:
    """The difference of two shares in points, with its interval: [difference, low, high]."""
    return (
        difference_interval(100.0 * one, 100.0 * other, seed=FIGURE.seed)
        if len(one) and len(other)
        else [float("nan")]
    )


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays or not result.measured["shown"]:
        return {}
    a, m = result.arrays, result.measured
    rows, columns = list(m["shown"].values()), 3
    lines = -(-len(rows) // columns)
    figure = new_page(1.75 * lines + 0.6)
    grid = figure.subplots(lines, columns, squeeze=False)
    blank(grid)
    for axes, row, *pair in zip(grid.flat, rows, a["shown"], a["typical"], strict=False):
        show(axes, mosaic(enlarge(np.stack(pair), 170), 2, gap=6))
        text = f"{row['true class']} (rank {row['rank of the true class']})\n"
        caption(axes, text + f"predicted: {row['taken for']}, {row['probability']:.0%}", 46)
    kind = m["within the kind, %"]
    set_finding(
        figure,
        f"Of the most confident mistakes {kind['most confident'][0]:.0f} % stay within the kind, "
        f"of the others {kind['other mistakes'][0]:.0f} %. Left: the image; right: a typical image "
        "of the predicted class",
    )
    return {"mistakes.jpg": figure}
