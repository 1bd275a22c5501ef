"""Figures in one shared style: photographs, heat maps, label maps and tables.

Functions take arrays and draw with matplotlib; they know no model and no data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.patches as patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from zfnet.data.io import printable_name
from zfnet.plot.figure_style import new_figure, style
from zfnet.plot.rendering import (
    attribution_image,
    overlay,
    photograph,
    projection_image,
)

HEAT = "viridis"
MAX_COLORS = 7  # classes with a separate color in a label map
# The palette of Okabe and Ito, which is safe for color-blind readers.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def escape_math(text: str) -> str:
    """Escape what matplotlib would read as math or cannot draw; names of files may hold both."""
    lines = (printable_name(line) for line in text.split("\n"))
    return "\n".join(lines).replace("$", r"\$")


def show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Show an image (H, W, 3) in [0, 1] without ticks or frame."""
    axes.imshow(np.clip(image, 0, 1), interpolation="antialiased", origin="upper")
    axes.set_title(escape_math(title))
    axes.set_axis_off()


def draw_table(
    axes: Axes,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[float],
    muted: Sequence[int] = (),
) -> None:
    """Fill the axes with a table of text, with a bold header.

    Args:
        axes: The axes to fill.
        header: The text of the header's C cells.
        rows: The text of the other rows, C cells each.
        widths: The width of each column, relative to the axes.
        muted: The numbers of the columns in gray, such as the paper's values.
    """
    axes.set_axis_off()
    full_axes: Any = (0, 0, 1, 1)  # matplotlib's annotation lacks tuples
    table = axes.table(
        rows, colLabels=header, cellLoc="center", bbox=full_axes, colWidths=widths,
        edges="horizontal",
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    for (row, column), cell in table.get_celld().items():
        cell.set(linewidth=1.2 if row == 0 else 0.3)
        color = "0.35" if column in muted else "black"
        cell.get_text().set(weight="bold" if row == 0 else "normal", color=color)


def heat_map(
    axes: Axes, values: np.ndarray, title: str = "", *, limits: tuple[float, float] | None = None
) -> None:
    """Draw a heat map with a color bar.

    Args:
        axes: The axes to draw on.
        values: Values (rows, columns); low values are dark.
        title: The title.
        limits: The values at both ends of the color bar; None for the range of the values.
    """
    low, high = limits or (float(values.min()), float(values.max()))
    top = high if high > low else low + 1e-6
    image = axes.imshow(values, cmap=HEAT, vmin=low, vmax=top, origin="upper")
    axes.set_title(escape_math(title))
    axes.set_axis_off()
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def label_map(axes: Axes, labels: np.ndarray, names: Sequence[str], title: str = "") -> None:
    """Draw a map of classes, with a legend of the most frequent ones.

    Args:
        axes: The axes to draw on.
        labels: Classes (rows, columns).
        names: The name of each class.
        title: The title.
    """
    values, counts = np.unique(labels, return_counts=True)
    frequent = values[np.argsort(-counts, kind="stable")][:MAX_COLORS]
    colors = mpl.colormaps["tab10"](np.arange(len(frequent)))[:, :3]
    image = np.full((*labels.shape, 3), 0.85)
    for value, color in zip(frequent, colors, strict=True):
        image[labels == value] = color
    show(axes, image, title)
    handles = [
        patches.Patch(color=tuple(color), label=escape_math(str(names[value])))
        for value, color in zip(frequent, colors, strict=True)
    ]
    if len(values) > MAX_COLORS:
        others = len(values) - MAX_COLORS
        label = f"{others} other{'s' * (others > 1)}"
        handles.append(patches.Patch(color="0.85", label=label))
    axes.legend(
        handles=handles, fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5),
        handlelength=1,
    )  # fmt: skip


def align_occlusion_map(axes: Axes, size: int, stride: int, side: int) -> None:
    """Align an occlusion map with its image: each value is at the center of its occluder.

    Args:
        axes: Axes that show the map.
        size: The side of the occluder, in pixels.
        stride: The distance between positions, in pixels.
        side: The side of the image, in pixels.
    """
    image, start = axes.images[0], (size - stride) / 2
    rows, columns = image.get_size()
    image.set_extent((start, start + stride * columns, start + stride * rows, start))
    axes.set(xlim=(0, side), ylim=(side, 0))


