"""The house style of pictures, as rules that a test can check.

A page shows a picture 840 pixels wide. At that width each text is at least 9 pixels high and no two
texts overlap. A picture has at most twelve panels and a title, and each axis with numbers a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

PAGE = 840  # pixels
SMALLEST_TEXT = 9  # pixels
MOST_PANELS = 12
SHORTEST_TITLE = 5  # words
TOLERANCE = 3  # pixels that the boxes of two texts may share, or leave the picture by


def violations(figure: Figure | np.ndarray) -> list[str]:
    """The rules that a picture breaks, in words; empty for one in house style, and for frames."""
    if isinstance(figure, np.ndarray):
        return []
    figure.set_dpi(PAGE / figure.get_size_inches()[0])
    FigureCanvasAgg(figure).draw()  # places texts and ticks
    texts = [text for text in figure.findobj(Text) if is_drawn(text)]
    return [
        *check_title(figure),
        *check_panels(figure),
        *check_sizes(texts),
        *check_axis_labels(figure),
        *check_places(figure, texts),
    ]


def is_drawn(text: Text) -> bool:
    """Whether a text is visible, and not part of an axis that is switched off."""
    if not text.get_visible() or not text.get_text().strip():
        return False
    axes = text.axes
    if axes is None:
        return True
    ticks = {t for axis in (axes.xaxis, axes.yaxis) for t in axis.findobj(Text)}
    return axes.get_visible() and (axes.axison or text not in ticks)


def check_title(figure: Figure) -> Iterator[str]:
    words = figure.get_suptitle().split()
    if len(words) < SHORTEST_TITLE:
        yield f"the title {' '.join(words)!r} does not state a finding"


def panels(figure: Figure) -> list[Axes]:
    """The axes that show something, without color bars."""
    return [
        axes
        for axes in figure.axes
        if axes.get_visible() and axes.get_label() != "<colorbar>" and axes.has_data()
    ]


def check_panels(figure: Figure) -> Iterator[str]:
    count = len(panels(figure))
    if count > MOST_PANELS:
        yield f"{count} panels, at most {MOST_PANELS}"


def check_sizes(texts: list[Text]) -> Iterator[str]:
    for text in texts:
        figure = text.get_figure(root=True)
        assert figure is not None
        height = text.get_fontsize() / 72 * figure.dpi
        if height < SMALLEST_TEXT:
            yield f"{text.get_text()!r} is {height:.1f} pixels high, at least {SMALLEST_TEXT}"


def check_axis_labels(figure: Figure) -> Iterator[str]:
    for axes in panels(figure):
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            if axes.axison and shows_numbers(axis) and not axis.get_label_text():
                yield f"the {name} axis of {axes.get_title()!r} has numbers and no label"


def shows_numbers(axis: Axis) -> bool:
    """Whether an axis has numbers as tick labels, and not names."""
    labels = [label.get_text() for label in axis.get_ticklabels() if label.get_visible()]
    return any(label.strip("$%−-+").replace(".", "").replace(",", "").isdigit() for label in labels)


def check_places(figure: Figure, texts: list[Text]) -> Iterator[str]:
    """Texts that leave the picture, or overlap."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if in_view(text)]
    edge = figure.bbox.padded(TOLERANCE)
    for text, box in boxes:
        if not (edge.contains(box.x0, box.y0) and edge.contains(box.x1, box.y1)):
            yield f"{text!r} leaves the picture"
    for (one, box), (other, other_box) in combinations(boxes, 2):
        shared = Bbox.intersection(box, other_box)
        if shared is not None and min(shared.width, shared.height) > TOLERANCE:
            yield f"{one!r} and {other!r} overlap"


def in_view(text: Text) -> bool:
    """Whether a tick label is beside its axes, and not one of matplotlib's spare ticks."""
    axes = text.axes
    if axes is None:
        return True
    box, frame = text.get_window_extent(), axes.get_window_extent()
    center = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
    ends = ((frame.x0, frame.x1), (frame.y0, frame.y1))
    for axis, place, (low, high) in zip((axes.xaxis, axes.yaxis), center, ends, strict=True):
        spare = {t for t in axis.findobj(Text) if t not in (axis.label, axis.offsetText)}
        if text in spare and not low - 1 <= place <= high + 1:
            return False
    return True
