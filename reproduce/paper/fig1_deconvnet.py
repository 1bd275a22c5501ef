"""Figure 1: a deconvnet layer attached to a convnet layer, and the unpooling with its switches.

The paper's claim: max pooling is inverted approximately by recording where each maximum was, and putting the value back there.
Windows of 3 x 3 at stride 2 overlap, so two windows may record the same place; the deconvnet must then add their values, as the
transpose of pooling does. The usual unpooling keeps one of them. We draw both from an actual trace, and measure the difference.
"""

import matplotlib.patches as shapes
import numpy as np
import torch
import torch.nn.functional as F

import zfnet
from reproduce.core.figure import Figure, Result
from zfnet.deconv import backproject, unpool
from zfnet.plot import new_figure

FIGURE = Figure(
    id="fig1",
    title="The deconvnet, and unpooling with switches",
    claim="Unpooling puts each value back where its switch points; where overlapping windows share a maximum, the values add.",
    inputs=("model", "images"),
    seed=1,
    time_budget=20,
    config={"images": 24, "layer": "conv5"},
    network="chain",
)
CELLS = 7  # side of the drawn region of the feature map: three windows of 3 x 3 at stride 2


def compute(ctx) -> Result:
    chosen = np.linspace(0, len(ctx.images) - 1, FIGURE.config["images"]).astype(int)
    x = ctx.images.batch(chosen).to(ctx.device)
    t = zfnet.trace(ctx.model, x)
    shared = {name: share_of_shared(switches) for name, switches in t.switches.items()}
    strongest = t["conv5"].amax((2, 3)).argmax(1)
    right, wrong = (
        zfnet.project(ctx.model, x, "conv5", strongest, collision=c).pixels.flatten(1)
        for c in ("sum", "overwrite")
    )
    alike = F.cosine_similarity(right, wrong)
    measured = {
        "pooled cells that share a switch": shared,
        "cosine of overwriting with summing, conv5 projections": {
            "mean": float(alike.mean()),
            "lowest": float(alike.min()),
        },
        "projections changed by overwriting": float((alike < 0.999).float().mean()),
    }
    arrays = example(ctx.model, x[:1])
    kept = {
        how: float(arrays[how].sum() / arrays["signal"].sum()) for how in ("summed", "overwritten")
    }
    measured["share of the drawn signal that is kept"] = kept
    summing_matters = min(shared.values()) > 0.01 and float(alike.mean()) < 0.99
    verdict = "reproduced" if np.isclose(kept["summed"], 1) and summing_matters else "differs"
    return Result(
        arrays,
        measured,
        verdict,
        n=len(x),
        note="Drawn: the first image, its strongest conv5 unit, and the region with a shared maximum and the most signal.",
    )


def share_of_shared(switches: torch.Tensor) -> float:
    """The share of pooled cells whose maximum is also that of another window of the same map."""
    flat = switches.flatten(2).flatten(0, 1)
    counts = torch.zeros(len(flat), int(flat.max()) + 1, dtype=torch.int64, device=flat.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    return float((counts.gather(1, flat) > 1).float().mean())


def example(model, x) -> dict[str, np.ndarray]:
    """A region of conv1 under 3 x 3 pooled cells, and the signal that the strongest conv5 unit sends down to them.

    Of all regions in which two windows share a maximum and both receive a signal, the one with the strongest signal.
    """
    t = zfnet.trace(model, x, until="conv5")
    strongest = int(t["conv5"].flatten().argmax())
    seed = torch.zeros_like(t["conv5"]).flatten()
    seed[strongest] = t["conv5"].flatten()[strongest]
    signal = backproject(t, seed.view_as(t["conv5"]), until="pool1")[
        0
    ]  # (96, 55, 55), what pool1 has to unpool
    maps, pooled, switches = t["conv1"][0], t["pool1"][0], t.switches["pool1"][0]

    def regions(values):  # every 3 x 3 block of pooled cells: (C, 53, 53, 9)
        return values.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)

    blocks = regions(signal.relu())
    owner = regions(switches)
    pairs = (
        (owner[..., :, None] == owner[..., None, :])
        & (blocks[..., :, None] > 0)
        & (blocks[..., None, :] > 0)
    )
    shared = pairs.flatten(3).sum(3) > (blocks > 0).sum(3)  # more pairs than each cell with itself
    score = torch.where(
        shared, (blocks > 0).sum(3) + blocks.sum(3) / blocks.sum(3).max(), torch.zeros(())
    )
    channel, r, c = (int(i) for i in torch.unravel_index(score.argmax(), score.shape))

    below, above = (
        (slice(2 * r, 2 * r + CELLS), slice(2 * c, 2 * c + CELLS)),
        (slice(r, r + 3), slice(c, c + 3)),
    )
    width = maps.shape[2]
    place = switches[channel][above]
    local = (
        (place // width - 2 * r) * CELLS + place % width - 2 * c
    )  # the switches, within the region
    down = signal[channel][above]
    down = (100 * down / down.max()).round() / 100  # as it is drawn: the drawn numbers add up
    pool = next(step.module for step in t.steps if step.name == "pool1")
    summed, overwritten = (
        unpool(down[None, None], local[None, None], (CELLS, CELLS), pool, how)[0, 0]
        for how in ("sum", "overwrite")
    )
    found = {
        "region": maps[channel][below], "pooled": pooled[channel][above], "switches": local,
        "signal": down, "summed": summed, "overwritten": overwritten,
    }  # fmt: skip
    return {name: values.cpu().numpy() for name, values in found.items()}


def draw(result: Result):
    figure = new_figure(11, 6.8)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 0.92))
    diagram(upper.subplots())
    a = result.arrays
    axes = lower.subplots(1, 5, width_ratios=(7, 4, 4, 7, 7))
    colours = {
        s: f"C{i}"
        for i, s in enumerate(
            sorted({int(v) for v in a["switches"].flat if (a["switches"] == v).sum() > 1})
        )
    }
    grid(
        axes[0],
        a["region"],
        "1. a region of a conv1 map, and\nthe maxima of its 3 x 3 windows",
        colours,
        a["switches"],
    )
    grid(axes[1], a["pooled"], "2. max pooled,\nwith switches", colours, cell=a["switches"])
    top = a["summed"].max()  # signals are in one grey scale
    grid(
        axes[2],
        a["signal"],
        "3. signal from above\n(largest = 1)",
        colours,
        cell=a["switches"],
        top=top,
    )
    grid(
        axes[3],
        a["summed"],
        "4. unpooled at the switches:\nshared ones add",
        colours,
        a["switches"],
        top=top,
    )
    grid(
        axes[4],
        a["overwritten"],
        "the same by overwriting:\nsignal is lost",
        colours,
        a["switches"],
        top=top,
    )
    return {"fig1.png": figure}


