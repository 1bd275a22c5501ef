"""Inversion: images reconstructed from the code of one layer.

Mahendran and Vedaldi (2015, section 5.2): from noise, pixels are changed until the code of a layer
equals that of a photograph. What the code holds is reconstructed, and the image prior fills in the
rest: early layers restore the photograph, dense ones its parts at other positions. Four numbers per
layer: the relative error of the code, and that of the pixels; the code's error over the
distance between codes of different
photographs, which is 1 if the reconstruction is no better than another image; and the rank
correlation of the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import caption, label_lines, new_page, set_finding
from reproduce.lectures.sampling import spread_indices
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import LINES, photograph, show
from zfnet.synthesis.inversion import Inversion, invert

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
FIGURE = Figure(
    id="inversions",
    title="Inversion: images from the code of one layer",
    claim="Every layer's code can be matched by an image much better than by another photograph. "
    "The higher the layer, the less the image resembles the photograph.",
    inputs=("model", "images"),
    seed=26,
    time_budget=480,
    config={
        "layers": LAYERS,
        "images": 3,
        "others": 40,
        "steps": 120,
        "rate": 0.1,
        "noise": 0.05,
        "alpha": 6.0,
        "bound": 1e-4,
        "beta": 2.0,
        "met": 0.5,
        "variation": {
            "conv1": 0.05,
            "conv2": 0.3,
            "conv3": 2.0,
            "conv4": 5.0,
            "conv5": 10.0,
            "fc6": 20.0,
            "fc7": 20.0,
            "fc8": 20.0,
        },
    },
    files=("../../paper/fig7_boxes.yaml",),
    version=2,
    manual=True,
    network="chain",
)
ERROR, PIXEL_ERROR, RATIO, PIXELS = (
    "relative error of the code",
    "relative error of the pixels",
    "error over the distance of photographs",
    "rank correlation of the pixels",
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    rows = choose_images(ctx)[: config["images"]]
    names, x = [row[0] for row in rows], torch.cat([row[1] for row in rows])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    start = config["noise"] * torch.randn(x.shape, generator=generator).to(x.device)
    others = ctx.images.batch(spread_indices(ctx, config["others"])).to(x.device)
    codes, other_codes = zfnet.trace(ctx.model, x), zfnet.trace(ctx.model, others)
    options = {key: config[key] for key in ("alpha", "bound", "beta", "steps", "rate")}
    arrays: dict[str, np.ndarray] = {"x": x.cpu().numpy()}
    measured: dict[str, Any] = {}
    for layer in LAYERS:
        inversion = invert(
            ctx.model,
            codes[layer],
            start,
            layer=layer,
            variation=config["variation"][layer],
            progress=ctx.progress,
            **options,
        )
        distance = mean_distance(codes[layer], other_codes[layer])
        values = compare(inversion, x, codes[layer], distance)
        predicted = (ctx.model(images).argmax(1) for images in (inversion.pixels, x))
        measured[layer] = {
            key: dict(zip(names, of.tolist(), strict=True)) for key, of in values.items()
        } | {"taken for the photograph's class": int(torch.eq(*predicted).sum())}
        arrays |= {
            f"{layer}.pixels": inversion.pixels.cpu().numpy(),
            f"{layer}.history": inversion.history.cpu().numpy(),
        }
    claims, outcome = judge(measured)
    note = (
        f"Images of Fig. 7. Weights of the image prior: {config['bound']:g} for the mean of "
        f"|x|^{config['alpha']:g}, and {min(config['variation'].values()):g} to "
        f"{max(config['variation'].values()):g} for the squared total variation, larger for higher "
        "layers as in the source. The prior causes part of the loss of detail. The distance of "
        f"photographs is the mean distance to {config['others']} images of the corpus. Errors are "
        "squared distances over the squared norm; pixels count from the photograph's mean color."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


def compare(
    inversion: Inversion, x: torch.Tensor, codes: torch.Tensor, distance: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Compare reconstructions with their photographs, in codes and in pixels, (N,) each.

    Args:
        inversion: The reconstructions.
        x: The photographs (N, 3, H, W).
        codes: Their codes (N, ...).
        distance: The mean distance of the codes to those of other images (N,).
    """
    centered = x - x.mean((2, 3), keepdim=True)
    squared = (inversion.pixels - x).square().flatten(1).sum(1)
    return {
        ERROR: inversion.error,
        PIXEL_ERROR: squared / centered.square().flatten(1).sum(1),
        RATIO: inversion.error.sqrt() * codes.flatten(1).norm(dim=1) / distance,
        PIXELS: rank_correlation(inversion.pixels, x),
    }


def mean_distance(codes: torch.Tensor, other_codes: torch.Tensor) -> torch.Tensor:
    """The mean distance of codes to those of other images.

    Args:
        codes: Codes (N, ...).
        other_codes: Codes of other images (M, ...). An image's own code does not count.

    Returns:
        (N,).
    """
    distance = torch.cdist(codes.flatten(1), other_codes.flatten(1))
    return distance.sum(1) / (distance > 1e-6 * distance.amax()).sum(1)


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Codes are matched better than by another photograph, and pixels are lost with depth."""
    limit = FIGURE.config["met"]
    correlation = [sum(measured[layer][PIXELS].values()) for layer in LAYERS]
    low, middle, dense = (
        sum(part) / len(part) for part in (correlation[:2], correlation[2:5], correlation[5:])
    )
    matched = all(max(measured[layer][RATIO].values()) < limit for layer in LAYERS)
    return verdict(
        {
            f"every code is matched within {limit} of the distance of photographs": matched,
            "pixels correlate most in layers 1 and 2, less in 3 to 5": low > middle,
            "pixels correlate least in the dense layers": middle > dense,
        }
    )


def draw(result: Result) -> dict[str, Any]:
    a, m = result.arrays, result.measured
    code, pixels = (
        {layer: 100 * np.array(list(m[layer][key].values())) for layer in LAYERS}
        for key in (ERROR, PIXEL_ERROR)
    )
    figure = new_page(7.0)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.3, 1)).flat
    photo, *panels = above.subplots(2, 5).flat
    show(photo, photograph(a["x"][:1])[0])
    caption(photo, "photograph")
    panels.pop().set_axis_off()
    for panel, layer in zip(panels, LAYERS, strict=True):
        show(panel, photograph(a[f"{layer}.pixels"][:1])[0])
        text = f"from {layer}\ncode off by {code[layer][0]:.1f} %\n"
        caption(panel, text + f"pixels off by {pixels[layer][0]:.0f} %")
    axes = below.subplots()
    ends = {}
    for name, values, color in (("pixels", pixels, LINES[1]), ("code", code, LINES[0])):
        rows = np.array(list(values.values()))  # (layers, images)
        axes.plot(LAYERS, rows, "o", color=color, markersize=3, alpha=0.6)
        axes.plot(LAYERS, rows.mean(1), color=color)
        ends[name] = (rows[-1].mean(), color)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("squared error over the\nphotograph's energy, %")
    label_lines(axes, ends, len(LAYERS) - 1)
    set_finding(
        figure,
        f"From {LAYERS[0]} the pixels are off by {pixels[LAYERS[0]].mean():.0f} %, from "
        f"{LAYERS[-1]} by {pixels[LAYERS[-1]].mean():.0f} %, though its code is matched within "
        f"{code[LAYERS[-1]].mean():.0f} % (n = {result.n} photographs)",
    )
    return {"inversions.jpg": figure}
