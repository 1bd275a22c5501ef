"""The picture of Figure 4: projections by epoch, and how responses approach the final ones."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import new_page, set_finding
from zfnet.plot import LINES, mosaic, show

TILE = 64  # pixels of a drawn projection
SETTLED = "epoch from which responses correlate 0.9 or more with the final ones, median"
CORRELATION = "correlation with the final responses, mean, by snapshot"


def draw_evolution(result: Result, level: float) -> Picture:
    """Draw a panel per layer, and the correlations over epochs.

    Args:
        result: The result of Figure 4.
        level: The correlation from which on a feature is settled.
    """
    epochs, medians = result.arrays["epochs"].tolist(), result.measured[SETTLED]
    rows = -(-(len(medians) + 1) // 2)
    figure = new_page(2.9 * rows)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (layer, median) in zip(panels, medians.items(), strict=False):
        _draw_layer(axes, layer, median, result.arrays, epochs)
    curves, *empty = panels[len(medians) :]
    for axes in empty:
        axes.set_axis_off()
    _draw_curves(curves, result.measured, level)
    set_finding(figure, result.finding)
    return figure


def _draw_layer(
    axes: Axes, layer: str, median: float, arrays: dict[str, np.ndarray], epochs: list[float]
) -> None:
    """One row per feature, with its channel; one column per snapshot, with its epoch."""
    tiles = np.stack([arrays[f"{layer}.{i}"] for i in range(len(epochs))], 1)
    image = mosaic(tiles.reshape(-1, *tiles.shape[2:]), len(epochs), gap=2)
    show(axes, image)
    axes.set_title(f"{layer}: settled from epoch {median:.2g} on (median)", fontsize=10, pad=16)
    step = TILE + 2
    for column, epoch in enumerate(epochs):
        middle = column * step + TILE / 2
        axes.text(middle, -6, f"{epoch:.2g}", ha="center", va="bottom", fontsize=8)
    for row, channel in enumerate(arrays[f"{layer}.channels"]):
        axes.text(-6, row * step + TILE / 2, channel, ha="right", va="center", fontsize=8)


def _draw_curves(axes: Axes, measured: dict, level: float) -> None:
    curves = measured[CORRELATION]
    for (layer, values), color in zip(curves.items(), LINES, strict=False):
        axes.semilogx(measured["epochs"], values, marker="o", ms=3, color=color, label=layer)
    axes.axhline(level, color="0.6", lw=0.8, ls=":")
    axes.set(xlabel="epoch", ylabel="correlation", ylim=(None, 1.02))
    axes.set_title("Responses against the final ones", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
