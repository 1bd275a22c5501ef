"""What every layer does over many images: dead filters, sparsity, and the distribution of activations with its quantiles.

What the paper says (section 4.1, Fig. 6): AlexNet's layer 1 has dead filters, ZFNet's choice of 7 x 7 filters at stride 2 has
fewer. What lectures add: a rectified layer is silent most of the time, the higher ones more (layer 6 is not), and the
activations that are left are spread over orders of magnitude. Quantiles are of all activations of a layer, zeros included.
"""

import numpy as np

from reproduce.core.claims import verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.shared import FEW, spread, subset
from zfnet.analysis.statistics import RELATIVE_ERROR, population
from zfnet.plot import LINES, new_figure

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
FIGURE = Figure(
    id="activations",
    title="Dead filters, sparsity, and the distribution of activations",
    claim="Hardly a filter of layers 1-5 is dead (at most 1 %), and every layer is silent most of the time, layer 7 more than "
    "layer 1.",
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


def compute(ctx) -> Result:
    samples = ctx.corpus == SAMPLES
    chosen = spread(ctx, FIGURE.config["images of samples" if samples else "images"])
    arrays, measured = {}, {}
    for layer, p in population(
        ctx.model, subset(ctx, chosen), LAYERS, progress=ctx.progress
    ).items():
        quantiles = p.quantile(FIGURE.config["quantiles"]).numpy()
        positive = (p.values > 0) & (p.counts > 0)
        arrays |= {
            f"{layer}.values": p.values[positive].numpy(), f"{layer}.counts": p.counts[positive].numpy(),
            f"{layer}.quantiles": quantiles, f"{layer}.excited": p.excited.numpy(),
        }  # fmt: skip
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
    claims, found = judge(measured)
    note = f"Over {len(chosen)} images, spread evenly over the corpus, and all positions; rectified, before pooling. Dead: "
    note += "above zero nowhere in any of these images."
    if samples or len(chosen) < FEW:
        found, note = "not comparable", note + " Too few different pictures to call a filter dead."
    return Result(arrays, measured | {"claims": claims}, found, n=len(chosen), note=note)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Which claims hold; the verdict: reproduced if all do, differs if none."""
    held = {
        f"at most 1 % of {layer} is dead": m[layer]["dead"] <= 0.01 * m[layer]["maps or units"] for layer in LAYERS[:5]
    } | {
        "every layer is above zero for less than half": all(m[layer]["sparsity, %"] > 50 for layer in LAYERS),
        "layer 7 is sparser than layer 1": m["fc7"]["sparsity, %"] > m["conv1"]["sparsity, %"],
    }  # fmt: skip
    return verdict(held)


def draw(result: Result):
    a, m = result.arrays, result.measured
    figure = new_figure(13.5, 6.2)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    edges = np.arange(-4, 3.01, 0.1)  # of log10
    for panel, layer in zip(above.subplots(1, len(LAYERS), sharey=True), LAYERS, strict=True):
        counts = a[f"{layer}.counts"]
        shares = (
            np.histogram(np.log10(a[f"{layer}.values"]), edges, weights=counts)[0] / counts.sum()
        )
        panel.fill_between(edges[:-1] + 0.05, 100 * shares, step="mid", color="0.8", linewidth=0)
        for q, value, colour in zip(
            FIGURE.config["quantiles"], a[f"{layer}.quantiles"], LINES, strict=False
        ):
            if value > 0:
                panel.axvline(np.log10(value), color=colour, linewidth=1.4, label=f"{100 * q:g} %")
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
        lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), frameon=False,
        title=f"Quantiles of all activations of {result.n} images, zeros included (a quantile of zero has no line)",
    )  # fmt: skip
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
    for layer, colour in zip(LAYERS, (*LINES, "black"), strict=True):
        excited = 100 * np.sort(a[f"{layer}.excited"])[::-1]
        right.plot(
            100 * (np.arange(len(excited)) + 0.5) / len(excited), excited, color=colour, label=layer
        )
    right.set(
        xlim=(0, 100), ylim=(0, 102), xlabel="maps or units of the layer, in order, %", ylabel="images that excite it, %",
        title="How many images excite each map",
    )  # fmt: skip
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return {"activations.png": figure}
