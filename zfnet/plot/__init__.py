"""Figures in one shared style, the rendering of images, and image files.

Functions take arrays, tensors or figures; they know no model and no data set.
"""

from zfnet.plot.figure_style import StyledFigure, new_figure, style
from zfnet.plot.figures import (
    HEAT,
    LINES,
    align_occlusion_map,
    attribution_figure,
    draw_table,
    escape_math,
    heat_map,
    label_map,
    mean_band,
    occlusion_figure,
    projection_figure,
    rectangle,
    show,
)
from zfnet.plot.files import write_figure, write_gif
from zfnet.plot.rendering import (
    ATTRIBUTION,
    DIVERGING,
    GRAY,
    attribution_image,
    enlarge,
    filter_image,
    mosaic,
    overlay,
    overlay_frames,
    photograph,
    projection_image,
)

__all__ = [
    "ATTRIBUTION", "DIVERGING", "GRAY", "HEAT", "LINES",
    "attribution_image", "enlarge", "filter_image", "mosaic", "overlay", "overlay_frames",
    "photograph", "projection_image",
    "align_occlusion_map", "draw_table", "escape_math", "heat_map", "label_map", "mean_band",
    "new_figure", "rectangle", "show", "style", "StyledFigure",
    "attribution_figure", "occlusion_figure", "projection_figure",
    "write_figure", "write_gif",
]  # fmt: skip
