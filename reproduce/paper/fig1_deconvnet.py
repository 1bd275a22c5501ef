"""Figure 1: a deconvnet layer attached to a convnet layer, and unpooling with its switches.

The paper's claim: max pooling is inverted approximately by recording the position of each maximum,
and putting the value back there. Windows of 3 x 3 at stride 2 overlap, so two windows may record
the same position. The deconvnet must then add their values, as the transpose of pooling does. The
usual unpooling keeps one of them. We draw both from an actual trace, and measure the difference.
"""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from zfnet.deconv import backproject, unpool
from zfnet.forward import Trace
from zfnet.model import Network
from zfnet.plot import new_figure

FIGURE = Figure(
    id="fig1",
    title="The deconvnet, and unpooling with switches",
    claim="Unpooling puts each value back where its switch points. Where overlapping windows share "
    "a maximum, the values add.",
    inputs=("model", "images"),
    seed=1,
    time_budget=20,
    config={"images": 24, "layer": "conv5"},
    version=2,
    network="chain",
)
CELLS = 7  # side of the drawn region of the feature map: three windows of 3 x 3 at stride 2
PLAIN = "0.25"  # color of a switch that one window has


def compute(ctx: Context) -> Result:
    rows = np.linspace(0, len(ctx.images) - 1, FIGURE.config["images"]).astype(int)
    x = ctx.images.batch(rows).to(ctx.device)
    t = zfnet.trace(ctx.model, x)
    shared = {name: shared_switches(switches) for name, switches in t.switches.items()}
    strongest = t["conv5"].amax((2, 3)).argmax(1)
    summed, overwritten = (
        zfnet.project(ctx.model, x, "conv5", strongest, collision=mode).pixels.flatten(1)
        for mode in ("sum", "overwrite")
    )
    cosine = F.cosine_similarity(summed, overwritten)
    arrays = example(ctx.model, x[:1])
    signal = arrays["signal"].sum()
    remaining_share = {
        mode: float(arrays[mode].sum() / signal) for mode in ("summed", "overwritten")
    }
    measured = {
        "pooled cells that share a switch": shared,
        "cosine of overwriting with summing, conv5 projections": {
            "mean": float(cosine.mean()),
            "lowest": float(cosine.min()),
        },
        "projections changed by overwriting": float((cosine < 0.999).float().mean()),
        "share of the drawn signal that is kept": remaining_share,
    }
    summing_matters = min(shared.values()) > 0.01 and float(cosine.mean()) < 0.99
    holds = np.isclose(remaining_share["summed"], 1) and summing_matters
    verdict = "by construction" if holds else "differs"
    note = (
        "A diagram, with numbers from an actual trace. Drawn: the first image, its strongest conv5 "
        "unit, and the region with a shared maximum and the strongest signal."
    )
    finding = (
        f"Windows share {100 * shared['pool1']:.0f} % of the maxima of pool1; where overwriting "
        f"keeps one of the values that meet, {100 * remaining_share['overwritten']:.0f} % of the "
        "drawn signal is left, and adding keeps all of it."
    )
    return Result(arrays, measured, verdict, n=len(x), note=note, finding=finding)


def shared_switches(switches: Tensor) -> float:
    """The share of pooled cells whose maximum is also that of another window of the same map."""
    flat = switches.flatten(2).flatten(0, 1)  # (maps, cells)
    counts = torch.zeros(len(flat), int(flat.max()) + 1, dtype=torch.int64, device=flat.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    return float((counts.gather(1, flat) > 1).float().mean())


def example(model: Network, x: Tensor) -> dict[str, np.ndarray]:
    """A region of conv1 under 3 x 3 pooled cells, and the signal that reaches it from conv5.

    The signal starts at the strongest conv5 unit. Of all regions in which two windows share a
    maximum and both receive a signal, the one with the most cells and the strongest signal.
    """
    t = zfnet.trace(model, x, until="conv5")
    signal = _signal_to_pool1(t)  # (96, 55, 55)
    maps, pooled, switches = t["conv1"][0], t["pool1"][0], t.switches["pool1"][0]
    channel, r, c = _busiest_region(signal.relu(), switches)

    below = (channel, slice(2 * r, 2 * r + CELLS), slice(2 * c, 2 * c + CELLS))
    above = (channel, slice(r, r + 3), slice(c, c + 3))
    row, column = switches[above] // maps.shape[2], switches[above] % maps.shape[2]
    local = (row - 2 * r) * CELLS + column - 2 * c  # the switches, as indices into the region
    down = signal[above]
    down = (100 * down / down.max()).round() / 100  # rounded, so that the drawn numbers add up
    pool = next(step.module for step in t.steps if step.name == "pool1")
    assert isinstance(pool, torch.nn.MaxPool2d)
    summed, overwritten = (
        unpool(down[None, None], local[None, None], (CELLS, CELLS), pool, mode)[0, 0]
        for mode in ("sum", "overwrite")
    )
    arrays = {
        "region": maps[below],
        "pooled": pooled[above],
        "switches": local,
        "signal": down,
        "summed": summed,
        "overwritten": overwritten,
    }
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def _signal_to_pool1(t: Trace) -> Tensor:
    """What pool1 has to unpool for the strongest conv5 unit: (96, 55, 55)."""
    activation = t["conv5"].flatten()
    strongest = int(activation.argmax())
    start = torch.zeros_like(activation)
    start[strongest] = activation[strongest]
    return backproject(t, start.view_as(t["conv5"]), until="pool1")[0]


def _busiest_region(signal: Tensor, switches: Tensor) -> tuple[int, int, int]:
    """The (channel, row, column) of the 3 x 3 pooled cells with a shared switch and most signal."""

    def regions(values: Tensor) -> Tensor:
        return values.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)  # (C, 53, 53, 9)

    blocks, owners = regions(signal), regions(switches)
    active = blocks > 0
    pairs = (
        (owners[..., :, None] == owners[..., None, :]) & active[..., :, None] & active[..., None, :]
    )
    shared = pairs.flatten(3).sum(3) > active.sum(3)  # more pairs than each cell with itself
    total = blocks.sum(3)
    score = torch.where(shared, active.sum(3) + total / total.max(), torch.zeros(()))
    channel, row, column = (int(i) for i in torch.unravel_index(score.argmax(), score.shape))
    return channel, row, column


