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

from reproduce.core.claims import above, below, verdict
from reproduce.core.context import Context
from reproduce.core.digits import grey
from reproduce.core.figure import Figure, Result
from zfnet.analysis.intervals import correlation_interval, difference_interval, mean_interval
from zfnet.analysis.shapes import hole_area, slant, thickness
from zfnet.plot import LINES, mosaic, new_figure, show

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
    digit, parts = FIGURE.config["digit"], (ctx.dataset("digits").train, ctx.dataset("digits").test)
    x = torch.cat([part.batch(np.flatnonzero(part.labels == digit)) for part in parts])
    held_out = np.arange(len(x)) >= int((ctx.dataset("digits").train.labels == digit).sum())
    logits = torch.cat([ctx.dataset("digits").model(some) for some in x.split(500)])
    logit = logits[:, digit].numpy()
    qualities = {
        name: measure(grey(x)).double().numpy() for name, (measure, _) in QUALITIES.items()
    }
    order, size = np.argsort(-logit, kind="stable"), max(round(len(x) * FIGURE.config["share"]), 2)
    groups = dict(zip(GROUPS, (order[:size], order[-size:][::-1].copy()), strict=True))
    wrong = {name: int((logits[i].argmax(1) != digit).sum()) for name, i in groups.items()}
    measured: dict = {
        "eights": len(x),
        "not trained on": int(held_out.sum()),
        "accuracy, %": ctx.dataset("digits").accuracy,
    }
    measured |= {"in a group": size, "taken for another digit": wrong}
    for name, values in qualities.items():
        measured[name] = {"all eights": mean_interval(values, seed=FIGURE.seed)}
        measured[name] |= {
            group: mean_interval(values[i], seed=FIGURE.seed) for group, i in groups.items()
        }
        for suffix, quantity in (
            ("", values),
            (", in distance from the mean of all", np.abs(values - values.mean())),
        ):
            measured[name][f"weakest less strongest{suffix}"] = difference_interval(
                quantity[groups["weakest"]], quantity[groups["strongest"]], seed=FIGURE.seed
            )
        measured[name]["correlation with the logit"] = correlation_interval(
            values, logit, seed=FIGURE.seed
        )
        measured[name]["correlation, eights not trained on"] = correlation_interval(
            values[held_out], logit[held_out], seed=FIGURE.seed
        )
    claims, outcome = judge(measured)
    shown = np.concatenate([i[: FIGURE.config["shown"]] for i in groups.values()])
    arrays = (
        {"shown": grey(x[torch.from_numpy(shown)]).numpy(), "logit": logit} | qualities | groups
    )
    note = (
        f"All {len(x)} eights; the network was not trained on {int(held_out.sum())} of them. The "
        "groups are the tenths with the largest and the smallest logit. 95 % intervals by "
        "bootstrap."
    )
    return Result(
        arrays,
        measured | {"claims": claims},
        outcome,
        n=len(x),
        note=note,
        scale=ctx.dataset("digits").scale,
    )


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
    figure = new_figure(10, 6)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.75)).flat
    shown = np.repeat(a["shown"][..., None], 3, axis=3)
    half = len(shown) // 2
    for axes, group, tiles in zip(
        top.subplots(1, 2), GROUPS, (shown[:half], shown[half:]), strict=True
    ):
        low, high = a["logit"][a[group]].min(), a["logit"][a[group]].max()
        wrong = m["taken for another digit"][group]
        title = f"the {group} of {m['eights']:,} eights: logit {low:.1f} to {high:.1f}"
        show(
            axes,
            mosaic(1 - tiles, 8, gap=1, background=0.8),
            title + (f", {wrong} predicted as another digit" if wrong else ""),
        )
    for axes, (name, (_, unit)) in zip(bottom.subplots(1, 3), QUALITIES.items(), strict=True):
        axes.scatter(a["logit"], a[name], s=6, color="0.7", linewidths=0)
        for group, color in zip(GROUPS, LINES, strict=False):
            axes.scatter(a["logit"][a[group]], a[name][a[group]], s=7, color=color, linewidths=0)
            mean, low, high = m[name][group]
            axes.errorbar(
                a["logit"][a[group]].mean(),
                mean,
                ([mean - low], [high - mean]),
                color="black",
                marker="D",
                markersize=6,
                markerfacecolor=color,
                capsize=4,
                label=f"{group}: {mean:.1f} [{low:.1f}, {high:.1f}]",
            )
        r, low, high = m[name]["correlation with the logit"]
        axes.set_title(f"{name}: r = {r:.2f} [{low:.2f}, {high:.2f}]")
        axes.set_xlabel("logit of 8")
        axes.set_ylabel(unit)
        axes.margins(y=0.12)
        axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return {"mnist_eights.png": figure}
