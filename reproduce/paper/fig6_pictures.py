"""The picture of Figure 6: filters of layer 1, and projections of layer 2."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import new_page, set_finding
from reproduce.paper.filter_claims import ALEXNET, ALIASING, BY_EPOCH, DEAD, DOMINANCE, FREE, OURS
from reproduce.paper.filter_training import TILE, Arrays
from zfnet.plot import LINES, enlarge, mosaic, show

LIMIT = "RMS at which filters are clipped"


def draw_filters(result: Result) -> Picture:
    """Draw layer 1 of the three networks, layer 2 of two, and the dominance by epoch."""
    figure = new_page(9.4)
    grid = figure.add_gridspec(4, 6, height_ratios=(2.0, 2.4, 2.4, 1.5))
    measured, count = result.measured, len(result.arrays[f"{OURS}.initial"])
    dead = {name: f"{number} of {count} filters dead" for name, number in measured[DEAD].items()}
    titles = {
        FREE: f"(a) {FREE}:\nlargest filter {measured[DOMINANCE][FREE]:.1f} x the median",
        ALEXNET: f"(b) {ALEXNET}:\n{dead[ALEXNET]}",
        OURS: f"(c) {OURS}, RMS at most {measured[LIMIT]:g}:\n{dead[OURS]}",
    }
    for i, (name, title) in enumerate(titles.items()):
        axes = figure.add_subplot(grid[0, 2 * i : 2 * i + 2])
        _draw_layer(axes, result.arrays[f"{name}.filters"][-1], title)
    for row, letter, name in ((1, "d", ALEXNET), (2, "e", OURS)):
        high = measured[ALIASING].get(name)
        share = f": {high[0]:.0f} % of energy in high frequencies" if high else ""
        title = f"({letter}) {name}, layer 2{share}"
        for half, key, text in ((0, "projections", title), (1, "patches", "their image patches")):
            axes = figure.add_subplot(grid[row, 3 * half : 3 * half + 3])
            _draw_blocks(axes, result.arrays, name, key, text)
    _draw_dominance(figure.add_subplot(grid[3, :]), measured)
    set_finding(figure, result.finding)
    return figure


def _draw_layer(axes: Axes, filters: np.ndarray, title: str) -> None:
    """All filters on one scale, so that the largest stands out and flat ones are gray."""
    tiles = 0.5 + 0.5 * filters.transpose(0, 2, 3, 1) / max(float(np.abs(filters).max()), 1e-12)
    show(axes, mosaic(enlarge(tiles.astype(np.float32), 34), 12, gap=3))
    axes.set_title(title, fontsize=9)


def _draw_blocks(axes: Axes, arrays: Arrays, name: str, key: str, title: str) -> None:
    """Nine tiles per feature as a block, with its channel above."""
    tiles, columns, gap = arrays[f"{name}.{key}"], 4, 26
    if not len(tiles):
        tiles = np.full((1, 1, TILE, TILE, 3), 0.5, np.float32)
    blocks = np.stack([mosaic(nine, 3, gap=1) for nine in tiles])
    show(axes, mosaic(blocks, columns, gap=gap))
    axes.set_title(title, fontsize=9, pad=14)
    height, width = blocks.shape[1] + gap, blocks.shape[2] + gap
    for i, channel in enumerate(arrays[f"{name}.channels"]):
        left, top = i % columns * width, i // columns * height
        axes.text(left, top - 3, f"conv2/{channel}", fontsize=7.5, va="bottom")


def _draw_dominance(axes: Axes, measured: dict) -> None:
    for (name, ratios), color in zip(measured[BY_EPOCH].items(), LINES, strict=False):
        axes.plot(measured["epochs"][name], ratios, "o-", ms=3, color=color, label=name)
    axes.set(xlabel="epoch", ylabel="largest RMS / median")
    axes.set_title("How far the largest filter of layer 1 stands out", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
