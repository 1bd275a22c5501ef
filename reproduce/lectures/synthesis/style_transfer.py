"""Style transfer: the layout of one image in the texture of another.

Gatys, Ecker and Bethge (2016). The content is the maps of layer 4. The style is the Gram matrices
of layers 1 to 5: which features occur together, wherever. The original network is VGG, with small
filters and strides. ZFNet's first layer samples every second pixel with 7 x 7 filters, so no layer
holds the finest grain, and total variation has to fill it in. Gram matrices of smooth and grainy
images differ in scale, so distances are relative_distance to the style's own.
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
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.base import relative_distance
from zfnet.synthesis.style import LAYERS, gram, style_transfer

FIGURE = Figure(
    id="style_transfer",
    title="Style transfer with ZFNet as the feature extractor",
    claim="The Gram matrices approach the style's in every layer, while the layout stays closer to "
    "its own content than to any other content.",
    inputs=("model", "images"),
    seed=27,
    time_budget=480,
    config={
        "contents": ["cat", "astronaut", "coffee"],
        "styles": ["brick", "grass", "gravel"],
        "wnids": ["n02391049", "n03530642"],
        "content_layer": "conv4",
        "weight": 10.0,
        "variation": 0.05,
        "steps": 150,
        "rate": 0.08,
        "near": 0.5,
    },
    manual=True,
    network="layers",
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    contents = torch.cat(
        [zfnet.preprocess(zfnet.photograph(name)) for name in config["contents"]]
    ).to(ctx.device)
    styles = {
        name: zfnet.preprocess(zfnet.photograph(name)).to(ctx.device) for name in config["styles"]
    }
    styles |= most_probable_images(ctx, config["wnids"])
    options = {
        key: config[key] for key in ("content_layer", "weight", "variation", "steps", "rate")
    }
    arrays = {
        "contents": contents.cpu().numpy(),
        "styles": torch.cat(list(styles.values())).cpu().numpy(),
    }
    before = zfnet.trace(ctx.model, contents, until=LAYERS[-1])
    measured: dict = {}
    for number, (name, style) in enumerate(styles.items()):
        s = style_transfer(
            ctx.model, contents, style, **options, batch=len(contents), progress=ctx.progress
        )
        assert s.content is not None
        style_trace = zfnet.trace(ctx.model, style, until=LAYERS[-1])
        distance_before = {
            layer: relative_distance(gram(before[layer]), gram(style_trace[layer]))
            for layer in LAYERS
        }
        codes = zfnet.trace(ctx.model, s.pixels, until=LAYERS[-1])[config["content_layer"]]
        nearest = torch.cdist(codes.flatten(1), before[config["content_layer"]].flatten(1)).argmin(
            1
        )
        arrays |= {
            f"{number}.pixels": s.pixels.cpu().numpy(),
            f"{number}.history": s.history.cpu().numpy(),
        }
        arrays |= {f"{number}.{layer}": s.style[layer].cpu().numpy() for layer in LAYERS}
        measured[name] = {
            "distance of the content": by_content(s.content),
            "distance of the style": {layer: by_content(s.style[layer]) for layer in LAYERS},
            "left of the content image's distance from the style": {
                layer: float((s.style[layer] / distance_before[layer]).mean()) for layer in LAYERS
            },
            "content is the nearest": int((nearest.cpu() == torch.arange(len(contents))).sum()),
            "taken for": dict(
                zip(
                    config["contents"],
                    (ctx.model.classes[i] for i in ctx.model(s.pixels).argmax(1).tolist()),
                    strict=True,
                )
            ),
        }
    arrays["names"] = np.array(list(styles))
    claims, outcome = judge(list(measured.values()), len(contents))
    note = (
        f"Contents and the first {len(config['styles'])} styles are photographs of scikit-image. "
        "The other styles are the most probable images of two classes. Distances are squared, "
        "relative to the content's code or the style's Gram matrix. 'Nearest' counts contents "
        "whose code is closer to the result's than those of the others. Percentages in the "
        "picture are mean distances from the style over layers."
    )
    return Result(
        arrays, measured | {"claims": claims}, outcome, n=len(contents) * len(styles), note=note
    )


def by_content(values: torch.Tensor) -> dict[str, float]:
    """Values (contents,) by name of the content."""
    return dict(zip(FIGURE.config["contents"], values.tolist(), strict=True))


def judge(rows: list[dict], contents: int) -> tuple[dict[str, str], str]:
    """The style is matched in each layer on average, and most contents are still nearest."""
    limit, distance = FIGURE.config["near"], "left of the content image's distance from the style"
    results = {}
    for layer in LAYERS:
        mean = sum(row[distance][layer] for row in rows) / len(rows)
        results[f"less than {limit} of the distance from the style remains in {layer}"] = (
            mean < limit
        )
    nearest = sum(row["content is the nearest"] for row in rows)
    enough = nearest >= 0.9 * contents * len(rows)
    return verdict(results | {"for nine in ten, the content's code is the nearest": enough})


def draw(result: Result) -> dict[str, Any]:
    a, names = result.arrays, result.arrays["names"]
    contents, columns = len(a["contents"]), len(names) + 1
    figure = new_figure(1.63 * columns, 1.77 * (contents + 1))
    grid = figure.subplots(contents + 1, columns, squeeze=False)
    grid[0, 0].set_axis_off()
    for column, name in enumerate(names):
        show(grid[0, column + 1], photograph(a["styles"][column : column + 1])[0], f"style: {name}")
        for row in range(contents):
            distance = np.mean([a[f"{column}.{layer}"][row] for layer in LAYERS])
            remaining = f"{100 * distance:.0f} % from the style"
            show(
                grid[row + 1, column + 1],
                photograph(a[f"{column}.pixels"][row : row + 1])[0],
                remaining,
            )
    for row, name in enumerate(FIGURE.config["contents"]):
        show(grid[row + 1, 0], photograph(a["contents"][row : row + 1])[0], f"content: {name}")
    return {"style_transfer.jpg": figure}
