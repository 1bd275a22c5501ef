"""Figure 9: Caltech-256 accuracy against training images a class.

The paper's claim: with six training images a class, a softmax on frozen ImageNet features beats the leading method with sixty.
Runs on the user's copy of Caltech-256; Table 4's picture has the same curve over Caltech-101.
"""

import itertools

import numpy as np

from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.protocol import at_the_ends, frozen, inner_products, mean_and_deviation, unseen
from reproduce.paper.tab4_caltech101 import FIGURE as TABLE4
from reproduce.paper.tab5_caltech256 import FIGURE as TABLE5
from zfnet.analysis.transfer import softmax
from zfnet.plot import LINES, new_figure

FIGURE = Figure(
    id="fig9",
    title="Caltech-256: accuracy by training images a class",
    claim="Six training images a class with pretrained features beat the leading method with sixty.",
    inputs=TABLE5.inputs,
    seed=0,
    time_budget=3600,
    paper={name: TABLE5.paper[name] for name in ("pretrained", "best before")},
    config={
        "curve": (1, 2, 4, 6, 10, 15, 20, 30, 45, 60),
        "layer": "fc7",
        "most to test": 50,
        "folds": 5,
    },
    files=(*TABLE4.files,),
    manual=True,
    corpus="caltech256",
    network="chain",
)
ABSENT = "Caltech-256 was not found; give the folder of torchvision's data sets with --datasets."


def compute(ctx) -> Result:
    if ctx.dataset("caltech256") is None:
        return Result({}, {}, "not run", n=0, note=ABSENT, scale="smoke")
    images, kept, counts, _, note = unseen(ctx, "caltech256")
    products, labels = (
        inner_products(ctx, images, kept, FIGURE.config["layer"]),
        images.labels[kept],
    )
    curve = {n: frozen(ctx, products, labels, softmax, n, FIGURE) for n in FIGURE.config["curve"]}
    six, best = float(np.mean(curve[6].accuracy)), FIGURE.paper["best before"]["60 a class"][0]
    means = [float(np.mean(found.accuracy)) for found in curve.values()]
    held = {
        "six a class beat the leading method's sixty": six > best,
        "more images are better at every step": all(b > a for a, b in itertools.pairwise(means)),
    }
    measured = {
        "pretrained": {
            f"{n} a class": mean_and_deviation(found.accuracy) for n, found in curve.items()
        }
    } | counts
    measured["C of the softmax, by fold"] = {str(n): found.c for n, found in curve.items()}
    measured["claims"], said = verdict(held)
    arrays = {"curve": np.array([[n, *found.accuracy] for n, found in curve.items()])}
    note += at_the_ends([*curve.values()]) + ctx.differences_from_paper
    return Result(arrays, measured, said, len(kept), note, "subset")


def draw(result: Result):
    if "curve" not in result.arrays:
        return {}
    picture = new_figure(5.6, 3.6)
    axes = picture.subplots()
    n, found = result.arrays["curve"][:, 0], result.arrays["curve"][:, 1:]
    axes.errorbar(
        n,
        found.mean(1),
        found.std(1),
        color=LINES[0],
        marker="o",
        ms=4,
        capsize=2,
        label="pretrained, ours",
    )
    for (name, values), colour in zip(FIGURE.paper.items(), (LINES[0], LINES[2]), strict=True):
        at, (mean, deviation) = (
            [int(text.split()[0]) for text in values],
            np.transpose(list(values.values())),
        )
        axes.errorbar(
            at,
            mean,
            deviation,
            ls=":",
            marker="x",
            capsize=2,
            color=colour,
            label=f"{name}, the paper's",
        )
    axes.set(
        xlabel="training images a class", ylabel="accuracy, % (mean over classes)", ylim=(0, 100)
    )
    axes.legend(frameon=False)
    return {"fig9.png": picture}
