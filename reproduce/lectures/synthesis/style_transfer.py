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
from reproduce.core.page import blank, caption, new_page, set_finding
from reproduce.lectures.sampling import most_probable_images
from zfnet.forward import Trace
from zfnet.plot import photograph, show
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
    version=2,
    manual=True,
    network="layers",
)

REMAINING = "left of the content image's distance from the style"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    contents = load_photographs(ctx, config["contents"])
    styles = dict(
        zip(config["styles"], load_photographs(ctx, config["styles"])[:, None], strict=True)
    )
    styles |= most_probable_images(ctx, config["wnids"])
    arrays = {
        "contents": contents.cpu().numpy(),
        "styles": torch.cat(list(styles.values())).cpu().numpy(),
        "names": np.array(list(styles)),
    }
    before = zfnet.trace(ctx.model, contents, until=LAYERS[-1])
    measured: dict = {}
    for number, (name, style) in enumerate(styles.items()):
        measured[name], arrays_of = transfer(ctx, contents, style, before)
        arrays |= {f"{number}.{key}": array for key, array in arrays_of.items()}
    claims, outcome = judge(list(measured.values()), len(contents))
    note = (
        f"Contents and the first {len(config['styles'])} styles are photographs of scikit-image. "
        "The other styles are the most probable images of two classes. Distances are squared, "
        "relative to the content's code or the style's Gram matrix. 'Nearest' counts contents "
        "whose code is closer to the result's than those of the others."
    )
    n = len(contents) * len(styles)
    return Result(arrays, measured | {"claims": claims}, outcome, n=n, note=note)


def load_photographs(ctx: Context, names: list[str]) -> torch.Tensor:
    x = torch.cat([zfnet.preprocess(zfnet.photograph(name)) for name in names])
    return x.to(ctx.device)


def transfer(
    ctx: Context, contents: torch.Tensor, style: torch.Tensor, before: Trace
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Paint all contents in one style.

    Args:
        ctx: The network.
        contents: The contents (N, 3, H, W).
        style: The style (1, 3, H, W).
        before: The trace of the contents.

    Returns:
        The measured numbers, and arrays.
    """
    config, layer = FIGURE.config, FIGURE.config["content_layer"]
    options = {
        key: config[key] for key in ("content_layer", "weight", "variation", "steps", "rate")
    }
    s = style_transfer(
        ctx.model, contents, style, **options, batch=len(contents), progress=ctx.progress
    )
    assert s.content is not None
    style_trace = zfnet.trace(ctx.model, style, until=LAYERS[-1])
    distance_before = {
        name: relative_distance(gram(before[name]), gram(style_trace[name])) for name in LAYERS
    }
    codes = zfnet.trace(ctx.model, s.pixels, until=LAYERS[-1])[layer]
    nearest = torch.cdist(codes.flatten(1), before[layer].flatten(1)).argmin(1)
    predicted = ctx.model(s.pixels).argmax(1).tolist()
    measured = {
        "distance of the content": by_content(s.content),
        "distance of the style": {name: by_content(s.style[name]) for name in LAYERS},
        REMAINING: {name: float((s.style[name] / distance_before[name]).mean()) for name in LAYERS},
        "content is the nearest": int((nearest.cpu() == torch.arange(len(contents))).sum()),
        "taken for": dict(
            zip(config["contents"], (ctx.model.classes[i] for i in predicted), strict=True)
        ),
    }
    return measured, {"pixels": s.pixels.cpu().numpy(), "history": s.history.cpu().numpy()}


def by_content(values: torch.Tensor) -> dict[str, float]:
    """Values (contents,) by name of the content."""
    return dict(zip(FIGURE.config["contents"], values.tolist(), strict=True))


def judge(rows: list[dict], contents: int) -> tuple[dict[str, str], str]:
    """The style is matched in each layer on average, and most contents are still nearest."""
    limit = FIGURE.config["near"]
    results = {}
    for layer in LAYERS:
        mean = sum(row[REMAINING][layer] for row in rows) / len(rows)
        results[f"less than {limit} of the distance from the style remains in {layer}"] = (
            mean < limit
        )
    nearest = sum(row["content is the nearest"] for row in rows)
    enough = nearest >= 0.9 * contents * len(rows)
    return verdict(results | {"for nine in ten, the content's code is the nearest": enough})


def draw(result: Result) -> dict[str, Any]:
    a, names = result.arrays, result.arrays["names"].tolist()
    shown = np.linspace(0, len(names) - 1, min(len(names), 3)).round().astype(int)
    contents = FIGURE.config["contents"][:2]
    figure = new_page(6.8)
    grid = figure.subplots(len(contents) + 1, len(shown) + 1, squeeze=False)
    blank(grid)
    for column, i in enumerate(shown, 1):
        show(grid[0, column], photograph(a["styles"][i : i + 1])[0])
        caption(grid[0, column], f"style: {names[i]}")
        for row in range(len(contents)):
            show(grid[row + 1, column], photograph(a[f"{i}.pixels"][row : row + 1])[0])
    for row, name in enumerate(contents):
        show(grid[row + 1, 0], photograph(a["contents"][row : row + 1])[0])
        caption(grid[row + 1, 0], f"content: {name}")
    rows = [row for name, row in result.measured.items() if name != "claims"]
    remaining = [row[REMAINING][layer] for row in rows for layer in LAYERS]
    nearest = sum(row["content is the nearest"] for row in rows)
    set_finding(
        figure,
        f"{np.mean(remaining):.0%} of the distance to the style's Gram matrices remains, and "
        f"{nearest} of {result.n} results are still closest to their own content in layer 4",
    )
    return {"style_transfer.jpg": figure}
