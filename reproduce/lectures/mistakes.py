"""The errors that the network is surest of, each beside a typical image of the class that it says.

Is a confident mistake a human one? Karpathy (2014) and Russakovsky et al. (2015, section 6.4) put people's and networks' errors
on ImageNet side by side: fine distinctions within a kind, more than one object in the picture, labels that are wrong. Here
the images with the greatest probability of a wrong class, at most one of each predicted class, beside the image whose layer-7
code is nearest to the mean code of the predicted class. Measured: how often such a mistake stays within the kind (a dog for a
dog), and how often the true class is among the five most probable, against the other mistakes and against chance.
"""

import numpy as np

from reproduce.core.claims import above, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.codes import KINDS
from reproduce.lectures.recognised import Recognised, recognise
from reproduce.lectures.shared import FEW
from zfnet.analysis.intervals import difference_interval, wilson
from zfnet.plot import enlarge, mosaic, new_figure, photograph, show

FIGURE = Figure(
    id="mistakes",
    title="The most confident mistakes",
    claim="The mistakes of which the network is surest stay within the kind more often than other mistakes, have the true "
    "class among the five most probable more often, and are sure for a reason: most images judged as confidently are right.",
    inputs=("model", "images"),
    seed=34,
    time_budget=2,
    config={"confident": 100, "shown": 12},
    labels=True,
)
NEEDS = f"Mistakes need at least {FEW} images labeled with ILSVRC's 1,000 classes; give ImageNet with --data."


def compute(ctx) -> Result:
    config = FIGURE.config
    if ctx.corpus == SAMPLES or len(ctx.images) < FEW or len(ctx.model.wnids) != 1000:
        return Result({}, {}, "not run", n=0, note=NEEDS)
    found = recognise(ctx)
    sure = found.probability.max(1)
    wrong = np.flatnonzero(~found.right)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    surest, others = wrong[: config["confident"]], wrong[config["confident"] :]
    if len(others) < FEW:
        return Result(
            {},
            {},
            "not run",
            n=len(found.labels),
            note=f"{len(wrong)} mistakes: too few to compare the surest with.",
        )
    kind, fifth = kind_table(), found.rank() <= 5
    same = kind[found.labels] == kind[found.predicted]
    threshold = float(sure[surest[-1]])
    level = found.right[sure >= threshold]
    table = np.bincount(kind[found.labels], minlength=kind.max() + 1) / len(found.labels)
    measured = {
        "images": len(found.labels), "mistakes": len(wrong), "most confident mistakes": len(surest),
        "their least probability of the wrong class": threshold,
        "within the kind, %": {"most confident": percent(same[surest]), "other mistakes": percent(same[others])},
        "within the kind by chance, %": 100 * float((table[kind[found.labels[surest]]]).mean()),
        "true class among the five most probable, %": {
            "most confident": percent(fifth[surest]), "other mistakes": percent(fifth[others]),
        },
        "most confident less other mistakes, points": {
            "within the kind": apart(same[surest], same[others]), "among the five": apart(fifth[surest], fifth[others]),
        },
        "right, of all images judged as confidently, %": percent(level),
    }  # fmt: skip
    there = np.isin(
        found.predicted[surest], found.labels
    )  # a tree of few classes has no typical image of the others
    shown = distinct(surest[there], found.predicted)[: config["shown"]]
    classes = ctx.model.classes
    measured["shown"] = {
        ctx.images.names[i]: {
            "true class": classes[found.labels[i]], "taken for": classes[found.predicted[i]], "probability": float(sure[i]),
            "rank of the true class": int(found.rank()[i]),
        }
        for i in shown
    }  # fmt: skip
    beside = np.array([typical(found, found.predicted[i]) for i in shown], dtype=int)
    arrays = {
        "shown": photograph(ctx.images.batch(shown)),
        "typical": photograph(ctx.images.batch(beside)),
    }
    arrays |= {
        "probability": sure,
        "predicted": found.predicted,
        "labels": found.labels,
        "rank": found.rank(),
    }
    claims, outcome = verdict({
        "within the kind more often than other mistakes":
            above(measured["most confident less other mistakes, points"]["within the kind"]),
        "the true class among the five more often than in other mistakes":
            above(measured["most confident less other mistakes, points"]["among the five"]),
        "most images judged as confidently are right": above(percent(level), 50),
    })  # fmt: skip
    note = (
        f"The {len(surest)} mistakes of greatest probability against all others; kinds are six: {', '.join(KINDS)}, the rest. "
        "Shown: one of each predicted class that the corpus has; beside it its image whose code is nearest to its mean. "
        "Shares with Wilson's 95 % intervals, differences by bootstrap over images."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(found.labels), note=note)


def kind_table() -> np.ndarray:
    """The kind of each of ILSVRC's 1000 classes: (1000,), the last for what is none of KINDS."""
    table = np.full(1000, len(KINDS))
    for number, ranges in enumerate(KINDS.values()):
        for low, high in ranges:
            table[low:high] = number
    return table


def typical(found: Recognised, label: int) -> int:
    """The image of a class whose code, of unit length, is nearest to the mean of the class's codes."""
    own = np.flatnonzero(found.labels == label)
    codes = found.codes[own] / np.maximum(
        np.linalg.norm(found.codes[own], axis=1, keepdims=True), 1e-12
    )
    return int(own[(codes @ codes.mean(0)).argmax()])


def distinct(order: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The first image of each predicted class, in the given order."""
    _, first = np.unique(predicted[order], return_index=True)
    return order[np.sort(first)]


def percent(hits: np.ndarray) -> list[float]:
    """The share of hits (N,) bool, in per cent, with Wilson's interval."""
    return [100 * v for v in (hits.mean(), *wilson(int(hits.sum()), len(hits)))]


def apart(one: np.ndarray, other: np.ndarray) -> list[float]:
    """The share of one less that of the other, in points, with its interval over images: [difference, low, high]."""
    return (
        difference_interval(100.0 * one, 100.0 * other, seed=FIGURE.seed)
        if len(one) and len(other)
        else [float("nan")]
    )


def draw(result: Result):
    if not result.arrays or not result.measured["shown"]:
        return {}
    a, rows = result.arrays, list(result.measured["shown"].values())
    columns = 4
    figure = new_figure(12, 1.8 * -(-len(rows) // columns) + 0.3)
    grid = figure.subplots(-(-len(rows) // columns), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, row, one, other in zip(grid.flat, rows, a["shown"], a["typical"], strict=False):
        show(axes, mosaic(enlarge(np.stack([one, other]), 170), 2, gap=6))
        place = row["rank of the true class"]
        title = f"{row['true class']}, taken {row['probability']:.0%} for: {row['taken for']}\n(true class: rank {place})"
        axes.set_title(title, fontsize=7.5)
    figure.suptitle("Left: the image; right: a typical image of the class that the network says")
    return {"mistakes.jpg": figure}
