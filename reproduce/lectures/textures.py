"""Textures from Gram matrices: what a layer and those below it know of a picture, once it is forgotten where things are.

Gatys, Ecker & Bethge 2015, Fig. 2. From noise an image is made whose Gram matrices, in layer 1, in layers 1 and 2, and so on,
are those of a picture. With layer 1 alone it has the picture's colours and grain; layer 2 adds larger structure, those above
hardly any. A layer's matrices that were not asked for are a test: they come near to the picture's only as far as the others
determine them.
"""

import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import surest
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.base import relative_distance
from zfnet.synthesis.style import LAYERS, gram, style_transfer

FIGURE = Figure(
    id="textures",
    title="Textures synthesised from the Gram matrices of layers 1 to 5",
    claim="Each layer's Gram matrices are met when they are asked for, and further off before; where things are is forgotten.",
    inputs=("model", "images"),
    seed=38,
    time_budget=480,
    config={
        "textures": ["brick", "grass"], "wnids": ["n02391049", "n03530642"], "noise": 0.3, "steps": 150, "rate": 0.08,
        "variation": 0.02, "near": 0.1, "forgotten": 0.2,
    },
    manual=True,
    network="chain",
)  # fmt: skip


def compute(ctx) -> Result:
    config = FIGURE.config
    sources = {
        name: zfnet.preprocess(zfnet.photograph(name)).to(ctx.device) for name in config["textures"]
    }
    sources |= surest(ctx, config["wnids"])
    x = torch.cat(list(sources.values()))
    generator = torch.Generator().manual_seed(FIGURE.seed)
    start = config["noise"] * torch.randn(x.shape, generator=generator).to(x)
    goal = grams(ctx.model, x)
    far = {
        layer: relative_distance(found, goal[layer])
        for layer, found in grams(ctx.model, start).items()
    }
    arrays: dict[str, np.ndarray] = {"sources": x.cpu().numpy(), "names": np.array(list(sources))}
    left: dict[str, dict[str, float]] = {}
    place: dict[str, float] = {}
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
        arrays[f"{up_to(n)}.pixels"] = t.pixels.cpu().numpy()
        found = grams(ctx.model, t.pixels)
        left[up_to(n)] = {
            layer: float((relative_distance(found[layer], goal[layer]) / far[layer]).mean())
            for layer in LAYERS
        }
        same = rank_correlation(*(images.mean(1).flatten(1).double() for images in (t.pixels, x)))
        place[up_to(n)] = float(same.abs().max())
    asked = {layer: left[up_to(n)][layer] for n, layer in enumerate(LAYERS, 1)}
    before = {layer: left[up_to(n)][layer] for n, layer in enumerate(LAYERS) if n}
    measured = {
        "left of noise's distance from the picture's Gram matrices": left,
        "rank correlation of brightness with the picture, pixel by pixel, largest": place,
    }
    near = f"less than {config['near']:g} is left when it is asked for"
    held = {f"{layer}: {near}": asked[layer] < config["near"] for layer in LAYERS}
    held |= {f"{layer}: more is left before": before[layer] > asked[layer] for layer in before}
    held["where things are is forgotten"] = max(place.values()) < config["forgotten"]
    claims, found = verdict(held)
    note = (
        f"The first {len(config['textures'])} pictures are photographs of scikit-image; the others are, of two classes, the "
        "corpus's images of which the network is surest. Means over pictures; distances are squared. All begin from one noise."
    )
    return Result(arrays, measured | {"claims": claims}, found, n=len(x), note=note)


def up_to(n: int) -> str:
    """Which layers' Gram matrices were asked for."""
    return LAYERS[0] if n == 1 else f"{LAYERS[0]} to {LAYERS[n - 1]}"


def grams(model, x: torch.Tensor) -> dict[str, torch.Tensor]:
    t = zfnet.trace(model, x, until=LAYERS[-1])
    return {layer: gram(t[layer]) for layer in LAYERS}


def draw(result: Result):
    a = result.arrays
    columns = ["sources", *(f"{up_to(n)}.pixels" for n in range(1, len(LAYERS) + 1))]
    figure = new_figure(1.55 * len(columns), 1.62 * len(a["names"]) + 0.3)
    grid = figure.subplots(len(a["names"]), len(columns), squeeze=False)
    for row, (name, panels) in enumerate(zip(a["names"], grid, strict=True)):
        for panel, column in zip(panels, columns, strict=True):
            title = (
                "the picture"
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
