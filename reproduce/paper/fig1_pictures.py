"""The picture of Figure 1: the diagram, and unpooling with shared switches."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import FancyBboxPatch, Rectangle

from reproduce.core.figure import Result
from reproduce.core.page import SMALL, caption, new_page, set_finding

PLAIN = "0.25"  # color of a switch that one window has


def draw_unpooling(result: Result) -> Picture:
    """Draw the paper's diagram, and below it a region before and after pooling and unpooling."""
    figure = new_page(6.4)
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 0.8)))
    _diagram(upper.subplots())
    a = result.arrays
    axes = lower.subplots(1, 5, width_ratios=(7, 4, 4, 7, 7))
    switches, top = a["switches"], a["summed"].max()  # all signals are on one gray scale
    colors = _switch_colors(switches)
    title = "1. region of a conv1 map,\nmaxima of 3 x 3 windows"
    _grid(axes[0], a["region"], title, colors, switches)
    _grid(axes[1], a["pooled"], "2. pooled,\nwith switches", colors, cells=switches)
    title = "3. signal from\nabove"
    _grid(axes[2], a["signal"], title, colors, cells=switches, top=top)
    title = "4. unpooled:\nshared switches add"
    _grid(axes[3], a["summed"], title, colors, switches, top=top)
    title = "by overwriting:\nsignal is lost"
    _grid(axes[4], a["overwritten"], title, colors, switches, top=top)
    set_finding(figure, result.finding)
    return figure


def _switch_colors(switches: np.ndarray) -> dict[int, str]:
    """A color for each switch that several windows share."""
    values, counts = np.unique(switches, return_counts=True)
    return {int(value): f"C{i}" for i, value in enumerate(values[counts > 1])}


def _grid(
    axes: Axes,
    values: np.ndarray,
    title: str,
    colors: dict[int, str],
    switches: np.ndarray | None = None,
    cells: np.ndarray | None = None,
    top: float | None = None,
) -> None:
    """Draw numbers on squares.

    Args:
        axes: The panel.
        values: (n, n), the numbers.
        title: The title.
        colors: Colors of the switches that several windows share.
        switches: Positions to frame, for values before pooling.
        cells: (n, n), the switch of each value, for values after pooling.
        top: The value drawn darkest; by default the largest.
    """
    n = len(values)
    limit = 1.6 * (values.max() if top is None else top) or 1
    axes.imshow(values, cmap="Greys", vmin=0, vmax=limit)
    for (r, c), value in np.ndenumerate(values):
        text, shade = (f"{value:.{2 if value < 10 else 1}f}", "0.1") if value else ("0", "0.6")
        axes.text(c, r, text, ha="center", va="center", fontsize=SMALL, color=shade)
        if switches is not None and (switches == r * n + c).any():
            _frame(axes, r, c, colors.get(r * n + c, PLAIN))
        elif cells is not None and int(cells[r, c]) in colors:
            _frame(axes, r, c, colors[int(cells[r, c])])
    caption(axes, title)
    axes.set(xticks=(), yticks=())
    for spine in axes.spines.values():
        spine.set(visible=True, color="0.75")


def _frame(axes: Axes, row: int, column: int, color: str) -> None:
    width = 1 if color == PLAIN else 2.2
    corner = (column - 0.44, row - 0.44)
    axes.add_patch(Rectangle(corner, 0.88, 0.88, fill=False, edgecolor=color, linewidth=width))


def _diagram(axes: Axes) -> None:
    """The paper's upper half: up through a convnet layer, down through a deconvnet layer."""
    rectify = "Rectified linear $\\max(0, x)$"
    deconvnet = ("Layer below, reconstructed", "Transposed filters $F^T$", rectify)
    _stack(axes, 2, (*deconvnet, "Max unpooling", "From above"), "#f5e7d8", upward=False)
    convnet = ("Layer below", "Filters $F$", rectify, "Max pooling", "Pooled maps")
    _stack(axes, 8, convnet, "#dfe8f5", upward=True)
    dashed = {"arrowstyle": "-|>", "color": "C3", "linestyle": "--"}
    axes.annotate("", (3.95, 3), (6.05, 3), arrowprops=dashed)
    axes.text(5, 3.12, "switches", ha="center", color="C3")
    axes.text(2, 4.55, "deconvnet", ha="center", weight="bold")
    axes.text(8, 4.55, "convnet", ha="center", weight="bold")
    axes.set(xlim=(-0.2, 10.2), ylim=(-0.5, 4.9))
    axes.set_axis_off()


def _stack(axes: Axes, x: float, texts: tuple[str, ...], color: str, upward: bool) -> None:
    """A column of boxes from bottom to top, with arrows between them."""
    for level, text in enumerate(texts):
        corner, style = (x - 1.9, level - 0.27), "round,pad=0.02"
        axes.add_patch(
            FancyBboxPatch(corner, 3.8, 0.54, boxstyle=style, facecolor=color, edgecolor="0.3")
        )
        axes.text(x, level, text, ha="center", va="center", fontsize=9)
    for level in range(len(texts) - 1):
        low, high = (x, level + 0.3), (x, level + 0.7)
        head, tail = (high, low) if upward else (low, high)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "0.2"})
