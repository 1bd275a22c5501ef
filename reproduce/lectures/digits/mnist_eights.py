"""MNIST: the eights with the largest and the smallest logit of 8.

Lectures look at both groups and conclude that thin and right-leaning eights are weak. Here slant,
stroke thickness and hole area are measured on every 8 (zfnet/analysis/shapes.py), for the tenth
with the largest and the tenth with the smallest logit of 8. A claim holds if the groups differ
beyond the interval. A network may also respond weakly to unusual eights of either kind, so the
distance from the mean 8 is compared too. The network was trained on most of these eights;
correlations are also given for the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from reproduce.core.claims import above, below, verdict
from reproduce.core.context import Context
from reproduce.core.digits import gray
from reproduce.core.figure import Figure, Result
from reproduce.core.page import SMALL, caption, new_page, set_finding
from zfnet.analysis.intervals import correlation_interval, difference_interval, mean_interval
from zfnet.analysis.shapes import hole_area, slant, thickness
from zfnet.plot import LINES, mosaic, show

FIGURE = Figure(
    id="mnist_eights",
    title="The eights with the largest and the smallest logit of 8",
    claim="Thin and right-leaning eights have small logits.",
    inputs=("digits",),
    seed=0,
    time_budget=150,
    config={"digit": 8, "share": 0.1, "shown": 24},
    manual=True,
    corpus="mnist",
    trains=True,
)
QUALITIES = {
    "slant": (slant, "degrees to the right"),
    "thickness": (thickness, "pixels"),
    "hole area": (hole_area, "pixels"),
}
GROUPS = ("strongest", "weakest")


def compute(ctx: Context) -> Result:
    config, digits = FIGURE.config, ctx.dataset("digits")
    parts = [
        part.batch(np.flatnonzero(part.labels == config["digit"]))
        for part in (digits.train, digits.test)
    ]
    x, held_out = torch.cat(parts), np.repeat((False, True), [*map(len, parts)])
    logits = torch.cat([digits.model(some) for some in x.split(500)])
    logit = logits[:, config["digit"]].numpy()
    order, size = np.argsort(-logit, kind="stable"), max(round(len(x) * config["share"]), 2)
    groups: dict[str, np.ndarray] = dict(
        zip(GROUPS, (order[:size], order[-size:][::-1].copy()), strict=True)
    )
    qualities = {
        name: measure(gray(x)).double().numpy() for name, (measure, _) in QUALITIES.items()
    }
    measured: dict = {
        "eights": len(x),
        "not trained on": int(held_out.sum()),
        "accuracy, %": digits.accuracy,
        "in a group": size,
        "taken for another digit": {
            name: int((logits[i].argmax(1) != config["digit"]).sum()) for name, i in groups.items()
        },
    }
    measured |= {
        name: compare(values, logit, groups, held_out) for name, values in qualities.items()
    }
    claims, outcome = judge(measured)
    shown = np.concatenate([i[: config["shown"]] for i in groups.values()])
    arrays = {"shown": gray(x[torch.from_numpy(shown)]).numpy(), "logit": logit}
    arrays |= qualities | groups
    note = (
        f"All {len(x)} eights; the network was not trained on {int(held_out.sum())} of them. The "
        "groups are the tenths with the largest and the smallest logit. 95 % intervals by "
        "bootstrap."
    )
    measured |= {"claims": claims}
    return Result(arrays, measured, outcome, n=len(x), note=note, scale=digits.scale)


def compare(
    values: np.ndarray, logit: np.ndarray, groups: dict[str, np.ndarray], held_out: np.ndarray
) -> dict[str, list[float]]:
    """Compare an attribute between the groups, and with the logit.

    Args:
        values: The attribute (N,).
        logit: The logit of 8, (N,).
        groups: The rows of each group.
        held_out: The eights that the network was not trained on (N,) bool.
    """
    rows = {"all eights": mean_interval(values, seed=FIGURE.seed)}
    rows |= {group: mean_interval(values[i], seed=FIGURE.seed) for group, i in groups.items()}
    from_mean = np.abs(values - values.mean())
    for suffix, of in (("", values), (", in distance from the mean of all", from_mean)):
        rows[f"weakest less strongest{suffix}"] = difference_interval(
            of[groups["weakest"]], of[groups["strongest"]], seed=FIGURE.seed
        )
    rows["correlation with the logit"] = correlation_interval(values, logit, seed=FIGURE.seed)
    rows["correlation, eights not trained on"] = correlation_interval(
        values[held_out], logit[held_out], seed=FIGURE.seed
    )
    return rows


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Weak eights are thinner and lean further to the right, each beyond the interval."""
    results = {
        "the weakest eights are thinner than the strongest": below(
            m["thickness"]["weakest less strongest"]
        ),
        "the weakest eights lean further to the right": above(m["slant"]["weakest less strongest"]),
    }
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    a, m = result.arrays, result.measured
    figure = new_page(6.2)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.5)).flat
    shown = 1 - np.repeat(a["shown"][..., None], 3, axis=3)
    halves = zip(top.subplots(1, 2), GROUPS, np.split(shown, 2), strict=True)
    for axes, group, tiles in halves:
        logit, wrong = a["logit"][a[group]], m["taken for another digit"][group]
        title = f"{group} tenth: logit {logit.min():.1f} to {logit.max():.1f}"
        title += f", {wrong} predicted as another digit" if wrong else ""
        show(axes, mosaic(tiles, 8, gap=1, background=0.8))
        caption(axes, title, 60)
    for axes, (name, (_, unit)) in zip(bottom.subplots(1, 3), QUALITIES.items(), strict=True):
        draw_quality(axes, a, m[name], name)
        axes.set(xlabel="logit of 8", ylabel=f"{name}, {unit}")
    thin, lean = (m[name]["weakest less strongest"][0] for name in ("thickness", "slant"))
    set_finding(
        figure,
        f"The weakest tenth of {m['eights']:,} eights differs from the strongest by {thin:+.1f} "
        f"pixels of thickness and by {lean:+.0f} degrees of slant to the right",
    )
    return {"mnist_eights.png": figure}


def draw_quality(axes: Axes, a: dict[str, np.ndarray], row: dict, name: str) -> None:
    """Draw an attribute of all eights against the logit, with the means of both groups."""
    axes.scatter(a["logit"], a[name], s=5, color="0.75", linewidths=0)
    for group, color in zip(GROUPS, LINES, strict=False):
        mean, low, high = row[group]
        logit = a["logit"][a[group]]
        axes.scatter(logit, a[name][a[group]], s=6, color=color, linewidths=0)
        axes.errorbar(
            logit.mean(), mean, ([mean - low], [high - mean]), color="black", marker="D",
            markersize=6, markerfacecolor=color, capsize=4, label=f"{group}: {mean:.1f}",
        )  # fmt: skip
    r, low, high = row["correlation with the logit"]
    caption(axes, f"r = {r:.2f} [{low:.2f}, {high:.2f}]")
    axes.margins(y=0.12)
    axes.legend(
        fontsize=SMALL + 1, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2,
        columnspacing=1, handletextpad=0.2,
    )  # fmt: skip
