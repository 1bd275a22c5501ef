"""The picture of attributes: example images, accuracy by bins, and differences."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import SMALL, interval_bars, new_page, set_finding, show_tiles
from reproduce.lectures.invariance.attribute_values import NAMES
from zfnet.plot import LINES, enlarge

BY_BIN = "top-1 by bin, %"
GAIN = "highest minus lowest bin, points"


def draw_attributes(result: Result) -> Picture:
    """Draw examples of each attribute of the pixels, and the accuracy by bins of each attribute."""
    a, m = result.arrays, result.measured
    names = [name for name in NAMES if name in m]
    figure = new_page(6.2)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.45)).flat
    shown = [name for name in names if f"shown.{name}" in a]
    for panel, name in zip(left.subplots(len(shown), 1), shown, strict=True):
        tiles = enlarge(a[f"shown.{name}"], 110)
        show_tiles(panel, tiles, len(tiles), f"{name}: low, median, high", gap=6)
    above, below = right.subfigures(2, 1, squeeze=False, height_ratios=(1.5, 1)).flat
    panels = above.subplots(2, 3, sharey=True)
    for n, (panel, name) in enumerate(zip(panels.flat, names, strict=False)):
        draw_bins(panel, a[f"top-1.{name}"], m["top-1, %"], LINES[n])
        panel.set_title(name, fontsize=SMALL + 1)
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    for panel in panels[:, 0]:
        panel.set_ylabel("top-1, %")
    above.supxlabel("bins of images with 95 % intervals; dashed: all images", fontsize=SMALL + 1)
    bars = below.subplots()
    interval_bars(bars, {name: m[name][GAIN] for name in names}, LINES[: len(names)], "{:+.0f}")
    bars.axvline(0, color="black", linewidth=0.8)
    bars.set_xlabel("top-1, highest minus lowest bin, points (95 %)")
    set_finding(figure, result.finding)
    return figure


def draw_bins(axes: Axes, share: np.ndarray, average: float, color: str) -> None:
    """Draw the accuracy of each bin with its interval, (bins, 3) in percent."""
    mean, low, high = share.T
    axes.errorbar(
        range(len(mean)), mean, (mean - low, high - mean), fmt="o-", color=color, markersize=3,
        capsize=2,
    )  # fmt: skip
    axes.axhline(average, color="0.6", linewidth=0.8, linestyle="--")
    axes.set_xticks((0, len(mean) - 1), ["low", "high"])
    axes.set_xlim(-0.4, len(mean) - 0.6)
