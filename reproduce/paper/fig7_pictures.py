"""The picture of Figure 7: photographs, projections, and maps over the occluder's positions."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Result
from reproduce.core.page import new_page, set_finding
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
TITLES = (  # of the columns
    "(a) photograph; (c) strongest layer-5 map,\nprojected here (frame) and elsewhere",
    "(b) total of\nthat map",
    "(d) probability\nof the class",
    "(e) most probable\nclass",
)


def draw_rows(result: Result, config: dict) -> Picture:
    """A row per photograph.

    Args:
        result: The result of Figure 7.
        config: Its settings: "size", "stride" and "fill" of the occluder.
    """
    m = result.measured
    names = list(m["photograph"])
    figure = new_page(1.22 * len(names) + 1.0)
    grid = figure.subplots(len(names), 4, squeeze=False, width_ratios=(2.6, 1.3, 1.3, 2.7))
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
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
        _draw_row(axes, arrays, label, result.arrays["classes"].tolist(), config)
    for axes, title in zip(grid[0], TITLES, strict=True):
        axes.set_title(title, fontsize=8, loc="left")
    set_finding(figure, result.finding)
    figure.supxlabel(
        "boxes: cyan, the object; yellow, faces. The gray square is the occluder.", fontsize=8
    )
    return figure


def _draw_row(
    axes: np.ndarray, a: dict[str, np.ndarray], label: str, classes: list[str], config: dict
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
    axes[3].set_xlim(0, 2.7 * side)  # the legend is beside the map
    legend = axes[3].get_legend()
    assert legend is not None
    legend.set_bbox_to_anchor((0.8 / 2.7, 0.5))
    legend.set_in_layout(False)  # there is room
    for panel in axes:
        panel.set_anchor("NW")


def _frame_first(tiles: np.ndarray) -> np.ndarray:
    """Draw a black frame around the first tile."""
    tiles = tiles.copy()
    for edge in (np.s_[:FRAME], np.s_[-FRAME:], np.s_[:, :FRAME], np.s_[:, -FRAME:]):
        tiles[0][edge] = 0
    return tiles