def rectangle(axes: Axes, box: Sequence[int] | np.ndarray, color: str = "white", **options) -> None:
    """Outline a box (top, left, bottom, right), in pixels; options go to matplotlib's Rectangle."""
    top, left, bottom, right = (float(v) for v in box)
    corner, width, height = (left - 0.5, top - 0.5), right - left, bottom - top
    axes.add_patch(patches.Rectangle(corner, width, height, fill=False, edgecolor=color, **options))


def mean_band(
    axes: Axes,
    x: np.ndarray,
    rows: np.ndarray,
    color: str,
    label: str = "",
    base: np.ndarray | float = 1.0,
) -> None:
    """Plot the mean of lines, with its 95 % bootstrap interval as a band.

    Args:
        axes: The axes to draw on.
        x: Positions (T,).
        rows: One line per image (N, T).
        color: The color of the mean and of the band.
        label: The entry in the legend.
        base: What the mean is divided by: the mean of one number per image (N,), or a number.
    """
    n, base = len(rows), np.broadcast_to(base, len(rows))
    # Entry (b, n) counts row n in draw b.
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), 2000)
    low, high = np.quantile(counts @ rows / (counts @ base)[:, None], (0.025, 0.975), axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(x, rows.mean(0) / base.mean(), color=color, label=label)


@style()
def projection_figure(
    x: Tensor, patch: Tensor, projection: Tensor, box: Sequence[int], title: str
) -> Figure:
    """Draw the projection of one activation next to its image.

    Args:
        x: The image (1, 3, H, W).
        patch: The projection, cropped to the receptive field (1, 3, h, w).
        projection: The projection of the whole image (1, 3, H, W).
        box: The receptive field, as (top, left, bottom, right).
        title: The title.

    Returns:
        The figure.
    """
    figure = new_figure(7.5, 2.9)
    left, middle, right = figure.subplots(1, 3)
    show(left, photograph(x)[0], "image and receptive field")
    rectangle(left, box, "yellow", linewidth=1.5)
    show(middle, projection_image(projection)[0], "projection to pixels")
    rectangle(middle, box, "0.2", linewidth=0.8)
    show(right, projection_image(patch)[0], "receptive field, enlarged")
    figure.suptitle(escape_math(title))
    return figure


@style()
def occlusion_figure(
    x: Tensor,
    maps: dict[str, np.ndarray],
    labels: np.ndarray,
    names: Sequence[str],
    size: int,
    stride: int,
    title: str,
) -> Figure:
    """Draw the occlusion maps of one image, and the predicted class at each position.

    Args:
        x: The image (1, 3, S, S).
        maps: Values (rows, columns) by title.
        labels: The predicted classes (rows, columns).
        names: The name of each class.
        size: The side of the occluder, in pixels.
        stride: The distance between positions, in pixels.
        title: The title.

    Returns:
        The figure.
    """
    figure = new_figure(3.0 * (len(maps) + 2), 3.3)
    axes = figure.subplots(1, len(maps) + 2)
    show(axes[0], photograph(x)[0], "image and occluder")
    axes[0].add_patch(patches.Rectangle((4, 4), size, size, color="0.5"))
    for axis, (name, values) in zip(axes[1:], maps.items(), strict=False):
        heat_map(axis, values, name)
    label_map(axes[-1], labels, names, "most probable class")
    for axis in axes[1:]:
        align_occlusion_map(axis, size, stride, x.shape[-1])
    figure.suptitle(escape_math(title))
    return figure


@style()
def attribution_figure(x: Tensor, maps: Tensor, title: str, caption: str = "") -> Figure:
    """Draw the attribution map of one image, alone and as an overlay.

    Args:
        x: The image (1, 3, H, W).
        maps: The map (1, 1, H, W).
        title: The title.
        caption: The text below the panels, if any.

    Returns:
        The figure.
    """
    figure = new_figure(8.4, 3.3)
    left, middle, right = figure.subplots(1, 3)
    photo, (image, scale) = photograph(x)[0], attribution_image(maps)
    show(left, photo, "image")
    show(middle, image[0], f"map, colors scaled by {scale[0]:.3g}")
    show(right, overlay(photo, image[0]), "map over the image")
    figure.suptitle(escape_math(title))
    figure.supxlabel(caption, fontsize=8, color="0.35")
    return figure
