"""The picture of Table 3: the validation error of each row by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.page import new_page, set_finding
from zfnet.plot import LINES


def draw_learning_curves(
    errors: dict[str, float], curves: np.ndarray, networks: Sequence[str], finding: str
) -> Picture:
    """Draw a panel per network.

    Args:
        errors: The final validation error of each row, in percent.
        curves: (rows, epochs), the errors by epoch.
        networks: The networks, which begin the names of their rows.
        finding: The title.
    """
    figure = new_page(6.4)
    panels = figure.subplots(len(networks), 1, sharex=True, sharey=True)
    for axes, network in zip(panels, networks, strict=True):
        rows = [(n, c) for n, c in zip(errors, curves, strict=True) if n.startswith(network)]
        for i, (name, curve) in enumerate(rows):
            change = name.removeprefix(network).strip(", ") or "as is"
            _draw_curve(axes, i, curve, f"{change}: {errors[name]:.1f} %")
        axes.set_title(f"{network} and its changes", fontsize=10)
        axes.set_ylabel("validation error, %", fontsize=10)
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    panels[-1].set_xlabel("epoch", fontsize=10)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    set_finding(figure, finding)
    return figure


def _draw_curve(axes: Axes, number: int, curve: np.ndarray, label: str) -> None:
    """Draw a curve; solid lines for the first colors, then dashed ones."""
    style = "-" if number < len(LINES) else "--"
    color = LINES[number % len(LINES)]
    axes.plot(np.arange(1, len(curve) + 1), curve, color=color, ls=style, label=label)
