"""Activations of every layer over many images: dead filters, sparsity, and quantiles.

Section 4.1 and Fig. 6 of the paper: AlexNet's layer 1 has dead filters, and ZFNet's 7 x 7 filters
at stride 2 have fewer. Lectures add that a rectified layer is mostly zero, higher layers more so
(layer 6 is an exception), and that the remaining activations span orders of magnitude. Quantiles
are of all activations of a layer, zeros included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.lectures.sampling import MIN_IMAGES, spread_indices, subset
from zfnet.analysis.statistics import RELATIVE_ERROR, population
from zfnet.plot import LINES

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
SHOWN = ("conv1", "conv3", "conv5", "fc7")  # the layers with a histogram
FIGURE = Figure(
    id="activations",
    title="Dead filters, sparsity, and the distribution of activations",
    claim="At most 1 % of the filters of layers 1-5 are dead. Every layer is mostly zero, and "
    "layer 7 more than layer 1.",
    inputs=("model", "images"),
    seed=1,
    time_budget=7,
    config={
        "layers": LAYERS,
        "images": 2000,
        "images of samples": 96,
        "quantiles": [0.5, 0.9, 0.99, 0.999],
    },
    version=2,
    network="chain",
)


def compute(ctx: Context) -> Result:
    samples = ctx.corpus == SAMPLES
    chosen = spread_indices(ctx, FIGURE.config["images of samples" if samples else "images"])
    arrays, measured = {}, {}
    for layer, p in population(
        ctx.model, subset(ctx, chosen), LAYERS, progress=ctx.progress
    ).items():
        quantiles = p.quantile(FIGURE.config["quantiles"]).numpy()
        positive = (p.values > 0) & (p.counts > 0)
        arrays |= {
            f"{layer}.values": p.values[positive].numpy(),
            f"{layer}.counts": p.counts[positive].numpy(),
            f"{layer}.quantiles": quantiles,
            f"{layer}.active": p.excited.numpy(),
        }
        measured[layer] = {
            "maps or units": len(p.dead),
            "dead": int(p.dead.sum()),
            "sparsity, %": 100 * p.sparsity,
            "images that activate a map, median %": 100 * float(np.median(p.excited)),
            **{
                f"quantile {q}": float(v)
                for q, v in zip(FIGURE.config["quantiles"], quantiles, strict=True)
            },
        }
    measured["relative error of quantiles, %"] = 100 * RELATIVE_ERROR
    claims, outcome = judge(measured)
    note = (
        f"The {len(chosen)} images are evenly spread over the corpus. All positions count, after "
        "the ReLU and before pooling. A filter is dead if it is zero at every position of these "
        "images."
    )
    if samples or len(chosen) < MIN_IMAGES:
        outcome, note = "not comparable", note + " Too few different images to call a filter dead."
    return Result(
        arrays,
        measured | {"claims": claims},
        outcome,
        n=len(chosen),
        note=note,
        finding=state_finding(measured, len(chosen)),
        reason=state_reason(measured, outcome),
    )


def state_finding(m: dict, images: int) -> str:
    """Summarize the zeros and the dead filters."""
    dead, filters = (
        sum(m[layer][key] for layer in LAYERS[:5]) for key in ("dead", "maps or units")
    )
    return (
        f"{m['conv1']['sparsity, %']:.0f} % of the activations of layer 1 are zero, and "
        f"{m['fc7']['sparsity, %']:.0f} % of layer 7; {dead} of {filters:,} filters of layers 1-5 "
        f"are zero on all {images:,} images."
    )


def state_reason(m: dict, outcome: str) -> str:
    """Name the layers that miss the claims."""
    if outcome == "not comparable":
        return "The photographs are too few to find dead filters."
    dead = [
        f"{layer} ({m[layer]['dead']})"
        for layer in LAYERS[:5]
        if m[layer]["dead"] > 0.01 * m[layer]["maps or units"]
    ]
    dense = [
        f"{layer} ({m[layer]['sparsity, %']:.0f} %)"
        for layer in LAYERS
        if m[layer]["sparsity, %"] <= 50
    ]
    misses = [f"More than 1 % of the filters are dead in {', '.join(dead)}."] if dead else []
    misses += [f"At most half of the activations are zero in {', '.join(dense)}."] if dense else []
    if m["fc7"]["sparsity, %"] <= m["conv1"]["sparsity, %"]:
        misses.append("Layer 7 is not sparser than layer 1.")
    return " ".join(misses)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """The claims about dead filters and sparsity."""
    results = {
        f"at most 1 % of {layer} is dead": m[layer]["dead"] <= 0.01 * m[layer]["maps or units"]
        for layer in LAYERS[:5]
    } | {
        "in every layer less than half of the activations are above zero": all(
            m[layer]["sparsity, %"] > 50 for layer in LAYERS
        ),
        "layer 7 is sparser than layer 1": m["fc7"]["sparsity, %"] > m["conv1"]["sparsity, %"],
    }
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    a, m = result.arrays, result.measured
    figure = new_page(5.6)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.1)).flat
    draw_distributions(above, a, m)
    left, right = below.subplots(1, 2)
    draw_sparsity(left, m)
    draw_activity(right, a)
    set_finding(figure, result.finding)
    return {"activations.png": figure}


def draw_distributions(figure, a: dict[str, np.ndarray], m: dict) -> None:
    """Histograms of the activations above zero, with quantiles of all activations."""
    edges = np.arange(-4, 3.01, 0.1)  # of log10
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for panel, layer in zip(panels, SHOWN, strict=True):
        counts, logarithm = a[f"{layer}.counts"], np.log10(a[f"{layer}.values"])
        shares = np.histogram(logarithm, edges, weights=counts)[0] / counts.sum()
        panel.fill_between(edges[:-1] + 0.05, 100 * shares, step="mid", color="0.8", linewidth=0)
        quantiles = zip(FIGURE.config["quantiles"], a[f"{layer}.quantiles"], LINES, strict=False)
        for q, value, color in quantiles:
            if value > 0:
                panel.axvline(np.log10(value), color=color, linewidth=1.4, label=f"{100 * q:g} %")
        panel.set(title=f"{layer}: {m[layer]['sparsity, %']:.0f} % zero", xlim=(-3, 2))
        panel.set_xticks((-2, 0, 2), ["0.01", "1", "100"])
        panel.set_xlabel("activation")
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("share of those\nabove zero, %")
    lines = {label: line for panel in panels for line, label in zip(*legend_of(panel), strict=True)}
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False,
        title="quantiles of all activations; those that are zero have no line",
    )  # fmt: skip


def legend_of(panel: Axes) -> tuple[list, list]:
    return panel.get_legend_handles_labels()


def draw_sparsity(axes: Axes, m: dict) -> None:
    """The share of zeros and the number of dead filters per layer."""
    sparsity = [m[layer]["sparsity, %"] for layer in LAYERS]
    bars = axes.bar(LAYERS, sparsity, color=LINES[0], width=0.62)
    axes.bar_label(bars, [str(m[layer]["dead"]) for layer in LAYERS], padding=2)
    axes.set_yticks(range(0, 101, 25))
    axes.set(ylim=(0, 108), ylabel="activations at zero, %")
    axes.set_title("sparsity; above the bars: dead filters")


def draw_activity(axes: Axes, a: dict[str, np.ndarray]) -> None:
    """For each layer, the share of images that activate each of its maps, sorted."""
    for layer, color in zip(LAYERS, (*LINES, "black"), strict=True):
        shares = 100 * np.sort(a[f"{layer}.active"])[::-1]
        places = 100 * (np.arange(len(shares)) + 0.5) / len(shares)
        axes.plot(places, shares, color=color, label=layer)
    axes.set(
        xlim=(0, 100), ylim=(0, 102), xlabel="maps or units, sorted, %",
        ylabel="images that activate it, %", title="how many images activate each map",
    )  # fmt: skip
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
