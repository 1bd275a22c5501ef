"""The pictures of bench_speed: seconds per task and method, and how ours grow with the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reproduce.bench.comparison import CAPTUM, OURS, PLAIN, ZENNIT
from reproduce.bench.networks_race import BOUND
from reproduce.core.page import interval_bars, new_page, set_finding
from reproduce.site.text import number
from zfnet.plot import LINES

COLORS = {  # of the bars
    OURS: LINES[0],
    PLAIN: LINES[1],
    ZENNIT: LINES[2],
    CAPTUM: LINES[3],
    "forward pass": "0.6",
    "k = 9": LINES[0],
    "k = 1000": LINES[5],
}
SIZES = {  # of the tasks that grow
    "stride": "occlusion: stride, pixels",
    "occluder": "occlusion: side of the occluder, pixels",
    "features": "projection: features of layer 5",
    "images": "search: images",
}


def draw_tasks(measured: Mapping[str, Any], tasks: Sequence[str]) -> Picture:
    """Draw the seconds of each method: median, least and most.

    Args:
        measured: The record's numbers.
        tasks: The names of the tasks in it.
    """
    figure = new_page(4.4)
    for axes, name in zip(figure.subplots(2, 2).flat, tasks, strict=True):
        task = measured[name]
        seconds = {key: task[f"{key}, seconds"] for key in COLORS if f"{key}, seconds" in task}
        interval_bars(axes, seconds, [COLORS[key] for key in seconds], "")
        for row, values in enumerate(seconds.values()):
            text = f"{number(float(values[0]))} s"
            axes.annotate(text, (values[2], row), (4, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.2 * max(values[2] for values in seconds.values()))
        axes.set(title=name, xlabel="seconds")
    faster = [measured[name][f"{PLAIN} over {OURS}"][0] for name in tasks[:3]]
    set_finding(
        figure,
        f"Against the plain computation, ours is {number(faster[0])} times as fast in the "
        f"occlusion of one image, {number(faster[1])} times of 16, and {number(faster[2])} times "
        "in projection (median, least and most)",
    )
    return figure


def draw_growth(arrays: Mapping[str, np.ndarray]) -> Picture:
    """Draw our seconds against the size of a task, with logarithmic axes."""
    figure = new_page(4.6)
    grid = figure.subplots(2, 2)
    for axes, (name, label) in zip(grid.flat, SIZES.items(), strict=True):
        _draw_line(axes, arrays[f"{name}.at"], arrays[f"{name}.seconds"])
        axes.set(xlabel=label, ylabel="seconds")
    at, seconds = arrays["images.at"], arrays["images.seconds"][:, 0]
    set_finding(
        figure,
        f"From {at[0]:,.0f} to {at[-1]:,.0f} images the search takes "
        f"{seconds[-1] / seconds[0]:.0f} times as long (median; band: least and most)",
    )
    return figure


def _draw_line(axes: Axes, at: np.ndarray, seconds: np.ndarray) -> None:
    """Draw seconds (n, 3), each [median, least, most], against sizes (n,)."""
    median, least, most = seconds.T
    axes.fill_between(at, least, most, color=LINES[0], alpha=0.25, linewidth=0)
    axes.loglog(at, median, color=LINES[0], marker="o", markersize=4)
    axes.minorticks_off()
    axes.set_xticks(at, [f"{v:,.0f}" for v in at])
    # One, two and five in every decade, so that a short axis has ticks too.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def draw_networks(networks: Mapping[str, Mapping[str, Any]]) -> Picture:
    """Draw the other methods' times over ours by network, and the counted bound as a line."""
    figure = new_page(3.4)
    axes, first = figure.subplots(), next(iter(networks.values()))
    methods = [name for name in (PLAIN, CAPTUM, ZENNIT) if f"{name} over {OURS}" in first]
    width = 0.8 / len(methods)
    for i, entry in enumerate(networks.values()):
        for j, method in enumerate(methods):
            median, least, most = entry[f"{method} over {OURS}"]
            place, error = i - 0.4 + (j + 0.5) * width, [[median - least], [most - median]]
            label = f"{method} over {OURS}" if i == 0 else None
            axes.bar(place, median, width, color=COLORS[method], yerr=error, capsize=2, label=label)
            text = number(float(median))
            axes.annotate(text, (place, most), (0, 2), textcoords="offset points", ha="center")
        label = BOUND if i == 0 else None
        axes.plot([i - 0.42, i + 0.42], [entry[BOUND]] * 2, color="black", label=label)
    axes.set_xticks(range(len(networks)), list(networks))
    axes.set_ylabel("time over ours")
    axes.legend()
    name, entry = max(networks.items(), key=lambda item: item[1][f"{PLAIN} over {OURS}"][0])
    ratio = number(float(entry[f"{PLAIN} over {OURS}"][0]))
    set_finding(
        figure,
        f"Occlusion of one image gains most on {name}: {ratio} times the speed of the plain "
        "computation (median, least and most)",
    )
    return figure
