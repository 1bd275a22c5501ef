"""Table 5: Caltech-256, by a softmax on features pretrained on ImageNet, and from scratch.

The claim and the computation are those of Table 4, at 15 to 60 images per class, on the user's
copy of Caltech-256.
"""

from matplotlib.figure import Figure as Picture

from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.transfer import (
    CALTECH256_PAPER,
    CONFIG,
    FILES,
    absent,
    compare,
)
from reproduce.paper.transfer_curves import draw_comparison

FIGURE = Figure(
    id="tab5",
    title="Caltech-256: pretrained features against training from scratch",
    claim="A softmax on frozen ImageNet features classifies Caltech-256 far better than the same "
    "network trained on it alone, and better than anything before.",
    inputs=("model", "caltech256", "pretraining"),
    seed=0,
    time_budget=20_000,
    paper=CALTECH256_PAPER,
    version=2,
    config=CONFIG | {"per class": (15, 30, 45, 60), "curve": ()},
    files=FILES,
    manual=True,
    corpus="caltech256",
    trains=True,
    network="chain",
)


def compute(ctx: Context) -> Result:
    if ctx.dataset("caltech256") is None:
        return absent("Caltech-256")
    return compare(ctx, FIGURE)


def draw(result: Result) -> dict[str, Picture]:
    return draw_comparison(result, FIGURE)
