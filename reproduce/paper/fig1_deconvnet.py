"""Figure 1: a deconvnet layer attached to a convnet layer, and unpooling with its switches.

The paper's claim: max pooling is inverted approximately by recording the position of each maximum,
and putting the value back there. Windows of 3 x 3 at stride 2 overlap, so two windows may record
the same position. The deconvnet must then add their values, as the transpose of pooling does. The
usual unpooling keeps one of them. We draw both from an actual trace, and measure the difference.
"""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure as Picture
from torch import Tensor

import zfnet
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.paper.fig1_pictures import draw_unpooling
from zfnet.deconv import backproject, unpool
from zfnet.forward import Trace
from zfnet.model import Network

FIGURE = Figure(
    id="fig1",
    title="The deconvnet, and unpooling with switches",
    claim="Unpooling puts each value back where its switch points. Where overlapping windows share "
    "a maximum, the values add.",
    inputs=("model", "images"),
    seed=1,
    time_budget=20,
    config={"images": 24, "layer": "conv5"},
    version=3,
    network="chain",
)
CELLS = 7  # side of the drawn region of the feature map: three windows of 3 x 3 at stride 2


def compute(ctx: Context) -> Result:
    rows = np.linspace(0, len(ctx.images) - 1, FIGURE.config["images"]).astype(int)
    x = ctx.images.batch(rows).to(ctx.device)
    t = zfnet.trace(ctx.model, x)
    shared = {name: shared_switches(switches) for name, switches in t.switches.items()}
    if not any(shared.values()):  # VGG's windows, for example
        note = "No two pooling windows of this network overlap, so none share a maximum."
        return Result({}, {}, "not run", n=len(x), note=note)
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
        "share of pooled cells with a shared switch": shared,
        "cosine between conv5 projections by overwriting and by adding": {
            "mean": float(cosine.mean()),
            "lowest": float(cosine.min()),
        },
        "share of projections that overwriting changes": float((cosine < 0.999).float().mean()),
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
        f"Of pool1's cells, {100 * shared['pool1']:.0f} % share their maximum with another; adding "
        "the values that meet keeps the whole drawn signal, and overwriting keeps "
        f"{100 * remaining_share['overwritten']:.0f} % of it."
    )
    reason = (
        f"The mean cosine between projections by overwriting and by adding is {cosine.mean():.3f}, "
        f"and adding keeps {100 * remaining_share['summed']:.1f} % of the drawn signal."
    )
    return Result(
        arrays, measured, verdict, n=len(x), note=note, finding=finding,
        reason="" if holds else reason,
    )  # fmt: skip


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
    return {"fig1.png": draw_unpooling(result)}