def grid(axes, values, title, colours, switches=None, cell=None, top=None):
    """Numbers on squares; a frame marks a switch, a coloured one a switch that several windows share."""
    n = len(values)
    axes.imshow(
        values, cmap="Greys", vmin=0, vmax=1.6 * (values.max() if top is None else top) or 1
    )
    for r in range(n):
        for c in range(n):
            size = 7 if n > 3 else 8
            axes.text(
                c,
                r,
                f"{values[r, c]:.2f}" if values[r, c] else "0",
                ha="center",
                va="center",
                fontsize=size,
                color="0.1" if values[r, c] else "0.6",
            )
            flat = r * n + c
            marked = switches is not None and (switches == flat).any()
            colour = (
                colours.get(flat, "0.25")
                if marked
                else colours.get(int(cell[r, c]))
                if cell is not None
                else None
            )
            if colour:
                axes.add_patch(
                    shapes.Rectangle(
                        (c - 0.44, r - 0.44),
                        0.88,
                        0.88,
                        fill=False,
                        edgecolor=colour,
                        linewidth=2.2 if colour != "0.25" else 1,
                    )
                )
    axes.set_title(title)
    axes.set(xticks=(), yticks=())
    for spine in axes.spines.values():
        spine.set(visible=True, color="0.75")


def diagram(axes):
    """The paper's left half: up through a convnet layer on the right, down through a deconvnet layer on the left."""
    rectify = "Rectified linear $\\max(0, x)$"
    for x, texts, colour in (
        (2, ("Layer below, reconstructed", "Transposed filters $F^T$", rectify, "Max unpooling", "From above"), "#f5e7d8"),
        (8, ("Layer below", "Filters $F$", rectify, "Max pooling", "Pooled maps"), "#dfe8f5"),
    ):  # fmt: skip
        for level, text in enumerate(texts):
            box = shapes.FancyBboxPatch(
                (x - 1.9, level - 0.27),
                3.8,
                0.54,
                boxstyle="round,pad=0.02",
                facecolor=colour,
                edgecolor="0.3",
            )
            axes.add_patch(box)
            axes.text(x, level, text, ha="center", va="center", fontsize=9)
        for level in range(len(texts) - 1):
            low, high = (x, level + 0.3), (x, level + 0.7)
            axes.annotate(
                "",
                low if x == 2 else high,
                high if x == 2 else low,
                arrowprops={"arrowstyle": "-|>", "color": "0.2"},
            )
    axes.annotate(
        "", (3.95, 3), (6.05, 3), arrowprops={"arrowstyle": "-|>", "color": "C3", "linestyle": "--"}
    )
    axes.text(5, 3.12, "switches", ha="center", color="C3")
    axes.text(2, 4.55, "deconvnet", ha="center", weight="bold")
    axes.text(8, 4.55, "convnet", ha="center", weight="bold")
    axes.set(xlim=(-0.2, 10.2), ylim=(-0.5, 4.9))
    axes.set_axis_off()
