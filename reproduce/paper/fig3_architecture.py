"""Figure 3: the architecture of the 8-layer network.

The paper's claim: a 224 x 224 image passes through five convolutional and two dense layers to a
softmax, with the sizes that the figure gives. We measure the sizes by passing an image through
`zfnet.zfnet()`, and draw them.
"""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import SMALL, new_page, set_finding

FIGURE = Figure(
    id="fig3",
    title="Architecture of ZFNet",
    claim="Five convolutional layers and two dense ones turn 224 x 224 pixels into class scores, "
    "with the sizes of Fig. 3.",
    inputs=("model",),
    seed=0,
    time_budget=8,
    paper={
        "conv1": "110 x 110 x 96", "pool1": "55 x 55 x 96", "conv2": "26 x 26 x 256",
        "pool2": "13 x 13 x 256", "conv3": "13 x 13 x 384", "conv4": "13 x 13 x 384",
        "conv5": "13 x 13 x 256", "pool5": "6 x 6 x 256", "fc6": "4096", "fc7": "4096",
    },
    version=2,
    network="zfnet",
)  # fmt: skip
DRAWN = ("input", "conv", "pool", "fc")
UNITS_WIDTH = 0.16  # of a drawn dense layer, in columns


def compute(ctx: Context) -> Result:
    model = zfnet.zfnet()
    rows = list(zfnet.describe(model))
    sizes = {row.name: " x ".join(map(str, (*row.shape[1:], row.shape[0]))) for row in rows}
    measured: dict = {name: sizes[name] for name in FIGURE.paper}
    same = measured == FIGURE.paper
    measured |= {
        "parameters": sum(row.parameters for row in rows),
        "multiply-adds": sum(row.macs for row in rows),
    }
    shapes = [(3, model.size, model.size), *((*row.shape, 1, 1)[:3] for row in rows)]
    arrays = {
        "name": np.array(["input", *(row.name for row in rows)]),
        "operation": np.array(["image", *(row.operation for row in rows)]),
        "shape": np.array(shapes),  # maps, height, width
    }
    note = f"The drawing shows the paper's network. {ctx.differences_from_paper}".strip()
    finding = (
        f"All {len(FIGURE.paper)} layer sizes are the paper's; the network has "
        f"{measured['parameters'] / 1e6:.1f} million parameters."
        if same
        else "The layer sizes differ from the paper's."
    )
    different = [name for name in FIGURE.paper if measured[name] != FIGURE.paper[name]]
    reason = f"These layers have another size: {', '.join(different)}." if different else ""
    verdict = "by construction" if same else "differs"
    return Result(arrays, measured, verdict, n=1, note=note, finding=finding, reason=reason)


def draw(result: Result) -> dict[str, Picture]:
    figure = new_page(3.4)
    axes = figure.subplots()
    names, operations, shapes = result.arrays.values()
    drawn = [i for i, name in enumerate(names) if name.startswith(DRAWN)]
    for column, i in enumerate(drawn):
        maps, side, _ = shapes[i]
        normalized = any(following.startswith("norm") for following in names[i + 1 : i + 2])
        text = (
            operations[i].replace(", ", "\n").replace("max pool", "max").replace("conv ", "conv\n")
        )
        text = re.sub(r"fully connected\n(\d+) inputs", r"dense,\n\1\ninputs", text)
        size = f"{side} x {side}\n{maps} maps" if side > 1 else f"{maps}\nunits"
        width = _draw_maps(axes, column, maps, side) if side > 1 else _draw_units(axes, column)
        axes.text(column, 2.05, names[i], ha="center", weight="bold", fontsize=8)
        axes.text(
            column, 1.95, text + "\nthen norm" * normalized, ha="center", va="top", fontsize=SMALL,
            color="0.3",
        )  # fmt: skip
        axes.text(column, -1.05, size, ha="center", va="center", fontsize=SMALL)
        tip = column + (0.5 if i == drawn[-1] else 0.97 - width / 4)
        start, end = (column + width / 2 + 0.04, 0), (tip, 0)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.4"})
    axes.text(len(drawn), 0, "softmax", va="center", ha="center", fontsize=8)
    axes.set(xlim=(-0.6, len(drawn) + 0.5), ylim=(-1.4, 2.4))
    axes.set_axis_off()
    set_finding(figure, result.finding)
    return {"fig3.png": figure}


def _draw_maps(axes: Axes, x: float, maps: int, side: int) -> float:
    """Draw a stack of feature maps around x. Returns its width."""
    edge = np.sqrt(side / 224)  # on a root scale, so that 6 is visible next to 224
    depth = 0.016 * np.log2(maps)
    width = 0.4 * edge
    style = {"facecolor": "#dfe8f5", "edgecolor": "#34507a", "linewidth": 0.9}
    for shift in np.linspace(depth, 0, 4):
        corner = (x - (width + depth) / 2 + shift, shift - 0.7 * edge)
        axes.add_patch(Rectangle(corner, width, 1.4 * edge, **style))
    return width + depth


def _draw_units(axes: Axes, x: float) -> float:
    """Draw a dense layer around x. Returns its width."""
    style = {"facecolor": "#f5e7d8", "edgecolor": "#8a5a24", "linewidth": 0.9}
    axes.add_patch(Rectangle((x - UNITS_WIDTH / 2, -0.7), UNITS_WIDTH, 1.4, **style))
    return UNITS_WIDTH
