"""The picture of directions: typical ones, and how coherent their images are."""

from __future__ import annotations

from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import (
    SMALL,
    blank,
    interval_bars,
    label_row,
    new_page,
    set_finding,
    show_tiles,
)
from reproduce.lectures.features.direction_kinds import KINDS
from zfnet.plot import LINES

SHARE = "{}: share of the most common class among nine images"
COSINE = "conv5: cosine of the layer-7 codes of nine images"
AXIS_LABELS = {
    SHARE.format("conv5"): "layer 5: most common class\namong nine images, share",
    COSINE: "layer 5: cosine of the nine\nimages' layer-7 codes",
    SHARE.format("fc7"): "layer 7: most common class\namong nine images, share",
}


def by_chance(measured: dict, name: str) -> float:
    """The value of a measure for nine random images."""
    return measured["nine random images"][
        "share of the most common class" if "class" in name else "cosine of layer 7"
    ]


def draw_directions(result: Result) -> Picture:
    """Draw the nine strongest images of typical directions, and the coherence of all."""
    a, m = result.arrays, result.measured
    figure = new_page(6.4)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.95, 1)).flat
    for row, kind in zip(left.subplots(3, len(a[KINDS[0]])), KINDS, strict=True):
        blank(row)
        for n, (panel, nine) in enumerate(zip(row, a[kind], strict=False)):
            unit = f"conv5/{a['units.channels'][n]}" if kind == KINDS[0] else ""
            show_tiles(panel, nine / 255, 3, unit, gap=1)
        label_row(row[0], kind)
    names = [name for name in m if "units" in m[name]]
    for panel, name in zip(right.subplots(len(names), 1), names, strict=True):
        rows = {kind.removesuffix(" directions"): m[name][kind] for kind in KINDS}
        interval_bars(panel, rows, LINES[:3], "{:.2f}")
        panel.axvline(by_chance(m, name), color="black", linestyle=":")
        panel.set_xlabel(AXIS_LABELS[name])
    right.supxlabel("dotted: nine random images", fontsize=SMALL + 1)
    set_finding(figure, result.finding)
    return figure
