"""The pictures of codes: planes, a grid of images, and nearest neighbors."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import interval_bars, new_page, set_finding
from zfnet.plot import mosaic, show

COLORS = ("#D55E00", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2")
SPACES = ("layer 7", "pixels", "PCA, 2 dimensions", "t-SNE, 2 dimensions")
KIND_SHARE = "of an image's {} nearest, share of its kind"
CLASS_SHARE = "nearest image is of the same class, share"


def draw_planes(result: Result, k: int) -> Picture:
    """The codes in two planes, and how often neighbors are of one kind."""
    a, m = result.arrays, result.measured
    share = m[KIND_SHARE.format(k)]
    names = a["names"].tolist()
    tab20 = mpl.colormaps["tab20"]
    colors = COLORS if len(names) <= len(COLORS) else [tab20(i % 20) for i in range(len(names))]
    figure = new_page(4.3)
    *panels, bars = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 0.75))
    for panel, space in zip(panels, ("PCA", "t-SNE"), strict=True):
        for number, name in enumerate(names):
            x, y = a[space][a["kinds"] == number].T
            panel.scatter(x, y, s=7, color=colors[number], label=name, linewidth=0)
        panel.set(title=f"{space} of the codes of {len(a['kinds'])} images", xticks=(), yticks=())
    if len(names) <= 20:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, markerscale=1.6)
    percent = {space: [100 * v for v in row] for space, row in share.items()}
    interval_bars(bars, {s.replace(", ", "\n"): row for s, row in percent.items()}, "0.55")
    chance = 100 * m["of the image's kind by chance, share"]
    bars.axvline(chance, color="black", linestyle=":")
    bars.set(xlabel="neighbors of its kind, %\n(dotted: by chance)")
    set_finding(figure, result.finding)
    return figure


def draw_grid(result: Result) -> Picture:
    """Images on a grid that follows t-SNE."""
    a = result.arrays
    figure, side = new_page(8.8), int(len(a["cells"]) ** 0.5)
    show(figure.subplots(), mosaic(a["tiles"][np.argsort(a["cells"])] / 255, side, gap=1))
    set_finding(
        figure,
        f"Similar images are close: {len(a['cells'])} images by t-SNE of their layer-7 codes",
    )
    return figure


def draw_neighbors(result: Result, k: int) -> Picture:
    """Images next to their nearest neighbors in layer 7 and in pixels."""
    rows = result.arrays["neighbors"]
    figure = new_page(0.76 * len(rows) + 0.7)
    parts = {"image": (0, 1), "nearest in layer 7": (1, k), "nearest in pixels": (k + 1, k)}
    panels = figure.subplots(1, 3, width_ratios=[count for _, count in parts.values()])
    for panel, (title, (first, count)) in zip(panels, parts.items(), strict=True):
        images = rows[:, first : first + count].reshape(-1, *rows.shape[2:]) / 255
        show(panel, mosaic(images, count, gap=2), title)
    same = result.measured[CLASS_SHARE]
    set_finding(
        figure,
        f"The nearest image is of the same class for {same['layer 7'][0]:.1%} of {result.n:,} "
        f"images in layer 7, and for {same['pixels'][0]:.1%} in pixels",
    )
    return figure
