"""The feature maps of one image, all of every layer, in one picture.

What lectures say (Chollet, Deep Learning with Python, section 5.4.1): the first layer keeps nearly all that is in the
picture; higher layers' maps are more abstract and sparser, more and more of them blank, for the picture lacks what they look
for. Each map is drawn on its own scale, from 0 to its maximum; blank maps are black. The numbers are over many images.
"""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.shared import FEW, spread, subset
from zfnet.analysis.intervals import mean_interval
from zfnet.analysis.responses import stream
from zfnet.plot import enlarge, mosaic, new_figure, photograph, show

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FIGURE = Figure(
    id="maps",
    title="The feature maps of one image",
    claim="From layer to layer an image excites fewer of the positions, and the last layer's maps are blank more often than "
    "the first's.",
    inputs=("model", "images"),
    seed=1,
    time_budget=5,
    config={"layers": LAYERS, "images": 200, "images of samples": 32, "photograph": "cat"},
    network="chain",
)
ROWS = {
    "conv1": 16,
    "conv2": 22,
    "conv3": 24,
    "conv4": 24,
    "conv5": 22,
}  # maps in a column of the picture
HEIGHT = 1056  # pixels of a column


def compute(ctx) -> Result:
    samples = ctx.corpus == SAMPLES
    chosen = spread(ctx, FIGURE.config["images of samples" if samples else "images"])
    blank: dict[str, list] = {layer: [] for layer in LAYERS}
    above: dict[str, list] = {layer: [] for layer in LAYERS}
    for found in stream(ctx.model, subset(ctx, chosen), LAYERS, progress=ctx.progress):
        for layer, maps in found.items():
            blank[layer].append((maps.amax((2, 3)) <= 0).float().mean(1).cpu())
            above[layer].append((maps > 0).float().mean((1, 2, 3)).cpu())
    x, title = choose(ctx, chosen)
    t = zfnet.trace(ctx.model, x, until=LAYERS[-1])
    arrays = {layer: t[layer][0].cpu().numpy().astype(np.float16) for layer in LAYERS}
    measured = {
        name: {
            layer: mean_interval(torch.cat(part).numpy(), seed=FIGURE.seed)
            for layer, part in parts.items()
        }
        for name, parts in (
            ("share of blank maps", blank),
            ("share of positions above zero", above),
        )
    }
    claims, found = judge(*measured.values())
    note = f"Means over {len(chosen)} images with 95 % intervals. A map is blank if it is zero everywhere; higher layers' maps "
    note += "have fewer positions, which by itself makes blank ones likelier."
    if samples or len(chosen) < FEW:
        found, note = "not comparable", note + " Too few different pictures to compare."
    measured |= {"shown": title, "claims": claims}
    return Result(arrays | {"x": x.cpu().numpy()}, measured, found, n=len(chosen), note=note)


def choose(ctx, chosen: np.ndarray) -> tuple[torch.Tensor, str]:
    """The image that is shown, and what it is: a sample photograph, or of the chosen the one whose class is most probable."""
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
    """Which claims hold, beyond the intervals; the verdict: reproduced if both do, differs if neither."""
    active, empty = list(above.values()), list(blank.values())
    held = {
        "every layer has fewer positions above zero than the one below": all(
            high[2] < low[1] for low, high in pairwise(active)
        ),
        "the last layer leaves more maps blank than the first": empty[-1][1] > empty[0][-1],
    }
    return verdict(held)


def draw(result: Result):
    a, blank = result.arrays, result.measured["share of blank maps"]
    sheets = {}
    for layer in LAYERS:
        side = HEIGHT // ROWS[layer] - 1
        tiles = enlarge(coloured(a[layer]), side)
        sheets[layer] = mosaic(tiles, -(-len(tiles) // ROWS[layer]), gap=1)
    figure = new_figure(10.4, 5.7)
    above, below = figure.subfigures(2, 1, height_ratios=(0.4, 1), hspace=0.04)
    top = above.subplots(1, 6)
    show(top[0], photograph(a["x"])[0], result.measured["shown"])
    for panel, layer in zip(top[1:], LAYERS, strict=True):
        maps = a[layer].astype(np.float32)
        strongest = int(
            maps[:, 1:-1, 1:-1].max((1, 2)).argmax()
        )  # not by its rim, which comes of the zeros around a map
        show(panel, coloured(maps[strongest : strongest + 1])[0], f"{layer}, map {strongest}")
    widths = [sheet.shape[1] for sheet in sheets.values()]
    for panel, (layer, sheet) in zip(
        below.subplots(1, 5, width_ratios=widths), sheets.items(), strict=True
    ):
        none = int((a[layer].max((1, 2)) <= 0).sum())
        show(
            panel,
            sheet,
            f"{layer}: {len(a[layer])} maps\n{none} blank\n(mean {blank[layer][0]:.1%})",
        )
    return {"maps.jpg": figure}


def coloured(maps: np.ndarray) -> np.ndarray:
    """Maps (C, H, W) as heat from 0 to each one's maximum, blank ones black: (C, H, W, 3)."""
    maps = maps.astype(np.float32)
    top = maps.max((1, 2), keepdims=True)
    colours = mpl.colormaps["viridis"](maps / np.maximum(top, 1e-12))[..., :3]
    return np.where(top[..., None] > 0, colours, 0).astype(np.float32)
