"""The pictures of Figure 5: five images, and means over images.

`grids` holds the values of each family of transforms.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from zfnet.analysis.invariance import IDENTITY
from zfnet.plot import LINES, mean_band, mosaic, new_figure, show

LAYERS = {"conv1": "layer 1", "fc7": "layer 7"}
UNITS = {
    "translation": "vertical translation (pixels)",
    "scale": "scale (factor)",
    "rotation": "rotation (degrees)",
}
TITLES = {
    "conv1": "layer 1: relative distance",
    "fc7": "layer 7: relative distance",
    "probability": "probability of the class",
}


def draw_images(result: Result, grids: dict[str, np.ndarray], shown: dict[str, list]) -> Picture:
    """The paper's figure: five images."""
    a, labels = result.arrays, []
    for name, entry in result.measured["shown"].items():
        predicted = entry["taken for"]
        labels.append(name if name == predicted else f"{name} (taken for {predicted})")
    top = 1.05 * max(a[f"{family}.probability"][: len(labels)].max() for family in IDENTITY)
    figure = new_figure(14, 8.8)
    rows = figure.subplots(3, 4, width_ratios=(0.9, 1, 1, 1))
    for (tiles, *panels), family, letter in zip(rows, IDENTITY, "abc", strict=True):
        values = ", ".join(f"{value:g}" for value in shown[family])
        show(tiles, mosaic(a[f"{family}.tiles"] / 255, 5, gap=2), f"({letter}) {family}: {values}")
        for n, (label, color) in enumerate(zip(labels, LINES, strict=False)):
            tiles.text(-10, 114 * n + 56, "■", color=color, ha="right", va="center", fontsize=14)
            for panel, key in zip(panels, TITLES, strict=True):
                panel.plot(grids[family], a[f"{family}.{key}"][n], color=color, label=label)
        for panel, (key, title) in zip(panels, TITLES.items(), strict=True):
            panel.set(title=title, ylim=(0, top if key == "probability" else None))
            _set_x(panel, family, grids[family])
    handles, names = rows[0, 1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=5, frameon=False)
    return figure


def draw_means(result: Result, grids: dict[str, np.ndarray]) -> Picture:
    """Means over images, with their intervals."""
    a, reference = result.arrays, result.arrays["reference"]
    groups = {
        "averaged": f"{result.n} images",
        "symmetric": f"{a['titles'][-1]} ({len(a['symmetric'])})",
    }
    figure = new_figure(12, 6)
    columns = figure.subplots(2, 3, sharey="row").T
    for (upper, lower), family in zip(columns, IDENTITY, strict=True):
        for (layer, words), color in zip(LAYERS.items(), LINES, strict=False):
            mean_band(upper, grids[family], a[f"{family}.{layer}"][a["averaged"]], color, words)
        for (group, label), color in zip(groups.items(), LINES[2:], strict=False):
            probability, base = a[f"{family}.probability"][a[group]], reference[a[group]]
            mean_band(lower, grids[family], probability, color, label, base=base)
        _set_x(upper, family, grids[family])
        _set_x(lower, family, grids[family])
    for panel in columns.flat:  # rows share their limits, so only after all are drawn
        panel.set_ylim(bottom=0)
    columns[0, 0].set_ylabel("relative distance of features")
    columns[0, 1].set_ylabel("probability of the class, over\nits mean in the reference view")
    columns[0, 0].legend(frameon=False)
    columns[1, 1].legend(frameon=False)
    figure.suptitle("Means over images, with their 95 % intervals")
    return figure


def _set_x(panel: Axes, family: str, x: np.ndarray) -> None:
    panel.set(xlabel=UNITS[family], xlim=(x[0], x[-1]))
    if family == "rotation":
        panel.set_xticks(range(0, 351, 90))
