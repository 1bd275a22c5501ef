"""What does each filter look for? A sheet per layer of images that excite its channels, as in Chollet's chapter.

The mean of a channel over its places is driven up from noise by gradient ascent. Chollet (Deep Learning with Python, on what
convnets learn) climbs in pixels; here it is in frequency space, in the colours of photographs, under jitter and with total
variation, without which layers 3 to 5 draw noise of high frequency. Of layers 1 and 2 the mean is taken after the ReLU, as
Chollet's: before it the mean of layer 1 is linear in the image, and a plain colour is its maximum. Of layers 3 to 5 it is taken
before, for noise leaves many of their channels silent, and there is no slope. An image shows many copies of what the channel
looks for, for the mean counts every place; its side grows with the layer. Whether that is more than a photograph says to the
channel is the number: the share of channels whose image beats the strongest of some photographs of the corpus.
"""

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import spread, subset
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
}  # pixels: some receptive fields, or one and a half
FIGURE = Figure(
    id="filter_sheets",
    title="Filter sheets: gradient ascent on the channels of each layer",
    claim="In each layer more than three channels in four can be driven above what photographs make them say: from oriented "
    "edges and colours in layer 1 to textures and parts in layer 5.",
    inputs=("model", "images"),
    seed=23,
    time_budget=420,
    config={
        "channels": 36, "images": 100, "sides": SIDES, "steps": 60, "rate": 0.05, "noise": [0.3, 1.0, 3.0], "jitter": 8,
        "share": 0.75, "rectified": ["conv1", "conv2"],
        "variation": {"conv1": 1.0, "conv2": 1.0, "conv3": 3.0, "conv4": 3.0, "conv5": 3.0},
        "decay": {"conv1": 0.2, "conv2": 0.2, "conv3": 0.5, "conv4": 0.5, "conv5": 0.5},
    },
    manual=True,
    network="chain",
)  # fmt: skip

ABOVE = "above the strongest photograph, %"


def compute(ctx) -> Result:
    config, arrays, measured = FIGURE.config, {}, {}
    chosen = spread(ctx, config["images"])
    colours = color_root(ctx.images.batch(chosen))
    arrays["colours"] = colours.numpy()
    natural = {
        rectified: responses(
            ctx.model, subset(ctx, chosen), tuple(SIDES), rectified=rectified, progress=ctx.progress
        )
        for rectified in (False, True)
    }
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for layer, side in SIDES.items():
        rectified = layer in config["rectified"]
        means = natural[rectified][layer].mean
        count = means.shape[1]
        channels = np.linspace(0, count - 1, min(count, config["channels"])).round().astype(int)
        strongest = means[:, channels].amax(0)
        pixels, reached = (
            torch.zeros(len(channels), 3, side, side),
            torch.full((len(channels),), -torch.inf),
        )
        # Where a ReLU is shut there is no slope: what does not get far begins anew, from more noise.
        for noise in config["noise"]:
            left = (reached <= strongest).nonzero()[:, 0]
            if not len(left):
                break
            start = noise * torch.randn(len(left), 3, side, side, generator=generator)
            a = ascend(
                ctx.model, start.to(ctx.device), channels[left].tolist(), layer=layer, rectified=rectified, frequency=True,
                colors=colours, jitter=min(config["jitter"], side // 8), variation=config["variation"][layer],
                decay=config["decay"][layer], steps=config["steps"], rate=config["rate"], generator=generator, batch=12,
                progress=ctx.progress,
            )  # fmt: skip
            better = a.activation.cpu() > reached[left]
            pixels[left[better]], reached[left[better]] = (
                a.pixels.cpu()[better],
                a.activation.cpu()[better],
            )
        arrays |= {f"{layer}.pixels": pixels.numpy(), f"{layer}.channels": channels}
        arrays |= {
            f"{layer}.activation": reached.numpy(),
            f"{layer}.photographs": strongest.numpy(),
        }
        measured[layer] = {
            "channels": len(channels), "pixels a side": side,
            ABOVE: 100 * float((reached > strongest).float().mean()),
            "times the strongest photograph, median": float((reached / strongest)[strongest > 0].median()),
            "total variation": float(total_variation(pixels).mean()),
        }  # fmt: skip
    claims, found = judge(measured)
    note = (
        f"{config['channels']} channels a layer, spread over its numbers: the mean over the places of the drawn image, against "
        f"the strongest of {len(chosen)} photographs; after the ReLU in {' and '.join(config['rectified'])}, before it in the "
        "others. Where that is not above the strongest photograph, the ascent begins anew from more noise, at most twice. The "
        "median leaves out channels whose mean is nowhere above 0 in the photographs."
    )
    return Result(
        arrays,
        measured | {"claims": claims},
        found,
        n=sum(row["channels"] for row in measured.values()),
        note=note,
    )


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Whether in each layer more than the wanted share of channels is driven above what photographs make them say."""
    wanted, held = 100 * FIGURE.config["share"], {}
    for layer, row in measured.items():
        interval = wilson(round(row["channels"] * row[ABOVE] / 100), row["channels"])
        claim = f"more than {wanted:g} % of {layer}'s channels say more to their image than to any photograph"
        held[claim] = above([row[ABOVE], *(100 * v for v in interval)], wanted)
    return verdict(held)


def draw(result: Result):
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
