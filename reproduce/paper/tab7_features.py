"""Table 7: how well do the features of each layer classify other images?

The paper's claim: the higher the layer, the better its features classify Caltech-101 (30 images per
class) and Caltech-256 (60). Accuracy rises from layer 1 to layer 5, and is best, or as good, with
all layers.

A linear SVM and a softmax on layers 1 to 5 (after pooling, where there is one) and 7; the paper has
the softmax on 5 and 7 only. Features are extracted once and cached, 8 GB for Caltech-101. The
classifiers are trained on exact factors of their Gram matrices. Caltech-256 is measured too if it
is in `--datasets`.
"""

from itertools import permutations, product

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.paper.protocol import (
    Classified,
    Unseen,
    classify_frozen,
    grid_note,
    inner_products,
    mean_and_deviation,
    unseen,
)
from reproduce.paper.transfer_curves import label_axes
from zfnet.analysis.features import LAYERS
from zfnet.analysis.transfer import linear_svm, softmax
from zfnet.plot import LINES

FIGURE = Figure(
    id="tab7",
    title="What each layer's features are worth for other images",
    claim="Accuracy on Caltech rises from layer 1 to layer 5: the deeper, the more powerful the "
    "features.",
    inputs=("model", "caltech101", "caltech256", "pretraining"),
    seed=0,
    time_budget=3600,
    paper={
        "Caltech-101": {
            "SVM": {
                "layer 1": [44.8, 0.7], "layer 2": [66.2, 0.5], "layer 3": [72.3, 0.4],
                "layer 4": [76.6, 0.4], "layer 5": [86.2, 0.8], "layer 7": [85.5, 0.4],
            },
            "softmax": {"layer 5": [82.9, 0.4], "layer 7": [85.4, 0.4]},
        },
        "Caltech-256": {
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
    version=2,
    network="chain",
)  # fmt: skip
CLASSIFIERS = {"SVM": linear_svm, "softmax": softmax}
LAYERS_1_TO_5 = tuple(f"layer {i}" for i in range(1, 6))
IN_ORDER = "accuracies have the paper's order, for layers that differ clearly in the paper"
TITLES = {"caltech101": "Caltech-101", "caltech256": "Caltech-256"}


def compute(ctx: Context) -> Result:
    measured: dict = {}
    note, n, fitted = "", 0, []
    for name, per_class in FIGURE.config["per class"].items():
        if ctx.dataset(name) is None:
            note += f"{TITLES[name]} was not found. "
            continue
        data = unseen(ctx, name)
        table, results = _measure(ctx, data, per_class)
        measured[TITLES[name]] = table | data.counts
        fitted += results
        n += len(data.rows)
        note += data.note if data.note not in note else ""
    if not measured:
        note += "Give the folder of torchvision's data sets with --datasets."
        return Result({}, {}, "not run", n=0, note=note, scale="smoke")
    judgments, evidence = judge(measured)
    finding = _finding(measured)
    measured["claims"], summary = verdict(judgments)
    note += grid_note(fitted) + ctx.differences_from_paper
    reason = explain(judgments, evidence)
    return Result({}, measured, summary, n, note, "subset", finding, reason)


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


def judge(measured: dict) -> tuple[dict[str, bool | None], dict[str, str]]:
    """The judgments, and for each claim what was measured.

    Args:
        measured: The SVM's accuracies by data set and layer.
    """
    judgments: dict[str, bool | None] = {}
    evidence: dict[str, str] = {}
    for name in measured:
        svm = {layer: value[0] for layer, value in measured[name]["SVM"].items()}
        for claim, worse, better in (
            ("accuracy rises at every layer from 1 to 5", LAYERS_1_TO_5[:-1], LAYERS_1_TO_5[1:]),
            ("layer 5 is more accurate than layer 1", ("layer 1",), ("layer 5",)),
            (IN_ORDER, *zip(*_distinct(FIGURE.paper[name]["SVM"]), strict=True)),
        ):
            gains = {(a, b): svm[b] - svm[a] for a, b in zip(worse, better, strict=True)}
            a, b = min(gains, key=lambda pair: gains[pair])
            judgments[f"{name}: {claim}"] = gains[a, b] > 0
            evidence[f"{name}: {claim}"] = (
                f"on {name} {b} reaches only {svm[b]:.1f} %, and {a} {svm[a]:.1f} %"
            )
    return judgments, evidence


def _distinct(paper: dict[str, list[float]]) -> list[tuple[str, str]]:
    """Pairs (worse, better) of layers whose deviations do not overlap in the paper."""
    return [
        (a, b)
        for a, b in permutations(paper, 2)
        if paper[a][0] + paper[a][1] < paper[b][0] - paper[b][1]
    ]


def _finding(measured: dict) -> str:
    """How accuracy rises with the layer on the first data set, in a sentence."""
    name, tables = next(iter(measured.items()))
    svm = [tables["SVM"][layer][0] for layer in (LAYERS_1_TO_5[0], LAYERS_1_TO_5[-1], "layer 7")]
    return (
        f"On {name} a linear SVM reaches {svm[0]:.1f} % on layer 1, {svm[1]:.1f} % on layer 5 and "
        f"{svm[2]:.1f} % on layer 7."
    )


def draw(result: Result) -> dict[str, Picture]:
    names = [name for name in FIGURE.paper if name in result.measured]
    if not names:
        return {}
    picture = new_page(4.2)
    axes = picture.subplots()
    sources = {"ours": result.measured, "paper": FIGURE.paper}
    curves = {
        (name, kind, source): values[name][kind]
        for name, kind in product(names, CLASSIFIERS)
        for source, values in sources.items()
    }
    _draw_curves(axes, curves, len(names) == 1)
    set_finding(picture, result.finding)
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
    label_axes(axes, "layer")
    axes.set_xticks([1, 2, 3, 4, 5, 7])
    axes.legend(frameon=False, fontsize=10)
