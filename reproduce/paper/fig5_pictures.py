"""The pictures of Figure 5: five images, and means over images.

`grids` holds the values of each family of transforms.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import caption, new_page, plain, set_finding
from reproduce.paper.fig5_claims import LAYERS
from zfnet.analysis.invariance import IDENTITY
from zfnet.plot import LINES, mean_band, mosaic, show

UNITS = {
    "translation": "vertical shift, pixels",
    "scale": "scale, factor",
    "rotation": "rotation, degrees",
}
TITLES = {
    "conv1": "layer 1: relative distance",
    "fc7": "layer 7: relative distance",
    "probability": "probability of the class",
}


def draw_images(result: Result, grids: dict[str, np.ndarray], shown: dict[str, list]) -> Picture:
    """The paper's figure: five images."""
    a, labels = result.arrays, []
    for name, entry in result.measured["shown images"].items():
        predicted = entry["predicted class"]
        labels.append(name if name == predicted else f"{name} (predicted: {predicted})")
    top = 1.05 * max(a[f"{family}.probability"][: len(labels)].max() for family in IDENTITY)
    figure = new_page(7.6)
    rows = figure.subplots(3, 4, width_ratios=(1.15, 1, 1, 1))
    for (tiles, *panels), family, letter in zip(rows, IDENTITY, "abc", strict=True):
        show(tiles, mosaic(a[f"{family}.tiles"] / 255, 5, gap=2))
        values = ", ".join(f"{value:g}" for value in shown[family])
        caption(tiles, f"({letter}) {family}\n{values}", 40)
        for n, (label, color) in enumerate(zip(labels, LINES, strict=False)):
            tiles.text(-10, 114 * n + 56, "■", color=color, ha="right", va="center", fontsize=10)
            for panel, key in zip(panels, TITLES, strict=True):
                panel.plot(grids[family], a[f"{family}.{key}"][n], color=color, label=label)
        for panel, (key, title) in zip(panels, TITLES.items(), strict=True):
            panel.set_ylim(0, top if key == "probability" else None)
            panel.set_ylabel(title, fontsize=8)
            _set_x(panel, family, grids[family])
    handles, names = rows[0, 1].get_legend_handles_labels()
    names = [plain(name) for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    set_finding(figure, result.finding)
    return figure


def draw_means(result: Result, grids: dict[str, np.ndarray]) -> Picture:
    """Means over images, with their intervals."""
    a, reference = result.arrays, result.arrays["reference"]
    groups = {
        "averaged": f"{result.n} images",
        "symmetric": f"{a['titles'][-1]} ({len(a['symmetric'])})",
    }
    figure = new_page(5.2)
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
    columns[0, 1].set_ylabel("probability of the class, relative\nto the untransformed image")
    columns[1, 0].legend(frameon=False)
    columns[1, 1].legend(frameon=False)
    set_finding(
        figure,
        f"Means over {result.n} images, with 95 % intervals: how far features move, and how stable "
        "the class is",
    )
    return figure


def _set_x(panel: Axes, family: str, x: np.ndarray) -> None:
    panel.set_xlim(x[0], x[-1])
    panel.set_xlabel(UNITS[family], fontsize=8)
    panel.tick_params(labelsize=8)
    if family == "rotation":
        panel.set_xticks(range(0, 351, 90))
