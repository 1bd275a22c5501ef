"""Textures from Gram matrices: what layers keep of an image without positions.

Gatys, Ecker and Bethge (2015, Fig. 2). From noise, an image is optimized to have the Gram matrices
of another image: those of layer 1, those of layers 1 and 2, and so on. Layer 1 alone gives colors
and grain, layer 2 adds larger structure, and higher layers add little. The matrices of layers that
are not optimized are a test: they approach the image's only as far as the others determine them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.lectures.sampling import most_probable_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.base import relative_distance
from zfnet.synthesis.style import LAYERS, gram, style_transfer

FIGURE = Figure(
    id="textures",
    title="Textures from the Gram matrices of layers 1 to 5",
    claim="Each layer's Gram matrices are matched when they are optimized, and are further off "
    "before. Positions are lost.",
    inputs=("model", "images"),
    seed=38,
    time_budget=480,
    config={
        "textures": ["brick", "grass"],
        "wnids": ["n02391049", "n03530642"],
        "noise": 0.3,
        "steps": 150,
        "rate": 0.08,
        "variation": 0.02,
        "near": 0.1,
        "forgotten": 0.2,
    },
    manual=True,
    network="layers",
)
CORRELATION = "rank correlation of brightness with the picture, pixel by pixel, largest"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    sources = {
        name: zfnet.preprocess(zfnet.photograph(name)).to(ctx.device) for name in config["textures"]
    }
    sources |= most_probable_images(ctx, config["wnids"])
    x = torch.cat(list(sources.values()))
    generator = torch.Generator().manual_seed(FIGURE.seed)
    start = config["noise"] * torch.randn(x.shape, generator=generator).to(x)
    wanted = grams(ctx.model, x)
    initial = {
        layer: relative_distance(gram, wanted[layer])
        for layer, gram in grams(ctx.model, start).items()
    }
    arrays: dict[str, np.ndarray] = {"sources": x.cpu().numpy(), "names": np.array(list(sources))}
    remaining: dict[str, dict[str, float]] = {}
    position_correlation: dict[str, float] = {}
    options = {key: config[key] for key in ("steps", "rate", "variation")}
    for n in range(1, len(LAYERS) + 1):
        t = style_transfer(
            ctx.model,
            None,
            x,
            style_layers=LAYERS[:n],
            start=start,
            **options,
            progress=ctx.progress,
        )
        arrays[f"{layer_range(n)}.pixels"] = t.pixels.cpu().numpy()
        reached = grams(ctx.model, t.pixels)
        remaining[layer_range(n)] = {
            layer: float((relative_distance(reached[layer], wanted[layer]) / initial[layer]).mean())
            for layer in LAYERS
        }
        correlation = rank_correlation(
            *(images.mean(1).flatten(1).double() for images in (t.pixels, x))
        )
        position_correlation[layer_range(n)] = float(correlation.abs().max())
    optimized = {layer: remaining[layer_range(n)][layer] for n, layer in enumerate(LAYERS, 1)}
    earlier = {layer: remaining[layer_range(n)][layer] for n, layer in enumerate(LAYERS) if n}
    measured = {
        "left of noise's distance from the picture's Gram matrices": remaining,
        CORRELATION: position_correlation,
    }
    limit = config["near"]
    claim = f"less than {limit:g} remains once it is optimized"
    results = {f"{layer}: {claim}": optimized[layer] < limit for layer in LAYERS}
    results |= {
        f"{layer}: more remains before": earlier[layer] > optimized[layer] for layer in earlier
    }
    results["positions are lost"] = max(position_correlation.values()) < config["forgotten"]
    claims, outcome = verdict(results)
    note = (
        f"The first {len(config['textures'])} images are photographs of scikit-image, the others "
        "the most probable images of two classes. Means over images; distances are squared. All "
        "start from the same noise."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


def layer_range(n: int) -> str:
    """The name of layers 1 to n."""
    return LAYERS[0] if n == 1 else f"{LAYERS[0]} to {LAYERS[n - 1]}"


def grams(model, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The Gram matrices of each layer."""
    t = zfnet.trace(model, x, until=LAYERS[-1])
    return {layer: gram(t[layer]) for layer in LAYERS}


def draw(result: Result) -> dict[str, Any]:
    a = result.arrays
    columns = ["sources", *(f"{layer_range(n)}.pixels" for n in range(1, len(LAYERS) + 1))]
    figure = new_figure(1.55 * len(columns), 1.62 * len(a["names"]) + 0.3)
    grid = figure.subplots(len(a["names"]), len(columns), squeeze=False)
    for row, (name, panels) in enumerate(zip(a["names"], grid, strict=True)):
        for panel, column in zip(panels, columns, strict=True):
            title = (
                "image"
                if column == "sources"
                else f"layers 1 to {column[-8]}"
                if " to " in column
                else "layer 1"
            )
            show(panel, photograph(a[column][row : row + 1])[0], title if row == 0 else "")
        panels[0].text(
            -8, a["sources"].shape[-1] / 2, name, rotation=90, ha="right", va="center", fontsize=9
        )
    return {"textures.jpg": figure}
