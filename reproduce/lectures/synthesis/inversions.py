"""Inversion: images reconstructed from the code of one layer.

Mahendran and Vedaldi (2015, section 5.2): from noise, pixels are changed until the code of a layer
equals that of a photograph. What the code holds is reconstructed, and the image prior fills in the
rest: early layers restore the photograph, dense ones its parts at other positions. Three numbers
per layer: the relative error of the code; that error over the distance between codes of different
photographs, which is 1 if the reconstruction is no better than another image; and the rank
correlation of the pixels.
"""

from __future__ import annotations

from typing import Any

import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.lectures.sampling import spread_indices
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import LINES, new_figure, photograph, show
from zfnet.synthesis.inversion import invert

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
    manual=True,
    network="chain",
)
ERROR, RATIO, PIXELS = (
    "relative error of the code",
    "error over the distance of photographs",
    "rank correlation of the pixels",
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    rows = choose_images(ctx)[: config["images"]]
    names, x = [row[0] for row in rows], torch.cat([row[1] for row in rows])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    start = config["noise"] * torch.randn(x.shape, generator=generator).to(x.device)
    codes, other_codes = (
        zfnet.trace(ctx.model, x),
        zfnet.trace(
            ctx.model, ctx.images.batch(spread_indices(ctx, config["others"])).to(x.device)
        ),
    )
    arrays, measured = {"x": x.cpu().numpy()}, {}
    for layer in LAYERS:
        inversion = invert(
            ctx.model,
            codes[layer],
            start,
            layer=layer,
            alpha=config["alpha"],
            bound=config["bound"],
            beta=config["beta"],
            variation=config["variation"][layer],
            steps=config["steps"],
            rate=config["rate"],
            progress=ctx.progress,
        )
        distance = mean_distance(codes[layer], other_codes[layer])
        norm = codes[layer].flatten(1).norm(dim=1)
        pixel_correlation = rank_correlation(inversion.pixels, x)
        arrays |= {
            f"{layer}.pixels": inversion.pixels.cpu().numpy(),
            f"{layer}.error": inversion.error.cpu().numpy(),
        }
        arrays[f"{layer}.history"] = inversion.history.cpu().numpy()
        measured[layer] = {
            key: dict(zip(names, values.tolist(), strict=True))
            for key, values in (
                (ERROR, inversion.error),
                (RATIO, inversion.error.sqrt() * norm / distance),
                (PIXELS, pixel_correlation),
            )
        } | {
            "taken for the photograph's class": int(
                (ctx.model(inversion.pixels).argmax(1) == ctx.model(x).argmax(1)).sum()
            ),
        }
    claims, outcome = judge(measured)
    note = (
        f"Images of Fig. 7. Weights of the image prior: {config['bound']:g} for the mean of "
        f"|x|^{config['alpha']:g}, and {min(config['variation'].values()):g} to "
        f"{max(config['variation'].values()):g} for the squared total variation, larger for higher "
        "layers as in the source. The prior causes part of the loss of detail. The distance of "
        f"photographs is the mean distance to {config['others']} images of the corpus."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


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
    a, n = result.arrays, len(result.arrays["x"])
    figure = new_figure(13.2, 1.55 * n + 3.0)
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.55 * n, 2.7)).flat
    grid = top.subplots(n, len(LAYERS) + 1, squeeze=False)
    for i, axes in enumerate(grid):
        show(axes[0], photograph(a["x"][i : i + 1])[0], "photograph" if i == 0 else "")
        for axis, layer in zip(axes[1:], LAYERS, strict=True):
            error = f"{100 * a[f'{layer}.error'][i]:.1f} %"
            show(
                axis,
                photograph(a[f"{layer}.pixels"][i : i + 1])[0],
                f"from {layer}\nerror {error}" if i == 0 else f"error {error}",
            )
    panels = {
        ERROR: "relative squared error",
        RATIO: "over the distance of photographs",
        PIXELS: "rank correlation of pixels",
    }
    for axis, (key, title) in zip(below.subplots(1, 3), panels.items(), strict=True):
        for i, name in enumerate(result.measured[LAYERS[0]][key]):  # in the order of the rows above
            values = [result.measured[layer][key][name] for layer in LAYERS]
            axis.plot(
                LAYERS,
                values,
                "o-",
                color=LINES[i % len(LINES)],
                label=f"row {i + 1}",
                markersize=4,
            )
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=title)
        axis.tick_params(axis="x", labelsize=8)
    axis.legend(frameon=False, fontsize=8)
    return {"inversions.jpg": figure}
