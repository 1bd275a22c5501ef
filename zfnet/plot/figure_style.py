"""The style of all figures, independent of the user's matplotlib configuration."""

from __future__ import annotations

from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
}


def style():
    """Return a context manager in which figures have the shared style.

    It starts from matplotlib's defaults: nothing of the user's own configuration remains.
    """
    return matplotlib.style.context(["default", STYLE])


class StyledFigure(Figure):
    """A figure that is drawn and saved in the shared style, wherever that happens."""

    def draw(self, renderer: Any) -> None:
        """Draw in the shared style."""
        with style():
            super().draw(renderer)

    def savefig(self, *args: Any, **options: Any) -> None:
        """Save in the shared style."""
        with style():
            super().savefig(*args, **options)


@style()
def new_figure(width: float, height: float) -> StyledFigure:
    """Return a figure without a window; save it with its `savefig` method.

    Add to it inside `with style():`, for fonts and colors of the shared style.

    Args:
        width: The width, in inches.
        height: The height, in inches.

    Returns:
        The figure.
    """
    return StyledFigure(figsize=(width, height), layout="constrained")
