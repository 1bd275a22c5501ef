"""Draw keypoints on images, and how many are found against the tolerance."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from reproduce.core.page import label_lines
from zfnet.plot import LINES

PART_COLORS = ("cyan", "yellow", "magenta")  # different from those of the layers


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
