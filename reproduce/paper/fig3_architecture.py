"""Figure 3: the architecture of the 8-layer network.

The paper's claim: a 224 x 224 image passes through five convolutional and two dense layers to a
softmax, with the sizes that the figure gives. We measure the sizes by passing an image through
`zfnet.zfnet()`, and draw them.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from zfnet.plot import new_figure

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
    verdict = "by construction" if same else "differs"
    return Result(arrays, measured, verdict, n=1, note=note, finding=finding)


def draw(result: Result) -> dict[str, Picture]:
    figure = new_figure(12.5, 3.6)
    axes = figure.subplots()
    names, operations, shapes = result.arrays.values()
    x = 0.0
    for i, (name, operation, (maps, side, _)) in enumerate(
        zip(names, operations, shapes, strict=True)
    ):
        if not name.startswith(DRAWN):
            continue
        x += 0.0 if side > 1 else 0.25
        width = _draw_maps(axes, x, maps, side) if side > 1 else _draw_units(axes, x)
        text = operation.replace(", ", "\n").replace("fully connected", "dense")
        if any(following.startswith("norm") for following in names[i + 1 : i + 2]):
            text += "\nthen normalized"
        size = f"{side} x {side}\n{maps} maps" if side > 1 else f"{maps}\nunits"
        middle = x + width / 2
        axes.text(middle, 2.35, name, ha="center", weight="bold")
        axes.text(middle, 2.25, text, ha="center", va="top", fontsize=6, color="0.3")
        axes.text(middle, -1.75, size, ha="center", va="center", fontsize=7.5)
        start, end = (x + width + 0.1, 0), (x + width + 0.42, 0)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.4"})
        x += width + 0.52
    axes.text(x, 0, "softmax", va="center")
    axes.set(xlim=(-0.2, x + 0.9), ylim=(-2.1, 2.7), aspect="equal")
    axes.set_axis_off()
    return {"fig3.png": figure}


def _draw_maps(axes: Axes, x: float, maps: int, side: int) -> float:
    """Draw a stack of feature maps. Returns its width."""
    edge = 2.5 * np.sqrt(side / 224)  # on a root scale, so that 6 is visible next to 224
    depth = 0.08 * np.log2(maps)
    style = {"facecolor": "#dfe8f5", "edgecolor": "#34507a", "linewidth": 0.9}
    for shift in np.linspace(depth, 0, 4):
        corner = (x + shift, 0.5 * shift - edge / 2)
        axes.add_patch(Rectangle(corner, 0.5 * edge, edge, **style))
    return 0.5 * edge + depth


def _draw_units(axes: Axes, x: float, width: float = 0.22) -> float:
    """Draw a dense layer. Returns its width."""
    style = {"facecolor": "#f5e7d8", "edgecolor": "#8a5a24", "linewidth": 0.9}
    axes.add_patch(Rectangle((x, -0.95), width, 1.9, **style))
    return width
