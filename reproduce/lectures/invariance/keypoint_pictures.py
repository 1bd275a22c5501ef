"""Draw pairs of images with their keypoints, and how many are found by tolerance."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.patheffects import withStroke

from reproduce.core.page import caption, label_lines
from zfnet.plot import LINES, photograph, show

PART_COLORS = ("cyan", "yellow", "magenta")  # different from those of the layers


def draw_pairs(figure: SubFigure, a: dict[str, np.ndarray], parts: Sequence[str]) -> None:
    """Draw the best, a typical and the worst pair of images, with matches in the lower one."""
    grid = figure.subplots(2, 3)
    for n, (case, error) in enumerate(zip(("best", "typical", "worst"), a["errors"], strict=True)):
        pair = zip(grid[:, n], photograph(a["x"][n]), a["points"][n], strict=True)
        for panel, pixels, points in pair:
            show(panel, pixels)
            draw_points(panel, points, "o", markersize=8, markerfacecolor="none")
        draw_points(grid[1, n], a["matches"][n], "x", markersize=8)
        caption(grid[0, n], f"{case} pair")
        caption(grid[1, n], f"error: {error:.0%} of the head")
    handles = [
        grid[0, 0].plot([], [], "o", color=color, label=part)[0]
        for part, color in zip(parts, PART_COLORS, strict=True)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False,
        title="circles: annotated; crosses: nearest features of layer 5",
    )  # fmt: skip


def draw_points(axes: Axes, points: np.ndarray, marker: str, **options: Any) -> None:
    """Mark the parts of a head, each in its color, with a black edge that shows on white fur."""
    for (row, column), color in zip(points, PART_COLORS, strict=True):
        axes.plot(
            column, row, marker, markeredgecolor=color, markeredgewidth=2,
            path_effects=[withStroke(linewidth=3.5, foreground="black")], **options,
        )  # fmt: skip


def draw_curves(axes: Axes, curves: dict[str, dict[str, float]], plain: dict[str, str]) -> None:
    """Draw the share of found keypoints against the tolerance.

    Args:
        axes: The axes to draw on.
        curves: The percentage of found keypoints, by method and tolerance.
        plain: The line styles of baselines, which are gray.
    """
    ends, alphas = {}, []
    for number, (name, curve) in enumerate(curves.items()):
        color = LINES[number] if name not in plain else "0.35"
        style = plain.get(name, "-")
        alphas = [float(alpha) for alpha in curve]
        values = list(curve.values())
        axes.plot(alphas, values, marker="o", markersize=3, color=color, linestyle=style)
        ends[textwrap.fill(name, 13)] = (values[-1], color)
    axes.set(
        xlabel="tolerance, share of the head's longer side",
        ylabel="keypoints found, %",
        ylim=(0, 100),
    )
    label_lines(axes, ends, alphas[-1])
