"""Gradient ascent on the channels of each layer: a sheet of images per layer.

The mean of a channel over its positions is maximized from noise. Chollet (Deep Learning with
Python, on what convnets learn) ascends on pixels. Here ascent is in frequency space, with the
colors of photographs, jitter and total variation, without which layers 3 to 5 yield high-frequency
noise. In layers 1 and 2 the mean is taken after the ReLU, as Chollet does: before it, the mean of
layer 1 is linear in the image, and a uniform color maximizes it. In layers 3 to 5 it is taken
before the ReLU, since many channels are zero on noise and have no gradient.

An image shows many copies of what its channel responds to, since the mean counts every position.
Its size grows with the layer. The number is the share of channels whose image has a larger mean
than the strongest of some photographs of the corpus.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.lectures.sampling import spread_indices, subset
from zfnet.analysis.intervals import wilson
from zfnet.analysis.responses import responses
from zfnet.plot import mosaic, new_figure, photograph, show
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.base import total_variation
from zfnet.synthesis.fourier import color_root

SIDES = {
    "conv1": 48,
    "conv2": 80,
    "conv3": 112,
    "conv4": 144,
    "conv5": 176,
}  # pixels: between one and a half and several receptive fields
FIGURE = Figure(
    id="filter_sheets",
    title="Filter sheets: gradient ascent on the channels of each layer",
    claim="In each layer, gradient ascent drives more than three in four channels above their "
    "strongest photograph: from oriented edges and colors in layer 1 to textures and parts in "
    "layer 5.",
    inputs=("model", "images"),
    seed=23,
    time_budget=420,
    config={
        "channels": 36,
        "images": 100,
        "sides": SIDES,
        "steps": 60,
        "rate": 0.05,
        "noise": [0.3, 1.0, 3.0],
        "jitter": 8,
        "share": 0.75,
        "rectified": ["conv1", "conv2"],
        "variation": {"conv1": 1.0, "conv2": 1.0, "conv3": 3.0, "conv4": 3.0, "conv5": 3.0},
        "decay": {"conv1": 0.2, "conv2": 0.2, "conv3": 0.5, "conv4": 0.5, "conv5": 0.5},
    },
    manual=True,
    network="chain",
)

ABOVE = "above the strongest photograph, %"


def compute(ctx: Context) -> Result:
    config, arrays, measured = FIGURE.config, {}, {}
    chosen = spread_indices(ctx, config["images"])
    colors = color_root(ctx.images.batch(chosen))
    arrays["colours"] = colors.numpy()
    photograph_responses = {
        rectified: responses(
            ctx.model, subset(ctx, chosen), tuple(SIDES), rectified=rectified, progress=ctx.progress
        )
        for rectified in (False, True)
    }
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for layer, side in SIDES.items():
        rectified = layer in config["rectified"]
        means = photograph_responses[rectified][layer].mean
        count = means.shape[1]
        channels = np.linspace(0, count - 1, min(count, config["channels"])).round().astype(int)
        strongest = means[:, channels].amax(0)
        pixels, activation = (
            torch.zeros(len(channels), 3, side, side),
            torch.full((len(channels),), -torch.inf),
        )
        # An inactive ReLU has no gradient, so channels that failed restart from stronger noise.
        for noise in config["noise"]:
            remaining = (activation <= strongest).nonzero()[:, 0]
            if not len(remaining):
                break
            start = noise * torch.randn(len(remaining), 3, side, side, generator=generator)
            a = ascend(
                ctx.model,
                start.to(ctx.device),
                channels[remaining].tolist(),
                layer=layer,
                rectified=rectified,
                frequency=True,
                colors=colors,
                jitter=min(config["jitter"], side // 8),
                variation=config["variation"][layer],
                decay=config["decay"][layer],
                steps=config["steps"],
                rate=config["rate"],
                generator=generator,
                batch=12,
                progress=ctx.progress,
            )
            improved = a.activation.cpu() > activation[remaining]
            pixels[remaining[improved]], activation[remaining[improved]] = (
                a.pixels.cpu()[improved],
                a.activation.cpu()[improved],
            )
        arrays |= {f"{layer}.pixels": pixels.numpy(), f"{layer}.channels": channels}
        arrays |= {
            f"{layer}.activation": activation.numpy(),
            f"{layer}.photographs": strongest.numpy(),
        }
        measured[layer] = {
            "channels": len(channels),
            "pixels a side": side,
            ABOVE: 100 * float((activation > strongest).float().mean()),
            "times the strongest photograph, median": float(
                (activation / strongest)[strongest > 0].median()
            ),
            "total variation": float(total_variation(pixels).mean()),
        }
    claims, outcome = judge(measured)
    note = (
        f"{config['channels']} channels per layer, evenly spread: the mean over positions for the "
        f"optimized image, against the strongest of {len(chosen)} photographs; after the ReLU in "
        f"{' and '.join(config['rectified'])}, before it in the others. An ascent that stays "
        "below the strongest photograph starts again from more noise, at most twice. The median "
        "leaves out channels whose mean is not positive in any photograph."
    )
    return Result(
        arrays,
        measured | {"claims": claims},
        outcome,
        n=sum(row["channels"] for row in measured.values()),
        note=note,
    )


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Each layer: more than the required share of channels exceeds its strongest photograph."""
    required, results = 100 * FIGURE.config["share"], {}
    for layer, row in measured.items():
        interval = wilson(round(row["channels"] * row[ABOVE] / 100), row["channels"])
        claim = f"more than {required:g} % of {layer}'s channels exceed every photograph"
        results[claim] = above([row[ABOVE], *(100 * v for v in interval)], required)
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    pictures = {}
    for layer, side in SIDES.items():
        tiles = photograph(result.arrays[f"{layer}.pixels"])
        columns = round(len(tiles) ** 0.5)
        figure = new_figure(6.6, 7)
        axes = figure.subplots()
        row = result.measured[layer]
        show(axes, mosaic(tiles, columns, gap=max(2, side // 24)))
        first, last = result.arrays[f"{layer}.channels"][[0, -1]]
        axes.set_title(
            f"{layer}: {len(tiles)} channels from {first} to {last}, {side} x {side} pixels each\n"
            f"{row[ABOVE]:.0f} % above the strongest of {FIGURE.config['images']} photographs"
        )
        pictures[f"{layer}.jpg"] = figure
    return pictures
