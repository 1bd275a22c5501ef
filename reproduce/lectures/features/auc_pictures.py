"""Draw areas under the ROC curve (AUC): of all units of a layer, and of the best per layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reproduce.core.page import SMALL
from reproduce.lectures.features.unit_selection import CONTROLS, HELD_OUT, LIMITS
from zfnet.plot import LINES


def draw_distribution(axes: Axes, a: dict[str, np.ndarray], label: str) -> None:
    """The AUC of every unit of layer 5, and with permuted labels."""
    bins, chance, units = (
        np.linspace(0, 1, 41).tolist(),
        a[f"{label}.{CONTROLS[0]}"],
        a[f"{label}.units"],
    )
    weights = np.full(len(chance), len(units) / len(chance))
    axes.hist(chance, bins, weights=weights, color="0.8", label="permuted labels")
    axes.hist(units, bins, histtype="step", color=LINES[0], linewidth=1.6, label="layer 5")
    axes.set(xlim=(0.1, 1), xlabel=f"AUC for {label}", ylabel="units")
    axes.legend(frameon=False, loc="upper left", fontsize=SMALL, handlelength=1)


def draw_layers(axes: Axes, row: dict[str, Any]) -> None:
    """The AUC of the best unit of each layer on the classes that did not choose it."""
    mean, low, high = np.array(list(row[HELD_OUT].values())).T
    axes.errorbar(
        range(len(mean)), mean, yerr=(mean - low, high - mean), fmt="o", color=LINES[0], capsize=3
    )
    for control, style in zip(CONTROLS, (":", "--"), strict=True):
        limit = row[LIMITS.format(control)][0]
        axes.axhline(limit, color="0.5", linestyle=style, label=control)
    axes.set_xticks(range(len(mean)), [str(n + 1) for n in range(len(mean))])
    axes.set(ylim=(0.3, 1), xlabel="layer", ylabel="AUC, held-out classes")
    axes.legend(frameon=False, loc="lower right", fontsize=SMALL)
