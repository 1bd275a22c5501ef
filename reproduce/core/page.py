"""The layout that the pictures of lectures and benchmarks share.

A page shows a picture 840 pixels wide. A picture of 8.4 inches therefore has 100 pixels per inch,
and a text of 7 points is 9.7 pixels high. The title states the finding.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.figure import SubFigure

from zfnet.plot import LINES, escape_math, mosaic, new_figure, show

WIDTH = 8.4  # inches
SMALL = 7.0  # points, the smallest text


def new_page(height: float) -> Picture:
    """A figure as wide as a page, of a height in inches."""
    return new_figure(WIDTH, height)


def set_finding(figure: Picture | SubFigure, finding: str, characters: int = 108) -> None:
    """Write the finding above the picture, in lines of at most so many characters."""
    figure.suptitle(textwrap.fill(plain(finding.removesuffix(".")), characters))


def plain(text: str) -> str:
    """A text for matplotlib: no math, and a space that does not break before each percent sign."""
    return re.sub(r"(\d) ?%", "\\1\u00a0%", escape_math(text))  # which escapes such spaces


def blank(axes: np.ndarray) -> None:
    """Hide the frames and ticks of an array of axes."""
    for panel in axes.flat:
        panel.set_axis_off()


def caption(axes: Axes, text: str, characters: int = 30, **options: Any) -> None:
    """Write a small title of short lines above a panel; the text's own line breaks are kept."""
    lines = [textwrap.fill(line, characters) for line in plain(text).split("\n")]
    axes.set_title("\n".join(lines), fontsize=SMALL + 0.5, **options)


def label_row(axes: Axes, text: str) -> None:
    """Write the name of a row to the left of its first image."""
    axes.text(
        -0.04,
        0.5,
        escape_math(text),
        transform=axes.transAxes,
        rotation=90,
        ha="right",
        va="center",
        fontsize=SMALL + 1,
        multialignment="center",
    )


def interval_bars(
    axes: Axes,
    intervals: Mapping[str, Sequence[float]],
    colors: Sequence[str] | str = LINES[0],
    label: str = "{:.0f}",
) -> None:
    """Draw horizontal bars with their intervals, the first on top, and the value of each.

    Args:
        axes: The axes to draw on.
        intervals: [mean, low, high] by name.
        colors: One color, or one per bar.
        label: The format of the value that is written at the end of the interval; "" for none.
    """
    mean, low, high = np.array(list(intervals.values()), dtype=float).T
    rows = np.arange(len(mean))
    axes.barh(rows, mean, color=colors, height=0.7)
    spread = np.maximum((mean - low, high - mean), 0)  # Wilson's limits round to below 0
    axes.errorbar(mean, rows, xerr=spread, fmt="none", color="0.2", capsize=2)
    axes.set_yticks(rows, [plain(name) for name in intervals])
    axes.invert_yaxis()
    if label:
        for row, (value, end) in enumerate(zip(mean, np.maximum(high, 0), strict=True)):
            axes.annotate(
                label.format(value), (end, row), (4, 0), textcoords="offset points", va="center"
            )
        axes.margins(x=0.16)


def label_lines(axes: Axes, ends: Mapping[str, tuple[float, str]], at: float) -> None:
    """Name lines at their right ends, with labels moved apart where they would overlap.

    Call it when the limits of the y axis are final.

    Args:
        axes: The axes with the lines.
        ends: The last value and the color of each line, by its name.
        at: The x coordinate of the ends.
    """
    size = SMALL + 1
    low, high = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = axes.get_position().height * figure.get_size_inches()[1]
    names = sorted(ends, key=lambda name: ends[name][0])
    values = np.array([ends[name][0] for name in names], dtype=float)
    lines = np.array([1 + name.count("\n") for name in names])
    heights = 1.25 * size / 72 / inches * lines  # as shares of the axes' height
    places = spread_apart((values - low) / (high - low), heights)
    for name, place in zip(names, places, strict=True):
        value, color = ends[name]
        axes.annotate(
            escape_math(name),
            (at, value),
            (1.02, place),
            textcoords="axes fraction",
            color=color,
            fontsize=size,
            va="center",
            annotation_clip=False,
        )


def spread_apart(places: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Move labels apart so that neighbors do not overlap, with least squares.

    This is isotonic regression of the places minus the least distances from the first label.

    Args:
        places: The centers of the labels in ascending order (N,).
        heights: Their heights (N,).

    Returns:
        The new centers (N,).
    """
    offsets = np.concatenate([[0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    blocks: list[tuple[float, int]] = []  # sum and count of pooled neighbors
    for place in places - offsets:
        blocks.append((place, 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] > blocks[-1][0] * blocks[-2][1]:
            (total, count), (below, others) = blocks.pop(), blocks.pop()
            blocks.append((below + total, others + count))
    fitted = np.concatenate([np.full(count, total / count) for total, count in blocks])
    return fitted + offsets


def show_tiles(
    axes: Axes,
    tiles: np.ndarray,
    columns: int,
    title: str = "",
    *,
    gap: int = 2,
    labels: Sequence[str] = (),
    characters: int = 40,
) -> None:
    """Show images (N, S, S, 3) as a mosaic, each with its label in the upper left corner."""
    show(axes, mosaic(tiles, columns, gap=gap))
    caption(axes, title, characters)
    step = tiles.shape[1] + gap
    for i, text in enumerate(labels):
        axes.text(
            step * (i % columns),
            step * (i // columns),
            text,
            fontsize=SMALL,
            color="white",
            ha="left",
            va="top",
            bbox={"facecolor": "black", "pad": 0.8, "linewidth": 0},
        )
