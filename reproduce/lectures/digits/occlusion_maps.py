"""Draw a digit with an erased square at every position, and what the network makes of it."""

from __future__ import annotations

import matplotlib.patches as shapes
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from reproduce.core.page import SMALL, caption
from zfnet.plot import LINES, align_occlusion_map, heat_map, show

STRIDE = 1  # pixels between positions


def draw_maps(
    axes: np.ndarray,
    name: str,
    x: np.ndarray,
    probability: np.ndarray,
    logit: np.ndarray,
    size: int,
) -> None:
    """Draw a digit and its erased square, and the maps of probability and logit."""
    show(axes[0], np.repeat(1 - x[..., None], 3, axis=2))
    caption(axes[0], name)
    options = {"fill": False, "edgecolor": LINES[1], "linewidth": 1.5}
    axes[0].add_patch(shapes.Rectangle((-0.5, -0.5), size, size, **options))
    heat_map(axes[1], probability, limits=(0, 1))
    heat_map(axes[2], logit)
    for panel, title in zip(axes[1:3], ("probability of 8", "logit of 8"), strict=True):
        caption(panel, title)
        align_occlusion_map(panel, size, STRIDE, x.shape[-1])
        panel.contour(x, levels=[0.5 * x.max()], colors="white", linewidths=1)


def draw_predictions(axes: Axes, label: np.ndarray, side: int, size: int) -> None:
    """Draw the digit that is predicted at each position of the erased square."""
    colors = ListedColormap(colormaps["tab10"](np.arange(10)))
    image = axes.imshow(label, cmap=colors, vmin=-0.5, vmax=9.5)
    align_occlusion_map(axes, size, STRIDE, side)
    caption(axes, "predicted digit")
    axes.set_axis_off()
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, ticks=range(10))
    bar.ax.tick_params(labelsize=SMALL, length=2)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
