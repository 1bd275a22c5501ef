"""Table 6: PASCAL VOC 2012 classification, by a softmax on frozen features.

The paper trained a 20-way softmax on top of the frozen network, although an image can show several
classes. It reached a mean average precision of 79.0 on the test images, which only the benchmark's
server can score. Ours is trained on `train` and scored on `val`, by the benchmark's average
precision; images where the class is marked difficult are ignored. An image that shows several
classes is a training example of each.
"""

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.transfer import absent
from zfnet.analysis.features import extract
from zfnet.analysis.transfer import Fold, average_precision, coordinates, gram, softmax
from zfnet.data.benchmarks import VOC_CLASSES

PAPER = (  # average precision, in the order of VOC_CLASSES
    96.0, 77.1, 88.4, 85.5, 55.8, 85.8, 78.6, 91.2, 65.0, 74.4,
    67.7, 87.8, 86.0, 85.1, 90.9, 52.2, 83.6, 61.1, 91.8, 76.1,
)  # fmt: skip
FIGURE = Figure(
    id="tab6",
    title="PASCAL VOC 2012 classification",
    claim="A softmax on frozen ImageNet features comes close to the best methods on PASCAL, whose "
    "images are of another kind.",
    inputs=("model", "voc2012 train", "voc2012 val"),
    seed=0,
    time_budget=900,
    paper={
        "mean": 79.0,
        "best before the paper, mean": 82.2,
        "average precision": dict(zip(VOC_CLASSES, PAPER, strict=True)),
    },
    config={"layer": "fc7"},
    manual=True,
    corpus="voc2012",
    version=2,
    network="chain",
)


def compute(ctx: Context) -> Result:
    train, val = ctx.dataset("voc2012 train"), ctx.dataset("voc2012 val")
    if train is None or val is None:
        return absent("PASCAL VOC 2012")
    layer = FIGURE.config["layer"]
    features = [
        extract(ctx.model, part.images, (layer,), progress=ctx.progress)[layer]
        for part in (train, val)
    ]
    rows, classes = (train.present == 1).nonzero()  # one example per class that an image shows
    fold = Fold(rows, len(train.images) + np.arange(len(val.images)))
    x, x_val = coordinates(gram(np.concatenate(features), progress=ctx.progress), fold)
    fitted = softmax(x, classes)
    probability = fitted.predict_proba(x_val)
    precision, chance = {}, {}
    for column, c in enumerate(fitted.classes_):
        present = val.present[:, c]
        if (present == 1).any():
            score = average_precision(probability[:, column], present)
            precision[VOC_CLASSES[c]] = round(score, 2)
            chance[VOC_CLASSES[c]] = 100 * float((present[present >= 0] == 1).mean())
    worst = min(precision, key=lambda name: precision[name] - chance[name])
    margin = precision[worst] - chance[worst]
    claim = "the average precision of every class is above chance"
    claims, summary = verdict({claim: margin > 0})
    measured = {
        "mean": round(float(np.mean(list(precision.values()))), 2),
        "average precision": precision,
        "C of the softmax": float(fitted.C),
        "claims": claims,
    }
    note = (
        "Trained on train and scored on val. The paper trained on both, and the server scored it "
        f"on test: the numbers do not compare. {ctx.differences_from_paper}"
    )
    finding = (
        f"A softmax on layer 7 reaches a mean average precision of {measured['mean']:.1f} % on "
        f"val; the smallest margin over chance is {margin:.1f} points, of the class {worst}."
    )
    reason = "The paper's numbers are of the test images, whose labels are not public."
    if margin <= 0:
        reason = explain({claim: False}, {claim: f"{worst} is {-margin:.1f} points below chance"})
    summary = "not comparable" if summary == "reproduced" else summary
    return Result({}, measured, summary, len(val.images), note, "subset", finding, reason)


def draw(result: Result) -> dict[str, Picture]:
    """No picture: the pages show the numbers as a table."""
    return {}
