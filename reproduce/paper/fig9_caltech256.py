"""Figure 9: Caltech-256 accuracy against training images per class.

The paper's claim: with six training images per class, a softmax on frozen ImageNet features beats
the leading method with sixty. It runs on the user's copy of Caltech-256. Table 4's picture has the
same curve for Caltech-101.
"""

import itertools

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.paper.protocol import (
    classify_frozen,
    grid_note,
    inner_products,
    mean_and_deviation,
    unseen,
)
from reproduce.paper.transfer import BEFORE, CALTECH256_PAPER, FILES, PRETRAINED, absent
from reproduce.paper.transfer_curves import images_per_class, label_axes
from zfnet.analysis.transfer import softmax
from zfnet.plot import LINES

FIGURE = Figure(
    id="fig9",
    title="Caltech-256: accuracy by training images per class",
    claim="Six training images per class with pretrained features beat the leading method with "
    "sixty.",
    inputs=("model", "caltech256", "pretraining"),
    seed=0,
    time_budget=3600,
    paper={name: CALTECH256_PAPER[name] for name in (PRETRAINED, BEFORE)},
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
    version=2,
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
    means = {n: float(np.mean(result.accuracy)) for n, result in curve.items()}
    judgments, evidence = judge(means)
    claims, summary = verdict(judgments)
    measured: dict = {
        PRETRAINED: {
            f"{n} per class": mean_and_deviation(result.accuracy) for n, result in curve.items()
        },
        **counts,
        "C of the softmax, by fold": {str(n): result.c for n, result in curve.items()},
        "claims": claims,
    }
    note += grid_note([*curve.values()]) + ctx.differences_from_paper
    finding = (
        f"Six training images per class reach {means[6]:.1f} %; the leading method had "
        f"{_leading():.1f} % with sixty."
    )
    reason = explain(judgments, evidence)
    return Result({}, measured, summary, len(rows), note, "subset", finding, reason)


def _leading() -> float:
    """The accuracy of the leading method with 60 images per class, in percent."""
    return FIGURE.paper[BEFORE]["60 per class"][0]


def judge(means: dict[int, float]) -> tuple[dict[str, bool | None], dict[str, str]]:
    """The judgments, and for each claim what was measured.

    Args:
        means: Accuracy in percent by images per class.
    """
    falls = {b: means[a] - means[b] for a, b in itertools.pairwise(means)}
    worst = max(falls, key=lambda n: falls[n])
    judgments: dict[str, bool | None] = {
        "six images per class beat the leading method's sixty": means[6] > _leading(),
        "more images are better at every step": falls[worst] < 0,
    }
    evidence = (
        f"six images per class reach {means[6]:.1f} %, less than {_leading():.1f} %",
        f"the accuracy falls by {falls[worst]:.1f} points up to {worst} images per class",
    )
    return judgments, dict(zip(judgments, evidence, strict=True))


def draw(result: Result) -> dict[str, Picture]:
    if PRETRAINED not in result.measured:
        return {}
    picture = new_page(4.6)
    axes = picture.subplots()
    curves = {"pretrained, ours": result.measured[PRETRAINED]}
    curves |= {f"{name}, the paper's": values for name, values in FIGURE.paper.items()}
    for (name, values), color, line in zip(
        curves.items(), (LINES[0], LINES[0], LINES[2]), ("o-", "x:", "x:"), strict=True
    ):
        mean, deviation = np.transpose(list(values.values()))
        axes.errorbar(
            images_per_class(values), mean, deviation, fmt=line, color=color, capsize=2, label=name
        )
    label_axes(axes, "training images per class")
    axes.legend(frameon=False, fontsize=9)
    set_finding(picture, result.finding)
    return {"fig9.png": picture}
