"""Table 7: how well do the features of each layer classify other images?

The paper's claim: the higher the layer, the better its features classify Caltech-101 (30 images per
class) and Caltech-256 (60). Accuracy rises from layer 1 to layer 5, and is best, or as good, with
all layers.

A linear SVM and a softmax on layers 1 to 5 (after pooling, where there is one) and 7; the paper has
the softmax on 5 and 7 only. Features are extracted once and cached, 8 GB for Caltech-101. The
classifiers are trained on exact factors of their Gram matrices. Caltech-256 is measured too if it
is in `--datasets`.
"""

from itertools import pairwise, permutations, product

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.protocol import (
    Classified,
    Unseen,
    classify_frozen,
    grid_note,
    inner_products,
    mean_and_deviation,
    unseen,
)
from reproduce.paper.transfer import label_axes
from zfnet.analysis.features import LAYERS
from zfnet.analysis.transfer import linear_svm, softmax
from zfnet.plot import LINES, new_figure

FIGURE = Figure(
    id="tab7",
    title="What each layer's features are worth for other images",
    claim="Accuracy on Caltech rises from layer 1 to layer 5: the deeper, the more powerful the "
    "features.",
    inputs=("model", "caltech101", "caltech256", "pretraining"),
    seed=0,
    time_budget=3600,
    paper={
        "caltech101": {
            "SVM": {
                "layer 1": [44.8, 0.7], "layer 2": [66.2, 0.5], "layer 3": [72.3, 0.4],
                "layer 4": [76.6, 0.4], "layer 5": [86.2, 0.8], "layer 7": [85.5, 0.4],
            },
            "softmax": {"layer 5": [82.9, 0.4], "layer 7": [85.4, 0.4]},
        },
        "caltech256": {
            "SVM": {
                "layer 1": [24.6, 0.4], "layer 2": [39.6, 0.3], "layer 3": [46.0, 0.3],
                "layer 4": [51.3, 0.1], "layer 5": [65.6, 0.3], "layer 7": [71.7, 0.2],
            },
            "softmax": {"layer 5": [65.7, 0.5], "layer 7": [72.6, 0.1]},
        },
    },
    config={"per class": {"caltech101": 30, "caltech256": 60}, "most to test": 50, "folds": 5},
    manual=True,
    corpus="caltech101",
    network="chain",
)  # fmt: skip
CLASSIFIERS = {"SVM": linear_svm, "softmax": softmax}


def compute(ctx: Context) -> Result:
    measured: dict = {}
    note, n, fitted = "", 0, []
    for name, per_class in FIGURE.config["per class"].items():
        if ctx.dataset(name) is None:
            note += f"{name} was not found. "
            continue
        data = unseen(ctx, name)
        table, results = _measure(ctx, data, per_class)
        measured[name] = table | data.counts
        fitted += results
        n += len(data.rows)
        note += data.note if data.note not in note else ""
    if not measured:
        note += "Give the folder of torchvision's data sets with --datasets."
        return Result({}, {}, "not run", n=0, note=note, scale="smoke")
    measured["claims"], summary = _judge(measured)
    note += grid_note(fitted) + ctx.differences_from_paper
    return Result({}, measured, summary, n=n, note=note, scale="subset")


def _measure(ctx: Context, data: Unseen, per_class: int) -> tuple[dict, list[Classified]]:
    """Accuracy and C by classifier and layer, and all fitted classifiers."""
    table: dict[str, dict] = {kind: {} for kind in CLASSIFIERS}
    table |= {f"C of the {kind}, by fold": {} for kind in CLASSIFIERS}
    results, labels = [], data.images.labels[data.rows]
    for layer in LAYERS:
        products = inner_products(ctx, data.images, data.rows, layer)
        title = f"layer {layer[-1]}"
        for kind, classifier in CLASSIFIERS.items():
            result = classify_frozen(ctx, products, labels, classifier, per_class, FIGURE)
            table[kind][title] = mean_and_deviation(result.accuracy)
            table[f"C of the {kind}, by fold"][title] = result.c
            results.append(result)
    return table, results


def _judge(measured: dict) -> tuple[dict[str, str], str]:
    judgments: dict[str, bool | None] = {}
    for name, of_paper in FIGURE.paper.items():
        if name not in measured:
            continue
        svm = {layer: value[0] for layer, value in measured[name]["SVM"].items()}
        rising, paper = [svm[f"layer {i}"] for i in range(1, 6)], of_paper["SVM"]
        distinct = [  # pairs of layers whose deviations do not overlap in the paper
            (a, b)
            for a, b in permutations(paper, 2)
            if paper[a][0] - paper[a][1] > paper[b][0] + paper[b][1]
        ]
        order = "accuracies have the paper's order, for layers that differ clearly in the paper"
        judgments |= {
            f"{name}: accuracy rises at every layer from 1 to 5": all(
                b > a for a, b in pairwise(rising)
            ),
            f"{name}: layer 5 is more accurate than layer 1": rising[-1] > rising[0],
            f"{name}: {order}": all(svm[better] > svm[worse] for better, worse in distinct),
        }
    return verdict(judgments)


def draw(result: Result) -> dict[str, Picture]:
    names = [name for name in FIGURE.paper if name in result.measured]
    if not names:
        return {}
    picture = new_figure(8.4, 4.2)
    axes = picture.subplots()
    sources = {"ours": result.measured, "paper": FIGURE.paper}
    curves = {
        (name, kind, source): values[name][kind]
        for name, kind in product(names, CLASSIFIERS)
        for source, values in sources.items()
    }
    _draw_curves(axes, curves, len(names) == 1)
    name = names[0]
    svm = result.measured[name]["SVM"]
    axes.set_title(
        f"{name}: accuracy rises from {svm['layer 1'][0]:.0f} % on layer 1 to "
        f"{svm['layer 5'][0]:.0f} % on layer 5",
        fontsize=11,
    )
    return {"tab7.png": picture}


def _draw_curves(axes: Axes, curves: dict, one_dataset: bool) -> None:
    """Accuracy over layers; ours with solid lines, the paper's dotted."""
    for i, ((name, kind, source), cells) in enumerate(curves.items()):
        color, marker = LINES[i // 2], "osos"[i // 2]
        label = f"{kind}, {source}" if one_dataset else f"{name}, {kind}, {source}"
        style = f"{marker}-" if source == "ours" else "x:"
        layers = [int(layer[-1]) for layer in cells]
        means = [value[0] for value in cells.values()]
        axes.plot(layers, means, style, color=color, ms=5, label=label)
    label_axes(axes)
    axes.set(xlabel="layer", xticks=[1, 2, 3, 4, 5, 7])
    axes.legend(frameon=False, fontsize=10)
