"""Activations of every layer over many images: dead filters, sparsity, and quantiles.

Section 4.1 and Fig. 6 of the paper: AlexNet's layer 1 has dead filters, and ZFNet's 7 x 7 filters
at stride 2 have fewer. Lectures add that a rectified layer is mostly zero, higher layers more so
(layer 6 is an exception), and that the remaining activations span orders of magnitude. Quantiles
are of all activations of a layer, zeros included.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.sampling import MIN_IMAGES, spread_indices, subset
from zfnet.analysis.statistics import RELATIVE_ERROR, population
from zfnet.plot import LINES, new_figure

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
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
            f"{layer}.excited": p.excited.numpy(),
        }
        measured[layer] = {
            "maps or units": len(p.dead),
            "dead": int(p.dead.sum()),
            "sparsity, %": 100 * p.sparsity,
            "images that excite a map, median %": 100 * float(np.median(p.excited)),
            **{
                f"quantile {q}": float(v)
                for q, v in zip(FIGURE.config["quantiles"], quantiles, strict=True)
            },
        }
    measured["a quantile is exact to, %"] = 100 * RELATIVE_ERROR
    claims, outcome = judge(measured)
    note = (
        f"Over {len(chosen)} images, evenly spread over the corpus, and all positions; rectified, "
        "before pooling. A filter is dead if it is zero at every position of these images."
    )
    if samples or len(chosen) < MIN_IMAGES:
        outcome, note = "not comparable", note + " Too few different images to call a filter dead."
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """The claims about dead filters and sparsity."""
    results = {
        f"at most 1 % of {layer} is dead": m[layer]["dead"] <= 0.01 * m[layer]["maps or units"]
        for layer in LAYERS[:5]
    } | {
        "every layer is above zero for less than half": all(
            m[layer]["sparsity, %"] > 50 for layer in LAYERS
        ),
        "layer 7 is sparser than layer 1": m["fc7"]["sparsity, %"] > m["conv1"]["sparsity, %"],
    }
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    a, m = result.arrays, result.measured
    figure = new_figure(13.5, 6.2)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.05)).flat
    edges = np.arange(-4, 3.01, 0.1)  # of log10
    for panel, layer in zip(above.subplots(1, len(LAYERS), sharey=True), LAYERS, strict=True):
        counts = a[f"{layer}.counts"]
        shares = (
            np.histogram(np.log10(a[f"{layer}.values"]), edges, weights=counts)[0] / counts.sum()
        )
        panel.fill_between(edges[:-1] + 0.05, 100 * shares, step="mid", color="0.8", linewidth=0)
        for q, value, color in zip(
            FIGURE.config["quantiles"], a[f"{layer}.quantiles"], LINES, strict=False
        ):
            if value > 0:
                panel.axvline(np.log10(value), color=color, linewidth=1.4, label=f"{100 * q:g} %")
        panel.set(
            title=f"{layer}: {m[layer]['sparsity, %']:.0f} % zero", xlim=(-3, 2), xticks=(-2, 0, 2)
        )
        panel.set_xticklabels(["0.01", "1", "100"])
    axes = above.axes
    axes[0].set_ylim(0, 1.05 * max(panel.dataLim.ymax for panel in axes))
    axes[0].set_ylabel("share of the activations\nabove zero, %")
    axes[len(LAYERS) // 2].set_xlabel("activation (logarithmic)")
    lines = {
        label: line
        for panel in axes
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    above.legend(
        lines.values(),
        lines.keys(),
        loc="outside upper center",
        ncols=len(lines),
        frameon=False,
        title=f"Quantiles of all activations of {result.n} images; quantiles of zero have no line",
    )
    left, right = below.subplots(1, 2, width_ratios=(1, 1.25))
    places = np.arange(len(LAYERS))
    sparsity = [m[layer]["sparsity, %"] for layer in LAYERS]
    bars = left.bar(places, sparsity, color=LINES[0], width=0.62)
    dead = [f"{m[layer]['dead']} of\n{m[layer]['maps or units']}\ndead" for layer in LAYERS]
    left.bar_label(bars, dead, fontsize=7.5, padding=2)
    left.set_yticks(range(0, 101, 25))
    left.set(
        ylim=(0, max(sparsity) + 24),
        ylabel="activations at zero, %",
        title="Sparsity and dead filters",
    )
    left.set_xticks(places, LAYERS)
    for layer, color in zip(LAYERS, (*LINES, "black"), strict=True):
        excited = 100 * np.sort(a[f"{layer}.excited"])[::-1]
        right.plot(
            100 * (np.arange(len(excited)) + 0.5) / len(excited), excited, color=color, label=layer
        )
    right.set(
        xlim=(0, 100),
        ylim=(0, 102),
        xlabel="maps or units, sorted, %",
        ylabel="images that activate it, %",
        title="How many images activate each map",
    )
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return {"activations.png": figure}
