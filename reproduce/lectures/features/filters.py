"""The filters of every layer: layer 1 in color, and the strongest slices of deeper filters.

The filters of layer 1 act on pixels, so a picture shows them: edges and colors, smooth after
training. A deeper filter has one slice per map below it, and a picture shows little of it. Two
numbers test this: the cosine of the weights with their neighbors to the right and below, which is 0
for noise; and the share of a filter's energy in its nine strongest slices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from reproduce.core.claims import below, every, higher, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.networks import conv_weight
from reproduce.core.page import SMALL, new_page, set_finding, show_tiles
from zfnet.analysis.intervals import mean_interval
from zfnet.graph import chain, conv_layers
from zfnet.plot import enlarge, filter_image, mosaic

FIGURE = Figure(
    id="filters",
    title="The filters of every layer",
    claim="Filters of layer 1 are smooth, and deeper ones less so. The nine strongest slices of a "
    "deeper filter hold less than half of its energy, so pictures of them are not informative.",
    inputs=("model",),
    seed=1,
    time_budget=3,
    version=2,
    config={"filters of a deeper layer": 12, "slices": 9},
    network="chain",
)
GAP = 26  # pixels between the deeper filters of the picture


def compute(ctx: Context) -> Result:
    model = ctx.model
    layers = conv_layers(chain(model))
    generator = torch.Generator().manual_seed(FIGURE.seed)
    count, k = FIGURE.config.values()
    arrays, cosines, share = {}, {}, {}
    for layer in layers:
        weight = conv_weight(model, layer)  # (filters, slices, rows, columns)
        cosines[layer] = mean_interval(smoothness(weight).numpy(), seed=FIGURE.seed)
        if layer == layers[0]:
            arrays[layer] = weight.numpy()
            continue
        energy = weight.square().sum((2, 3))  # (filters, slices)
        strongest = energy.topk(k, dim=1)
        share[layer] = mean_interval(
            (strongest.values.sum(1) / energy.sum(1)).numpy(), seed=FIGURE.seed
        )
        chosen = torch.randperm(len(weight), generator=generator)[:count].sort().values
        arrays[layer] = weight[
            chosen[:, None], strongest.indices[chosen]
        ].numpy()  # (count, 9, rows, columns)
        arrays[f"{layer}.slices"] = np.array(weight.shape[1])
        arrays[f"{layer}.channels"] = chosen.numpy()
    first = torch.from_numpy(arrays[layers[0]])
    gray = 3 * first.mean(1).square().sum((1, 2)) / first.square().sum((1, 2, 3))
    measured = {
        "cosine of weights with their neighbors": cosines,
        "share of a filter's energy in its nine strongest slices": share,
        "share if all slices had the same energy": {
            layer: k / int(arrays[f"{layer}.slices"]) for layer in share
        },
        "filters of layer 1 that are mostly color, and all": [int((gray < 0.5).sum()), len(gray)],
    }
    claims, outcome = judge(cosines, share)
    note = (
        "Means over a layer's filters with 95 % intervals. A filter is mostly color if red, green "
        "and blue share less than half of its energy. The deeper filters shown are a random sample."
    )
    scale = "paper" if model.info.get("training_images", 0) > 1_200_000 else "subset"
    return Result(
        arrays,
        measured | {"claims": claims},
        outcome,
        len(layers),
        note,
        scale=scale,
        finding=state_finding(cosines, share),
        reason=state_reason(cosines, share),
    )


def state_finding(cosines: dict, share: dict) -> str:
    first, *_, last = cosines
    return (
        f"Neighboring weights have a cosine of {cosines[first][0]:.2f} in {first} and "
        f"{cosines[last][0]:.2f} in {last}; the nine strongest slices of a filter of {last} hold "
        f"{100 * share[last][0]:.0f} % of its energy."
    )


def state_reason(cosines: dict, share: dict) -> str:
    """The layers that are as smooth as layer 1, or whose nine slices hold half of the energy."""
    first, *deeper = cosines
    smooth = [
        f"{layer} ({cosines[layer][0]:.2f})"
        for layer in deeper
        if not higher(cosines[first], cosines[layer])
    ]
    concentrated = [
        f"{layer} ({100 * row[0]:.0f} %)" for layer, row in share.items() if not below(row, 0.5)
    ]
    reasons = [f"Layer 1 is not smoother than {', '.join(smooth)}."] if smooth else []
    if concentrated:
        reasons.append(f"Nine slices hold about half or more in {', '.join(concentrated)}.")
    return " ".join(reasons)


def smoothness(weight: torch.Tensor) -> torch.Tensor:
    """Compute the cosine between weights and their right and lower neighbors.

    Args:
        weight: Filters (filters, slices, rows, columns).

    Returns:
        One cosine per filter, (filters,).
    """
    pairs = ((weight[..., 1:, :], weight[..., :-1, :]), (weight[..., 1:], weight[..., :-1]))
    a, b = (torch.cat([pair[side].flatten(1) for pair in pairs], 1) for side in (0, 1))
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def judge(cosines: dict, share: dict) -> tuple[dict[str, str], str]:
    """Both claims, each beyond its interval."""
    first, *deeper = cosines.values()
    results = {
        "layer 1 is smoother than every deeper layer": every(
            higher(first, other) for other in deeper
        ),
        "nine of a filter's slices have less than half of its energy in every deeper layer": every(
            below(interval, 0.5) for interval in share.values()
        ),
    }
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    a = result.arrays
    share = result.measured["share of a filter's energy in its nine strongest slices"]
    first, *deeper = (name for name in a if "." not in name)
    figure = new_page(6.6)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.45, 1)).flat
    tiles = enlarge(filter_image(a[first]), 56)
    title = f"{first}/0 to {first}/{len(tiles) - 1}, row by row"
    show_tiles(above.subplots(), tiles, 16, title, gap=4)
    for panel, layer in zip(below.subplots(1, len(deeper)), deeper, strict=True):
        four = [mosaic(enlarge(signed(nine), 42), 3, gap=5, background=0.82) for nine in a[layer]]
        slices, energy = int(a[f"{layer}.slices"]), share[layer][0]
        title = f"{layer}: 9 of {slices} slices,\n{100 * energy:.0f} % of the energy"
        labels = [f"{layer}/{channel}" for channel in a[f"{layer}.channels"][:4]]
        show_tiles(panel, np.stack(four[:4]), 2, title, gap=GAP, characters=26)
        write_below(panel, labels, len(four[0]) + GAP)
    below.suptitle(
        "nine strongest slices of four filters (white: zero, red: positive, blue: negative)",
        fontsize=SMALL + 1,
    )
    set_finding(figure, result.finding)
    return {"filters.png": figure}


def write_below(axes: Axes, labels: list[str], step: int) -> None:
    """Write the names of tiles in two columns below them; `step` is a tile and its gap."""
    axes.set_ylim(step * -(-len(labels) // 2), -0.5)  # room for the last names
    for n, label in enumerate(labels):
        row, column = divmod(n, 2)
        place = (step * column, step * (row + 1) - GAP)
        axes.text(*place, label, fontsize=SMALL, va="top")


def signed(slices: np.ndarray) -> np.ndarray:
    """Color the slices of a filter (9, rows, columns): white 0, red positive, blue negative."""
    v = slices[..., None] / np.abs(slices).max()
    return np.where(
        v > 0,
        1 - v * (1 - np.array([0.70, 0.09, 0.17])),
        1 + v * (1 - np.array([0.13, 0.40, 0.67])),
    )
