"""The pictures of Tables 4, 5 and 7 and Figure 9: accuracy by images per class, or by layer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.paper.transfer import PRETRAINED, SCRATCH, SHALLOW
from zfnet.plot import LINES


def draw_comparison(result: Result, figure: Figure) -> dict[str, Picture]:
    """The accuracy of frozen features and of training from scratch, by images per class."""
    if PRETRAINED not in result.measured:
        return {}
    series = {
        PRETRAINED: result.measured["pretrained, by images per class"],
        SHALLOW: result.measured[SHALLOW],
        SCRATCH: result.measured[SCRATCH],
    }
    picture = new_page(4.2)
    axes = picture.subplots()
    for (name, values), color, marker in zip(
        series.items(), (LINES[0], LINES[2], LINES[1]), "o^s", strict=True
    ):
        n, (mean, deviation) = images_per_class(values), np.transpose(list(values.values()))
        style = {"color": color, "marker": marker, "ms": 4, "capsize": 2}
        axes.errorbar(n, mean, deviation, label=f"{name}, ours", **style)
        if name in figure.paper:
            paper = figure.paper[name]
            means = [value[0] for value in paper.values()]
            style = {"ls": ":", "marker": "x", "color": color, "alpha": 0.7}
            axes.plot(images_per_class(paper), means, label=f"{name}, paper", **style)
    label_axes(axes, "training images per class")
    axes.legend(frameon=False, fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    set_finding(picture, result.finding)
    return {f"{figure.id}.png": picture}


def images_per_class(values: dict) -> list[int]:
    """The numbers of images in keys such as "15 per class"."""
    return [int(text.split()[0]) for text in values]


def label_axes(axes: Axes, quantity: str) -> None:
    """Label a curve of accuracies over a quantity."""
    axes.set(xlabel=quantity, ylim=(0, 100))
    axes.set_ylabel("accuracy, % (mean over classes)")
