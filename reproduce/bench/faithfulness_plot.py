"""The table and curves of the faithfulness figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from zfnet.plot import LINES

DIGITS = (0, 2, 2, 2)  # decimal places of each column

Scores = dict[str, list[float]]  # method -> [mean, low, high]


def draw_scores(
    axes: Axes, header: Sequence[str], columns: Sequence[Scores], baselines: Sequence[str]
) -> None:
    """Draw the table of scores, sorted by the first column; baselines in gray."""
    names = sorted(columns[0], key=lambda name: -columns[0][name][0])
    cells = [
        [_title(name)]
        + [_cell(column.get(name), digits) for column, digits in zip(columns, DIGITS, strict=True)]
        for name in names
    ]
    axes.set_axis_off()
    box, edges = Bbox.unit(), "horizontal"
    table = axes.table(cells, colLabels=header, cellLoc="center", bbox=box, edges=edges)
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (row, _), cell in table.get_celld().items():
        is_baseline = row > 0 and names[row - 1] in baselines
        cell.set(linewidth=1.2 if row == 0 else 0.3, height=2.4 if row == 0 else 1)
        weight, color = "bold" if row == 0 else "normal", "0.45" if is_baseline else "black"
        cell.get_text().set(weight=weight, color=color)


def draw_cascades(axes: Axes, layers: Sequence[str], cascades: dict[str, np.ndarray]) -> None:
    """Draw the change of maps as layers are randomized.

    Args:
        axes: The axes to draw on.
        layers: The layers, from the logits down.
        cascades: Rank correlations (n, layers) of each method.
    """
    for number, (name, correlations) in enumerate(cascades.items()):
        means = [1, *correlations.mean(0)]
        style = f"{'-' if number < len(LINES) else '--'}o"
        color = LINES[number % len(LINES)]
        axes.plot(means, style, color=color, markersize=3, label=_title(name))
    axes.set_xticks(range(len(layers) + 1), ["trained", *layers])
    axes.set_xlabel("randomized, this layer and all above")
    axes.set_ylabel("rank correlation with the\nmap of the trained network")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _title(name: str) -> str:
    return name.replace("_plus_plus", "++").replace("_", " ")


def _cell(values: list[float] | None, digits: int) -> str:
    """Format a mean and its interval."""
    if not values:
        return ""
    mean, low, high = (f"{value:z.{digits}f}" for value in values)
    return f"{mean}  ({low} to {high})"
