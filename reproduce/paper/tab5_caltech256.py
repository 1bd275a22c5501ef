"""Table 5: Caltech-256, by a softmax on features that were trained on ImageNet, and by the same network from scratch.

The paper's claim is Table 4's, at 15 to 60 images a class. The same code as Table 4's, with the user's copy of Caltech-256.
"""

from reproduce.core.figure import Figure, Result
from reproduce.paper.tab4_caltech101 import FIGURE as TABLE4
from reproduce.paper.tab4_caltech101 import draw_transfer, transfer

FIGURE = Figure(
    id="tab5",
    title="Caltech-256: pretrained features against training from scratch",
    claim="A softmax on frozen ImageNet features classifies Caltech-256 far better than the same network trained on it alone, "
    "and better than anything before.",
    inputs=("model", "caltech256", "pretraining"),
    seed=0,
    time_budget=20_000,
    paper={
        "pretrained": {
            "15 a class": [65.7, 0.2], "30 a class": [70.6, 0.2], "45 a class": [72.7, 0.4], "60 a class": [74.2, 0.3],
        },
        "from scratch": {
            "15 a class": [9.0, 1.4], "30 a class": [22.5, 0.7], "45 a class": [31.2, 0.5], "60 a class": [38.8, 1.4],
        },
        "best before": {  # Bo et al. 2013
            "15 a class": [40.5, 0.4], "30 a class": [48.0, 0.2], "45 a class": [51.9, 0.2], "60 a class": [55.2, 0.3],
        },
        "images that overlap": 243,
        "images": 30607,
    },
    config=TABLE4.config | {"per class": (15, 30, 45, 60), "curve": ()},
    files=(*TABLE4.files,),
    manual=True,
    corpus="caltech256",
    trains=True,
    network="chain",
)  # fmt: skip


def compute(ctx) -> Result:
    return transfer(ctx, FIGURE, absent="Caltech-256 was not found")


def draw(result: Result):
    return draw_transfer(result, FIGURE)
