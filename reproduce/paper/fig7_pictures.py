"""The picture of Figure 7: photographs, projections, and maps over the occluder's positions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import WIDTH, new_page, set_finding
from reproduce.paper.boxed_images import show_boxes, show_occlusion_map
from zfnet.plot import (
    align_occlusion_map,
    enlarge,
    escape_math,
    label_map,
    mosaic,
    photograph,
    projection_image,
    show,
)

GAP, FRAME = 4, 3  # pixels between tiles, and of the frame around the first
# In inches: a side of the photograph and of each map, the space between rows, and the space
# above and below all rows.
SIDE, ROW_GAP, TOP, BOTTOM = 1.0, 0.16, 0.86, 0.34
COLORBAR = 0.076  # of an axes' width, which `zfnet.plot.heat_map` gives to its color bar
COLUMNS = {  # title: left edge and width, in inches
    "(a) photograph\n": (0.5, 2.53 * SIDE),
    "(b) total of\nthe map": (3.14, SIDE / (1 - COLORBAR)),
    "(d) probability\nof the class": (4.58, SIDE / (1 - COLORBAR)),
    "(e) most probable\nclass": (6.02, SIDE),
}
SECOND_TITLE = "(c) strongest layer-5 map,\nhere (framed), elsewhere"


def draw_rows(result: Result, config: dict) -> Picture:
    """A row per photograph.

    Args:
        result: The result of Figure 7.
        config: Its settings: "size", "stride" and "fill" of the occluder.
    """
    m = result.measured
    names = list(m["photograph"])
    height = TOP + len(names) * (SIDE + ROW_GAP) + BOTTOM
    figure = new_page(height)
    figure.set_layout_engine("none")
    for number, name in enumerate(names):
        prefix = f"{number}."
        arrays = {
            key.removeprefix(prefix): values
            for key, values in result.arrays.items()
            if key.startswith(prefix)
        }
        label = m["class"][name]
        if m["predicted class"][name] != label:
            label += f", predicted:\n{m['predicted class'][name]}"
        label += f"\nmap {m['strongest feature'][name]}"
        bottom = height - TOP - number * (SIDE + ROW_GAP) - SIDE
        axes = [
            figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, SIDE / height))
            for left, width in COLUMNS.values()
        ]
        _draw_row(axes, arrays, label, result.arrays["classes"].tolist(), config)
        if number == 0:
            for panel, title in zip(axes, COLUMNS, strict=True):
                panel.set_title(title, fontsize=8, loc="left")
            middle = (
                1 + 1.53 / 2
            ) / 2.53  # of the patches, which are to the right of the photograph
            axes[0].set_title(SECOND_TITLE, fontsize=8, x=middle, multialignment="left")
    set_finding(figure, result.finding)
    legend = "Boxes: cyan, the object; yellow, faces. The gray square is the occluder."
    figure.text(0.5, 0.1 / height, legend, ha="center", fontsize=8)
    return figure


def _draw_row(
    axes: list[Axes], a: dict[str, np.ndarray], label: str, classes: list[str], config: dict
) -> None:
    size, stride = config["size"], config["stride"]
    side = a["x"].shape[-1]
    tile = (side - GAP) // 2  # two rows of tiles are as high as the photograph
    tiles = np.concatenate(
        [_frame_first(enlarge(projection_image(a["projections"], 0.98), tile)),
         enlarge(photograph(a["patches"]), tile)]
    )  # fmt: skip
    small = mosaic(tiles, len(a["patches"]), gap=GAP)
    small = np.pad(small, ((0, side - len(small)), (GAP, 0), (0, 0)), constant_values=1)
    show(axes[0], np.concatenate([photograph(a["x"])[0], small], 1))
    show_boxes(axes[0], a, size, config["fill"])
    place = {"rotation": 90, "ha": "right", "va": "center", "multialignment": "center"}
    axes[0].text(-8, side / 2, escape_math(label), fontsize=7.5, **place)
    show_occlusion_map(axes[1], a["activation"], "", size, stride, side)
    limits = (0, float(a["probability"].max()))
    show_occlusion_map(axes[2], a["probability"], "", size, stride, side, limits)
    label_map(axes[3], a["label"], classes)
    align_occlusion_map(axes[3], size, stride, side)
    for panel in axes:
        panel.set_anchor("W")


def _frame_first(tiles: np.ndarray) -> np.ndarray:
    """Draw a black frame around the first tile."""
    tiles = tiles.copy()
    for edge in (np.s_[:FRAME], np.s_[-FRAME:], np.s_[:, :FRAME], np.s_[:, -FRAME:]):
        tiles[0][edge] = 0
    return tiles
