"""The strongest feature maps of one image, layer by layer.

Chollet (Deep Learning with Python, section 5.4.1): the first layer keeps nearly all that is in the
image. Higher maps are more abstract and sparser, and more of them are blank, since the image lacks
what they respond to. The sixteen maps with the largest values are drawn, each on its own scale from
0 to its maximum, with the number of its channel. The numbers are means over many images.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.core.page import caption, new_page, set_finding, show_tiles
from reproduce.lectures.sampling import MIN_IMAGES, spread_indices, subset
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.responses import stream
from zfnet.plot import enlarge, photograph, show

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FIGURE = Figure(
    id="maps",
    title="The strongest feature maps of one image",
    claim="From layer to layer, an image activates fewer positions, and the last layer has more "
    "blank maps than the first.",
    inputs=("model", "images"),
    seed=1,
    time_budget=5,
    config={
        "layers": LAYERS,
        "images": 200,
        "images of samples": 32,
        "photograph": "cat",
        "shown": 16,
    },
    version=3,
    network="layers",
)
SIDE = 112  # pixels of a map in the picture


def compute(ctx: Context) -> Result:
    samples = ctx.corpus == SAMPLES
    chosen = spread_indices(ctx, FIGURE.config["images of samples" if samples else "images"])
    blank: dict[str, list] = {layer: [] for layer in LAYERS}
    above: dict[str, list] = {layer: [] for layer in LAYERS}
    for activations in stream(ctx.model, subset(ctx, chosen), LAYERS, progress=ctx.progress):
        for layer, maps in activations.items():
            blank[layer].append((maps.amax((2, 3)) <= 0).float().mean(1).cpu())
            above[layer].append((maps > 0).float().mean((1, 2, 3)).cpu())
    x, title = choose_image(ctx, chosen)
    t = zfnet.trace(ctx.model, x, until=LAYERS[-1])
    arrays: dict[str, np.ndarray] = {}
    for layer in LAYERS:
        channels = strongest_maps(t[layer][0], FIGURE.config["shown"])
        arrays[layer] = t[layer][0, channels].cpu().numpy().astype(np.float16)
        arrays |= {
            f"{layer}.channels": channels.numpy(),
            f"{layer}.maps": np.array(t[layer].shape[1]),
        }
    measured: dict[str, Any] = {
        name: {
            layer: mean_interval(torch.cat(part).numpy(), seed=FIGURE.seed)
            for layer, part in parts.items()
        }
        for name, parts in (
            ("share of blank maps", blank),
            ("share of positions above zero", above),
        )
    }
    claims, outcome = judge(*measured.values())
    finding, reason = state_finding(measured), state_reason(measured, outcome)
    note = (
        f"Means over {len(chosen)} images with 95 % intervals. A map is blank if it is zero at "
        "every position. Higher maps have fewer positions, which alone makes blank maps more "
        "likely."
    )
    if samples or len(chosen) < MIN_IMAGES:
        outcome, reason = "not comparable", "The images are too few for a comparison."
    features = {layer: [f"{layer}/{i}" for i in arrays[f"{layer}.channels"]] for layer in LAYERS}
    measured |= {"image shown": title, "features shown": features, "claims": claims}
    arrays["x"] = x.cpu().numpy()
    return Result(arrays, measured, outcome, len(chosen), note, finding=finding, reason=reason)


def strongest_maps(maps: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` channels of maps (C, H, W) with the largest values inside the border, in order.

    A layer with fewer channels gives all of them. The border responds to the zero padding.
    """
    return maps[:, 1:-1, 1:-1].amax((1, 2)).topk(min(count, len(maps))).indices.cpu()


def choose_image(ctx: Context, chosen: np.ndarray) -> tuple[torch.Tensor, str]:
    """Choose the image that is shown.

    Args:
        ctx: The network and the corpus.
        chosen: The images that are measured.

    Returns:
        The image (1, 3, H, W) with the highest probability of its class, and the class; for the
        sample corpus a photograph and its name.
    """
    if ctx.corpus == SAMPLES:
        name = FIGURE.config["photograph"]
        return zfnet.preprocess(zfnet.photograph(name)).to(ctx.device), name
    labels = torch.from_numpy(ctx.images.labels[chosen])
    batches = [
        ctx.images.batch(chosen[i : i + 32]).to(ctx.device) for i in range(0, len(chosen), 32)
    ]
    parts = [ctx.model(x).softmax(1).cpu() for x in batches]
    best = int(torch.cat(parts).gather(1, labels[:, None]).argmax())
    return ctx.images.batch(chosen[best : best + 1]).to(ctx.device), ctx.model.classes[
        int(labels[best])
    ]


def judge(blank: dict, above: dict) -> tuple[dict[str, str], str]:
    """Both claims, beyond the intervals."""
    active, empty = list(above.values()), list(blank.values())
    results = {
        "every layer has fewer positions above zero than the one below": all(
            high[2] < low[1] for low, high in pairwise(active)
        ),
        "the last layer leaves more maps blank than the first": empty[-1][1] > empty[0][-1],
    }
    return verdict(results)


def state_finding(m: dict) -> str:
    positive, blank = m["share of positions above zero"], m["share of blank maps"]
    return (
        f"On average, {100 * positive['conv1'][0]:.0f} % of positions are above zero in layer 1 "
        f"and {100 * positive['conv5'][0]:.0f} % in layer 5; {100 * blank['conv1'][0]:.1f} % of "
        f"the maps are blank in layer 1 and {100 * blank['conv5'][0]:.1f} % in layer 5."
    )


def state_reason(m: dict, outcome: str) -> str:
    """The layers that have no fewer positive positions than the layer below."""
    if outcome == "reproduced":
        return ""
    positive, blank = m["share of positions above zero"], m["share of blank maps"]
    rises = [
        f"{high} ({100 * positive[high][0]:.0f} %) than in {low} ({100 * positive[low][0]:.0f} %)"
        for low, high in pairwise(LAYERS)
        if positive[high][2] >= positive[low][1]
    ]
    reasons = [f"No fewer positions are above zero in {', in '.join(rises)}."] if rises else []
    if blank["conv5"][1] <= blank["conv1"][-1]:
        reasons.append("Layer 5 does not have more blank maps than layer 1.")
    return " ".join(reasons)


def draw(result: Result) -> dict[str, Any]:
    a = result.arrays
    figure = new_page(6.3)
    photo, *panels = figure.subplots(2, 3).flat
    show(photo, photograph(a["x"])[0])
    caption(photo, result.measured["image shown"])
    for panel, layer in zip(panels, LAYERS, strict=True):
        tiles = enlarge(heat_maps(a[layer]), SIDE)
        channels = a[f"{layer}.channels"]
        title = f"{layer}: the {len(tiles)} strongest of {a[f'{layer}.maps']} maps"
        show_tiles(panel, tiles, 4, title, labels=[f"{layer}/{i}" for i in channels])
    set_finding(figure, result.finding)
    return {"maps.jpg": figure}


def heat_maps(maps: np.ndarray) -> np.ndarray:
    """Maps (C, H, W) as heat from 0 to each one's maximum, blank ones black: (C, H, W, 3)."""
    maps = maps.astype(np.float32)
    top = maps.max((1, 2), keepdims=True)
    colors = mpl.colormaps["viridis"](maps / np.maximum(top, 1e-12))[..., :3]
    return np.where(top[..., None] > 0, colors, 0).astype(np.float32)
