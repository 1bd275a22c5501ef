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
from reproduce.core.page import new_page, set_finding, show_tiles
from reproduce.lectures.sampling import spread_indices, subset
from zfnet.analysis.intervals import wilson
from zfnet.analysis.responses import responses
from zfnet.plot import photograph
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
    config = FIGURE.config
    chosen = spread_indices(ctx, config["images"])
    colors = color_root(ctx.images.batch(chosen))
    arrays: dict[str, np.ndarray] = {"colors": colors.numpy()}
    measured: dict[str, Any] = {}
    responses_of = {
        rectified: responses(
            ctx.model, subset(ctx, chosen), tuple(SIDES), rectified=rectified, progress=ctx.progress
        )
        for rectified in (False, True)
    }
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for layer in SIDES:
        means = responses_of[layer in config["rectified"]][layer].mean
        count = means.shape[1]
        channels = np.linspace(0, count - 1, min(count, config["channels"])).round().astype(int)
        strongest = means[:, channels].amax(0)
        pixels, activation = ascend_above(ctx, layer, channels, strongest, colors, generator)
        measured[layer] = measure(pixels, activation, strongest)
        arrays |= {f"{layer}.pixels": pixels.numpy(), f"{layer}.channels": channels}
        arrays[f"{layer}.activation"] = activation.numpy()
        arrays[f"{layer}.photographs"] = strongest.numpy()
    claims, outcome = judge(measured)
    n = sum(row["channels"] for row in measured.values())
    note = (
        f"{config['channels']} channels per layer, evenly spread: the mean over positions for the "
        f"optimized image, against the strongest of {len(chosen)} photographs; after the ReLU in "
        f"{' and '.join(config['rectified'])}, before it in the others. An ascent that stays "
        "below the strongest photograph starts again from more noise, at most twice. The median "
        "leaves out channels whose mean is not positive in any photograph."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=n, note=note)


def ascend_above(
    ctx: Context,
    layer: str,
    channels: np.ndarray,
    strongest: torch.Tensor,
    colors: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maximize channels; start those again from more noise that stay below a photograph.

    A closed ReLU has no gradient, so some channels need more noise.

    Args:
        ctx: The network.
        layer: The layer.
        channels: The channels (C,).
        strongest: The largest mean in a photograph (C,).
        colors: The colors of photographs, as of `color_root`.
        generator: Random numbers.

    Returns:
        Images (C, 3, S, S) and the means of their channels (C,).
    """
    config, side = FIGURE.config, SIDES[layer]
    pixels = torch.zeros(len(channels), 3, side, side)
    activation = torch.full((len(channels),), -torch.inf)
    options = {key: config[key] for key in ("steps", "rate")}
    options |= {key: config[key][layer] for key in ("variation", "decay")}
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
            rectified=layer in config["rectified"],
            frequency=True,
            colors=colors,
            jitter=min(config["jitter"], side // 8),
            generator=generator,
            batch=12,
            progress=ctx.progress,
            **options,
        )
        improved = a.activation.cpu() > activation[remaining]
        pixels[remaining[improved]] = a.pixels.cpu()[improved]
        activation[remaining[improved]] = a.activation.cpu()[improved]
    return pixels, activation


def measure(
    pixels: torch.Tensor, activation: torch.Tensor, strongest: torch.Tensor
) -> dict[str, Any]:
    """Compare images (C, 3, S, S) with the strongest photographs by the means of channels (C,)."""
    return {
        "channels": len(pixels),
        "pixels a side": pixels.shape[-1],
        ABOVE: 100 * float((activation > strongest).float().mean()),
        "times the strongest photograph, median": float(
            (activation / strongest)[strongest > 0].median()
        ),
        "total variation": float(total_variation(pixels).mean()),
    }


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Each layer: more than the required share of channels exceeds its strongest photograph."""
    required, results = 100 * FIGURE.config["share"], {}
    for layer, row in measured.items():
        interval = wilson(round(row["channels"] * row[ABOVE] / 100), row["channels"])
        claim = f"more than {required:g} % of {layer}'s channels exceed every photograph"
        results[claim] = above([row[ABOVE], *(100 * v for v in interval)], required)
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    """One sheet per layer."""
    pictures = {}
    for layer in SIDES:
        tiles = photograph(result.arrays[f"{layer}.pixels"])
        labels = [str(channel) for channel in result.arrays[f"{layer}.channels"]]
        figure = new_page(8.8)
        axes = figure.subplots()
        show_tiles(axes, tiles, round(len(tiles) ** 0.5), gap=4, labels=labels)
        set_finding(
            figure,
            f"{result.measured[layer][ABOVE]:.0f} % of {len(tiles)} channels of {layer} respond "
            f"more strongly to their image than to any of {FIGURE.config['images']} photographs",
        )
        pictures[f"{layer}.jpg"] = figure
    return pictures
