"""The pictures of the figure on faithfulness: scores with intervals, and curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Picture

from reproduce.core.page import interval_bars, label_lines, new_page, set_finding
from zfnet.plot import LINES

Scores = dict[str, list[float]]  # of each method: [mean, low, high]
DASHED = len(LINES)  # methods from this number on have a dashed line


def draw_scores(columns: Mapping[str, Scores], baselines: Sequence[str], finding: str) -> Picture:
    """Draw one panel per score, with methods sorted by the first score.

    Args:
        columns: The scores of each method, by axis label.
        baselines: The methods that are drawn in gray.
        finding: The title.
    """
    first = next(iter(columns.values()))
    names = sorted(first, key=lambda name: -first[name][0])
    figure = new_page(4.6)
    panels = figure.subplots(1, len(columns), sharey=True)
    for panel, (label, scores) in zip(panels, columns.items(), strict=True):
        rows = {title(name): scores[name] for name in names}
        colors = ["0.65" if name in baselines else LINES[0] for name in names]
        interval_bars(panel, rows, colors, "{:.0f}" if label.endswith("%") else "{:.2f}")
        panel.set_xlabel(label)
    panels[0].set_ylim(len(names) - 0.5, -0.5)  # shared axes are inverted once
    set_finding(figure, finding)
    return figure


def draw_cascades(
    layers: Sequence[str], cascades: Mapping[str, np.ndarray], finding: str
) -> Picture:
    """Draw how maps change as layers are randomized.

    Args:
        layers: The layers, from the logits down.
        cascades: Rank correlations (n, layers) of each method.
        finding: The title.
    """
    figure = new_page(4.8)
    axes = figure.subplots()
    ends = {}
    for number, (name, correlations) in enumerate(cascades.items()):
        means = [1, *correlations.mean(0)]
        color, style = LINES[number % len(LINES)], "-" if number < DASHED else "--"
        axes.plot(means, style, color=color, marker="o", markersize=3)
        ends[title(name) + (" (dashed)" if number >= DASHED else "")] = (means[-1], color)
    axes.set_xticks(range(len(layers) + 1), ["trained", *layers])
    axes.set_xlabel("randomized: this layer and all above it")
    axes.set_ylabel("rank correlation with the\nmap of the trained network")
    label_lines(axes, ends, len(layers))
    set_finding(figure, finding)
    return figure


def title(name: str) -> str:
    """A method's name in words: grad_cam_plus_plus as "grad cam++"."""
    return name.replace("_plus_plus", "++").replace("_", " ")
