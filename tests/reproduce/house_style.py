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
    texts = drawn_texts(figure)
    return [
        *check_title(figure),
        *check_panels(figure),
        *check_sizes(texts),
        *check_axis_labels(figure),
        *check_places(figure, texts),
    ]


def drawn_texts(figure: Figure) -> list[Text]:
    """The visible texts, without those of axes that are off and without matplotlib's spare ticks."""
    hidden = set()
    for axes in figure.axes:
        for number, axis in enumerate((axes.xaxis, axes.yaxis)):
            texts = set(axis.findobj(Text))
            if axes.axison and axes.get_visible():
                texts -= {axis.label, axis.offsetText}
                frame = axes.get_window_extent().get_points()[:, number]
                texts = {
                    text
                    for text in texts
                    if not frame[0] - 0.1 <= center(text)[number] <= frame[1] + 0.1
                }
            hidden |= texts
    texts = [text for text in figure.findobj(Text) if text not in hidden]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def center(text: Text) -> tuple[float, float]:
    """The center of a text, in pixels (x, y)."""
    box = text.get_window_extent()
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


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
        shared = (axes.get_shared_x_axes(), axes.get_shared_y_axes())
        for number, group in enumerate(shared):
            siblings = [(a.xaxis, a.yaxis)[number] for a in group.get_siblings(axes)]
            axis = (axes.xaxis, axes.yaxis)[number]
            labeled = any(sibling.get_label_text() for sibling in siblings)
            if axes.axison and shows_numbers(axis) and not labeled:
                yield f"the {'xy'[number]} axis of {axes.get_title()!r} has numbers and no label"


def shows_numbers(axis: Axis) -> bool:
    """Whether an axis has numbers as tick labels, and not names."""
    labels = [label.get_text() for label in axis.get_ticklabels() if label.get_visible()]
    return any(label.strip("$%−-+").replace(".", "").replace(",", "").isdigit() for label in labels)


def check_places(figure: Figure, texts: list[Text]) -> Iterator[str]:
    """Texts that leave the picture, or overlap."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    edge = figure.bbox.padded(TOLERANCE)
    for text, box in boxes:
        if not (edge.contains(box.x0, box.y0) and edge.contains(box.x1, box.y1)):
            yield f"{text!r} leaves the picture"
    for (one, box), (other, other_box) in combinations(boxes, 2):
        shared = Bbox.intersection(box, other_box)
        if shared is not None and min(shared.width, shared.height) > TOLERANCE:
            yield f"{one!r} and {other!r} overlap"
