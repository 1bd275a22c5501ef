"""The most confident mistakes, each next to a typical image of the predicted class.

Are confident mistakes like human ones? Karpathy (2014) and Russakovsky et al. (2015, section 6.4)
compare errors of people and networks on ImageNet: fine distinctions within a kind, several objects
in one image, wrong labels. This figure shows the images with the highest probability of a wrong
class, at most one per predicted class, next to the image with the layer-7 code closest to the mean
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
from reproduce.core.page import SMALL, blank, caption, new_page, set_finding
from reproduce.lectures.features.mistake_comparison import (
    ACCURACY,
    GAIN,
    compare,
    one_per_class,
    typical_image,
)
from reproduce.lectures.kinds import KINDS
from reproduce.lectures.predictions import Predictions, predict_corpus
from reproduce.lectures.sampling import MIN_IMAGES
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
    version=2,
    labels=True,
)
NEEDS_LABELS = (
    f"It needs at least {MIN_IMAGES} images with labels of ILSVRC's 1,000 classes; give ImageNet "
    "with --data."
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    if ctx.corpus == SAMPLES or len(ctx.images) < MIN_IMAGES or len(ctx.model.wnids) != 1000:
        return Result({}, {}, "not run", n=0, note=NEEDS_LABELS)
    predictions = predict_corpus(ctx)
    n, confidence = len(predictions.labels), predictions.probability.max(1)
    wrong = np.flatnonzero(~predictions.correct)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    confident, others = wrong[: config["confident"]], wrong[config["confident"] :]
    if len(others) < MIN_IMAGES:
        note = f"{len(wrong)} mistakes are too few for a comparison."
        return Result({}, {}, "not run", n=n, note=note)
    measured: dict[str, Any] = {"images": n, "mistakes": len(wrong)}
    measured |= compare(predictions, confident, others, FIGURE.seed)
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
        f"kinds are {', '.join(KINDS)}, and the rest. The picture shows one image per predicted "
        "class, next to the image of that class with the code closest to the mean. The 95 % "
        "intervals are Wilson's for shares, and by bootstrap over images for differences."
    )
    finding, reason = state_finding(measured), state_reason(measured, outcome)
    measured |= {"claims": claims}
    return Result(arrays, measured, outcome, n, note, finding=finding, reason=reason)


def describe(ctx: Context, predictions: Predictions, shown: np.ndarray) -> dict[str, Any]:
    """The true and the predicted class of images, by file name."""
    classes, rank = ctx.model.classes, predictions.rank()
    return {
        str(ctx.images.names[i]): {
            "true class": classes[predictions.labels[i]],
            "predicted class": classes[predictions.predicted[i]],
            "probability": float(predictions.probability[i].max()),
            "rank of the true class": int(rank[i]),
        }
        for i in shown
    }


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """The claims, each beyond its interval."""
    gain = measured[GAIN]
    return verdict(
        {
            "the most confident mistakes stay within the kind more often": above(
                gain["within the kind"]
            ),
            "they have the true class among the five most probable more often": above(
                gain["among the five most probable"]
            ),
            "most images with the same confidence are classified correctly": above(
                measured[ACCURACY], 50
            ),
        }
    )


def state_finding(m: dict) -> str:
    kind = m["within the kind, %"]
    return (
        f"{kind['most confident'][0]:.0f} % of the {m['most confident mistakes']} most confident "
        f"mistakes stay within the kind, and {kind['other mistakes'][0]:.0f} % of the others; "
        f"{m[ACCURACY][0]:.0f} % of the images with the same confidence are classified correctly."
    )


def state_reason(m: dict, outcome: str) -> str:
    """The differences, with their intervals."""
    if outcome == "reproduced":
        return ""
    gains = [
        f"{value:+.0f} points [{low:.0f}, {high:.0f}] {name}"
        for name, (value, low, high) in m[GAIN].items()
    ]
    return (
        f"The most confident mistakes differ from the others by {' and '.join(gains)}; at their "
        f"confidence {m[ACCURACY][0]:.0f} % of the images are correct."
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
        caption(axes, text + f"predicted: {row['predicted class']}, {row['probability']:.0%}", 46)
    figure.supxlabel(
        "Left: the image, its true class and the rank of this class. Right: a typical image of the "
        "predicted class.",
        fontsize=SMALL + 1,
    )
    set_finding(figure, result.finding)
    return {"mistakes.jpg": figure}
