"""Table 6: PASCAL VOC 2012 classification, by a softmax on frozen features.

The paper trained a 20-way softmax on top of the frozen network, although an image can show several classes, and reached a mean
average precision of 79.0 on the test images, which only the benchmark's server can score. Ours is trained on `train` and
scored on `val`, by the benchmark's average precision, images where the class is only marked difficult left out. An image that
shows several classes is a training example of each.
"""

import numpy as np

from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from zfnet.analysis.features import extract
from zfnet.analysis.transfer import Fold, average_precision, coordinates, gram, softmax
from zfnet.data.benchmarks import VOC_CLASSES
from zfnet.plot import draw_table, new_figure

FIGURE = Figure(
    id="tab6",
    title="PASCAL VOC 2012 classification",
    claim="A softmax on frozen ImageNet features comes close to the best methods on PASCAL, whose images are of another kind.",
    inputs=("model", "voc2012 train", "voc2012 val"),
    seed=0,
    time_budget=900,
    paper={
        "mean": 79.0,
        "best before, mean": 82.2,
        "average precision": dict(
            zip(
                VOC_CLASSES,
                (
                    96.0, 77.1, 88.4, 85.5, 55.8, 85.8, 78.6, 91.2, 65.0, 74.4,
                    67.7, 87.8, 86.0, 85.1, 90.9, 52.2, 83.6, 61.1, 91.8, 76.1,
                ),
                strict=True,
            )
        ),
    },
    config={"layer": "fc7"},
    manual=True,
    corpus="voc2012",
    network="chain",
)  # fmt: skip
ABSENT = (
    "PASCAL VOC 2012 was not found; give the folder of torchvision's data sets with --datasets."
)


def compute(ctx) -> Result:
    train, val = ctx.dataset("voc2012 train"), ctx.dataset("voc2012 val")
    if train is None or val is None:
        return Result({}, {}, "not run", n=0, note=ABSENT, scale="smoke")
    layer = FIGURE.config["layer"]
    parts = [
        extract(ctx.model, part.images, (layer,), progress=ctx.progress)[layer]
        for part in (train, val)
    ]
    shown, classes = (train.present == 1).nonzero()  # an example of each class that it shows
    fold = Fold(shown, len(train.images) + np.arange(len(val.images)))
    x, others = coordinates(gram(np.concatenate(parts), progress=ctx.progress), fold)
    fitted = softmax(x, classes)
    probability = fitted.predict_proba(others)
    precision = {
        VOC_CLASSES[c]: round(average_precision(probability[:, column], val.present[:, c]), 2)
        for column, c in enumerate(fitted.classes_)
        if (val.present[:, c] == 1).any()
    }
    mean = round(float(np.mean(list(precision.values()))), 2)
    judged = {
        name: val.present[val.present[:, c] >= 0, c]
        for c, name in enumerate(VOC_CLASSES)
        if name in precision
    }
    chance = {name: 100 * float((present == 1).mean()) for name, present in judged.items()}
    held = {
        "every class is found more precisely than by chance": all(
            precision[name] > chance[name] for name in precision
        )
    }
    claims, said = verdict(held)
    note = (
        "Trained on train and scored on val, where the paper was trained on both and scored on test by the server: the numbers "
        "do not compare. "
    )
    measured = {
        "mean": mean,
        "average precision": precision,
        "C of the softmax": float(fitted.C),
        "claims": claims,
    }
    said = "not comparable" if said == "reproduced" else said
    return Result(
        {},
        measured,
        said,
        n=len(val.images),
        note=note + ctx.differences_from_paper,
        scale="subset",
    )


def draw(result: Result):
    if "mean" not in result.measured:
        return {}
    picture = new_figure(6.4, 3.6)
    axes = picture.subplots()
    paper = FIGURE.paper["average precision"]
    cells = [
        [name, f"{value:.1f}", f"{paper[name]:.1f}"]
        for name, value in result.measured["average precision"].items()
    ]
    half = -(-len(cells) // 2)
    rows = [a + b for a, b in zip(cells[:half], [*cells[half:], [""] * 3], strict=False)]
    draw_table(axes, ["class", "AP, %", "paper"] * 2, rows, [1.2, 0.8, 0.8] * 2, muted=(2, 5))
    axes.set_title(
        f"mean {result.measured['mean']:.1f} % on val; the paper's {FIGURE.paper['mean']} % on test",
        fontsize=10,
    )
    return {"tab6.png": picture}