def draw(result: Result) -> dict[str, Picture]:
    figure = new_figure(11, 6.8)
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 0.92)))
    _diagram(upper.subplots())
    a = result.arrays
    axes = lower.subplots(1, 5, width_ratios=(7, 4, 4, 7, 7))
    switches, top = a["switches"], a["summed"].max()  # all signals are on one gray scale
    colors = _switch_colors(switches)
    title = "1. a region of a conv1 map, and\nthe maxima of its 3 x 3 windows"
    _grid(axes[0], a["region"], title, colors, switches)
    _grid(axes[1], a["pooled"], "2. max pooled,\nwith switches", colors, cells=switches)
    title = "3. signal from above\n(largest = 1)"
    _grid(axes[2], a["signal"], title, colors, cells=switches, top=top)
    title = "4. unpooled at the switches:\nshared ones add"
    _grid(axes[3], a["summed"], title, colors, switches, top=top)
    title = "the same by overwriting:\nsignal is lost"
    _grid(axes[4], a["overwritten"], title, colors, switches, top=top)
    return {"fig1.png": figure}


def _switch_colors(switches: np.ndarray) -> dict[int, str]:
    """A color for each switch that several windows share."""
    values, counts = np.unique(switches, return_counts=True)
    return {int(value): f"C{i}" for i, value in enumerate(values[counts > 1])}


def _grid(
    axes: Axes,
    values: np.ndarray,
    title: str,
    colors: dict[int, str],
    switches: np.ndarray | None = None,
    cells: np.ndarray | None = None,
    top: float | None = None,
) -> None:
    """Draw numbers on squares.

    Args:
        axes: The panel.
        values: (n, n), the numbers.
        title: The title.
        colors: Colors of the switches that several windows share.
        switches: Positions to frame, for values before pooling.
        cells: (n, n), the switch of each value, for values after pooling.
        top: The value drawn darkest; by default the largest.
    """
    n = len(values)
    limit = 1.6 * (values.max() if top is None else top) or 1
    axes.imshow(values, cmap="Greys", vmin=0, vmax=limit)
    for (r, c), value in np.ndenumerate(values):
        text, shade = (f"{value:.2f}", "0.1") if value else ("0", "0.6")
        size = 7 if n > 3 else 8
        axes.text(c, r, text, ha="center", va="center", fontsize=size, color=shade)
        if switches is not None and (switches == r * n + c).any():
            _frame(axes, r, c, colors.get(r * n + c, PLAIN))
        elif cells is not None and int(cells[r, c]) in colors:
            _frame(axes, r, c, colors[int(cells[r, c])])
    axes.set_title(title)
    axes.set(xticks=(), yticks=())
    for spine in axes.spines.values():
        spine.set(visible=True, color="0.75")


def _frame(axes: Axes, row: int, column: int, color: str) -> None:
    width = 1 if color == PLAIN else 2.2
    corner = (column - 0.44, row - 0.44)
    axes.add_patch(Rectangle(corner, 0.88, 0.88, fill=False, edgecolor=color, linewidth=width))


def _diagram(axes: Axes) -> None:
    """The paper's upper half: up through a convnet layer, down through a deconvnet layer."""
    rectify = "Rectified linear $\\max(0, x)$"
    deconvnet = ("Layer below, reconstructed", "Transposed filters $F^T$", rectify)
    _stack(axes, 2, (*deconvnet, "Max unpooling", "From above"), "#f5e7d8", upward=False)
    convnet = ("Layer below", "Filters $F$", rectify, "Max pooling", "Pooled maps")
    _stack(axes, 8, convnet, "#dfe8f5", upward=True)
    dashed = {"arrowstyle": "-|>", "color": "C3", "linestyle": "--"}
    axes.annotate("", (3.95, 3), (6.05, 3), arrowprops=dashed)
    axes.text(5, 3.12, "switches", ha="center", color="C3")
    axes.text(2, 4.55, "deconvnet", ha="center", weight="bold")
    axes.text(8, 4.55, "convnet", ha="center", weight="bold")
    axes.set(xlim=(-0.2, 10.2), ylim=(-0.5, 4.9))
    axes.set_axis_off()


def _stack(axes: Axes, x: float, texts: tuple[str, ...], color: str, upward: bool) -> None:
    """A column of boxes from bottom to top, with arrows between them."""
    for level, text in enumerate(texts):
        corner, style = (x - 1.9, level - 0.27), "round,pad=0.02"
        axes.add_patch(
            FancyBboxPatch(corner, 3.8, 0.54, boxstyle=style, facecolor=color, edgecolor="0.3")
        )
        axes.text(x, level, text, ha="center", va="center", fontsize=9)
    for level in range(len(texts) - 1):
        low, high = (x, level + 0.3), (x, level + 0.7)
        head, tail = (high, low) if upward else (low, high)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "0.2"})
