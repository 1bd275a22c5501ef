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
from reproduce.core.page import caption, new_page, set_finding
from reproduce.lectures.sampling import most_probable_images
from reproduce.lectures.synthesis.frequency import mean_frequency
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import photograph, show
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
        "wnids": ["n02391049"],
        "noise": 0.3,
        "steps": 150,
        "rate": 0.08,
        "variation": 0.02,
        "near": 0.1,
        "forgotten": 0.2,
    },
    version=2,
    manual=True,
    network="layers",
)
REMAINING = "left of noise's distance from the picture's Gram matrices"
FREQUENCY = "mean frequency, cycles per pixel"
SHOWN = ("conv1", "conv1 to conv3", "conv1 to conv5")
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
    target = grams(ctx.model, x)
    initial = distances(grams(ctx.model, start), target)
    arrays: dict[str, np.ndarray] = {"sources": x.cpu().numpy(), "names": np.array(list(sources))}
    remaining: dict[str, dict[str, float]] = {}
    correlation: dict[str, float] = {}
    frequency = {"image": by_name(sources, mean_frequency(centered(x)))}
    options = {key: config[key] for key in ("steps", "rate", "variation")}
    for n in range(1, len(LAYERS) + 1):
        name, layers = layer_range(n), LAYERS[:n]
        pixels = style_transfer(
            ctx.model, None, x, style_layers=layers, start=start, progress=ctx.progress, **options
        ).pixels
        arrays[f"{name}.pixels"] = pixels.cpu().numpy()
        reached = distances(grams(ctx.model, pixels), target)
        remaining[name] = {
            layer: float((reached[layer] / initial[layer]).mean()) for layer in LAYERS
        }
        gray = (images.mean(1).flatten(1).double() for images in (pixels, x))
        correlation[name] = float(rank_correlation(*gray).abs().max())
        frequency[name] = by_name(sources, mean_frequency(centered(pixels)))
    measured = {REMAINING: remaining, CORRELATION: correlation, FREQUENCY: frequency}
    claims, outcome = judge(remaining, correlation)
    note = (
        f"The first {len(config['textures'])} images are photographs of scikit-image, the others "
        "the most probable images of classes. Means over images; distances are squared. All start "
        "from the same noise. Frequencies are weighted by energy, without each image's mean color."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


def judge(
    remaining: dict[str, dict[str, float]], correlation: dict[str, float]
) -> tuple[dict[str, str], str]:
    """Each layer is matched when it is optimized, is further off before, and positions are lost.

    Args:
        remaining: The remaining distance of each layer, by the layers that were optimized.
        correlation: The correlation with the image's pixels, by the same.
    """
    optimized = {layer: remaining[layer_range(n)][layer] for n, layer in enumerate(LAYERS, 1)}
    earlier = {layer: remaining[layer_range(n)][layer] for n, layer in enumerate(LAYERS) if n}
    limit = FIGURE.config["near"]
    claim = f"less than {limit:g} remains once it is optimized"
    results = {f"{layer}: {claim}": optimized[layer] < limit for layer in LAYERS}
    results |= {
        f"{layer}: more remains before": earlier[layer] > optimized[layer] for layer in earlier
    }
    results["positions are lost"] = max(correlation.values()) < FIGURE.config["forgotten"]
    return verdict(results)


def distances(
    grams_of: dict[str, torch.Tensor], target: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The relative distance of Gram matrices from those of the images, (N,) by layer."""
    return {layer: relative_distance(gram, target[layer]) for layer, gram in grams_of.items()}


def by_name(sources: dict[str, Any], values: np.ndarray) -> dict[str, float]:
    return dict(zip(sources, values.tolist(), strict=True))


def centered(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean((2, 3), keepdim=True)


def layer_range(n: int) -> str:
    """The name of layers 1 to n."""
    return LAYERS[0] if n == 1 else f"{LAYERS[0]} to {LAYERS[n - 1]}"


def grams(model, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The Gram matrices of each layer."""
    t = zfnet.trace(model, x, until=LAYERS[-1])
    return {layer: gram(t[layer]) for layer in LAYERS}


def draw(result: Result) -> dict[str, Any]:
    a, frequency = result.arrays, result.measured[FREQUENCY]
    names = a["names"].tolist()
    figure = new_page(2.2 * len(names) + 0.6)
    grid = figure.subplots(len(names), len(SHOWN) + 1, squeeze=False)
    for n, (name, panels) in enumerate(zip(names, grid, strict=True)):
        show(panels[0], photograph(a["sources"][n : n + 1])[0])
        caption(panels[0], f"{name}: {frequency['image'][name]:.3f}")
        for panel, layers in zip(panels[1:], SHOWN, strict=True):
            show(panel, photograph(a[f"{layers}.pixels"][n : n + 1])[0])
            caption(panel, f"from {layers}: {frequency[layers][name]:.3f}")
    finest = max(names, key=lambda name: frequency[SHOWN[-1]][name] / frequency["image"][name])
    ratio = frequency[SHOWN[-1]][finest] / frequency["image"][finest]
    remaining = max(result.measured[REMAINING][SHOWN[-1]].values())
    set_finding(
        figure,
        f"With layers 1 to 5 at most {remaining:.1%} of the distance to the Gram matrices remains, "
        f"yet {finest} becomes {ratio:.1f} times as fine (numbers: mean frequency, cycles per "
        "pixel)",
    )
    return {"textures.jpg": figure}
