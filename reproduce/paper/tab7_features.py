"""Table 7: how good are the features of each layer for other images?

The paper's claim: the higher the layer, the better its features classify Caltech-101 (30 images a class) and Caltech-256 (60):
accuracy rises from layer 1 to layer 5, and with all layers it is best, or as good. A linear SVM and a softmax on layers 1 to 5,
after pooling where there is a pooling, and 7; the paper has the softmax on 5 and 7 only. Features are extracted once and kept
on disk, 8 GB of them for Caltech-101; the classifiers are trained on exact factors of their Gram matrices. Caltech-256 is
measured too where it is in `--datasets`.
"""

from itertools import pairwise, permutations, product

from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.protocol import (
    at_the_ends,
    frozen,
    inner_products,
    mean_and_deviation,
    unseen,
    words,
)
from zfnet.analysis.features import LAYERS
from zfnet.analysis.transfer import linear_svm, softmax
from zfnet.plot import LINES, draw_table, new_figure

FIGURE = Figure(
    id="tab7",
    title="What each layer's features are worth for other images",
    claim="Accuracy on Caltech rises from layer 1 to layer 5: the deeper, the more powerful the features.",
    inputs=("model", "caltech101", "caltech256", "pretraining"),
    seed=0,
    time_budget=3600,
    paper={
        "caltech101": {
            "SVM": {
                "layer 1": [44.8, 0.7], "layer 2": [66.2, 0.5], "layer 3": [72.3, 0.4], "layer 4": [76.6, 0.4],
                "layer 5": [86.2, 0.8], "layer 7": [85.5, 0.4],
            },
            "softmax": {"layer 5": [82.9, 0.4], "layer 7": [85.4, 0.4]},
        },
        "caltech256": {
            "SVM": {
                "layer 1": [24.6, 0.4], "layer 2": [39.6, 0.3], "layer 3": [46.0, 0.3], "layer 4": [51.3, 0.1],
                "layer 5": [65.6, 0.3], "layer 7": [71.7, 0.2],
            },
            "softmax": {"layer 5": [65.7, 0.5], "layer 7": [72.6, 0.1]},
        },
    },
    config={"per class": {"caltech101": 30, "caltech256": 60}, "most to test": 50, "folds": 5},
    manual=True,
    corpus="caltech101",
    network="chain",
)  # fmt: skip


def compute(ctx) -> Result:
    measured, word, n, fitted = {}, "", 0, []
    for name, per_class in FIGURE.config["per class"].items():
        if ctx.dataset(name) is None:
            word += f"{name} was not found. "
            continue
        images, kept, counts, _, note = unseen(ctx, name)
        labels = images.labels[kept]
        found: dict = {
            "SVM": {},
            "softmax": {},
            "C of the SVM, by fold": {},
            "C of the softmax, by fold": {},
        }
        for layer in LAYERS:
            products = inner_products(ctx, images, kept, layer)
            title = f"layer {layer[-1]}"
            for kind, classifier in (("SVM", linear_svm), ("softmax", softmax)):
                fitted.append(of := frozen(ctx, products, labels, classifier, per_class, FIGURE))
                found[kind][title], found[f"C of the {kind}, by fold"][title] = (
                    mean_and_deviation(of.accuracy),
                    of.c,
                )
        measured[name] = found | counts
        n, word = n + len(kept), word + (note if note not in word else "")
    if not measured:
        return Result(
            {},
            {},
            "not run",
            n=0,
            note=f"{word}Give the folder of torchvision's data sets with --datasets.",
            scale="smoke",
        )
    held = {}
    for name in (name for name in FIGURE.paper if name in measured):
        svm = {layer: value[0] for layer, value in measured[name]["SVM"].items()}
        rising = [svm[f"layer {i}"] for i in range(1, 6)]
        held[f"{name}: it rises at every layer from 1 to 5"] = all(
            b > a for a, b in pairwise(rising)
        )
        held[f"{name}: layer 5 is better than layer 1"] = rising[-1] > rising[0]
        paper = FIGURE.paper[name]["SVM"]
        apart = [
            (a, b)
            for a, b in permutations(paper, 2)
            if paper[a][0] - paper[a][1] > paper[b][0] + paper[b][1]
        ]
        held[
            f"{name}: the layers are in the paper's order, where its deviations tell them apart"
        ] = all(svm[better] > svm[worse] for better, worse in apart)
    measured["claims"], said = verdict(held)
    return Result(
        {},
        measured,
        said,
        n=n,
        note=word + at_the_ends(fitted) + ctx.differences_from_paper,
        scale="subset",
    )


def draw(result: Result):
    names = [name for name in FIGURE.paper if name in result.measured]
    if not names:
        return {}
    layers = [f"layer {layer[-1]}" for layer in LAYERS]
    picture = new_figure(6.2 + 3.2 * len(names), 3.2)
    left, right = picture.subplots(1, 2, width_ratios=[1.1 * len(names), 1])
    header, rows = [""], [[layer] for layer in layers]
    kinds = list(product(names, ("SVM", "softmax")))
    for (name, kind), colour, marker in zip(kinds, LINES, "osos", strict=False):
        for whose, values, style in (
            ("ours", result.measured, f"{marker}-"),
            ("paper", FIGURE.paper, "x:"),
        ):
            cells = values[name][kind]
            header.append(kind if whose == "ours" else "paper")
            rows = [
                [*row, words(cells.get(layer)) or "–"]
                for row, layer in zip(rows, layers, strict=True)
            ]
            means = {int(k[-1]): v[0] if isinstance(v, list) else v for k, v in cells.items()}
            label = f"{kind}, {whose}" if len(names) == 1 else f"{name}, {kind}, {whose}"
            right.plot(*zip(*means.items(), strict=True), style, color=colour, ms=5, label=label)
    draw_table(
        left, header, rows, [0.7, *[1.0] * (len(header) - 1)], muted=tuple(range(2, len(header), 2))
    )
    left.set_title(f"{' and '.join(names)}: accuracy, %, mean and deviation over five folds")
    right.set(
        xlabel="layer",
        ylabel="accuracy, % (mean over classes)",
        ylim=(0, 100),
        xticks=[1, 2, 3, 4, 5, 7],
    )
    right.legend(frameon=False)
    return {"tab7.png": picture}
