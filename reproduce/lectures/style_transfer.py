"""Style transfer: a photograph's layout in another picture's texture, with our network as the judge of both.

Gatys, Ecker & Bethge 2016. The content is the maps of layer 4, the style the Gram matrices of layers 1 to 5: which features
go together, wherever that is. Their network is VGG, whose filters and strides are small; ZFNet's first layer looks at every
other pixel through 7 x 7 filters, so that the finest grain is not held by any layer, and total variation has to fill it in.
Gram matrices of smooth and grainy pictures differ in size: the distances are relative to the style's own.
"""

import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import surest
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.base import relative_distance
from zfnet.synthesis.style import LAYERS, gram, style_transfer

FIGURE = Figure(
    id="style_transfer",
    title="Style transfer with our network as the feature extractor",
    claim="The Gram matrices come near to the style's in every layer, while the layout remains nearer to the content's than to "
    "any other content's.",
    inputs=("model", "images"),
    seed=27,
    time_budget=480,
    config={
        "contents": ["cat", "astronaut", "coffee"], "styles": ["brick", "grass", "gravel"], "wnids": ["n02391049", "n03530642"],
        "content_layer": "conv4", "weight": 10.0, "variation": 0.05, "steps": 150, "rate": 0.08, "near": 0.5,
    },
    manual=True,
    network="chain",
)  # fmt: skip


def compute(ctx) -> Result:
    config = FIGURE.config
    contents = torch.cat(
        [zfnet.preprocess(zfnet.photograph(name)) for name in config["contents"]]
    ).to(ctx.device)
    styles = {
        name: zfnet.preprocess(zfnet.photograph(name)).to(ctx.device) for name in config["styles"]
    }
    styles |= surest(ctx, config["wnids"])
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
        goal = zfnet.trace(ctx.model, style, until=LAYERS[-1])
        unpainted = {
            layer: relative_distance(gram(before[layer]), gram(goal[layer])) for layer in LAYERS
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
                layer: float((s.style[layer] / unpainted[layer]).mean()) for layer in LAYERS
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
    claims, found = judge(list(measured.values()), len(contents))
    note = (
        f"Contents and the first {len(config['styles'])} styles are photographs of scikit-image; the other styles are, of two "
        "classes, the corpus's images of which the network is surest. Distances are squared and relative to the content's "
        "code, or the style's Gram matrix; 'nearest' counts contents whose code is nearer to the result's than the others'. "
        "Left in the picture is the mean over the layers of the distance from the style."
    )
    return Result(
        arrays, measured | {"claims": claims}, found, n=len(contents) * len(styles), note=note
    )


def by_content(values: torch.Tensor) -> dict[str, float]:
    return dict(zip(FIGURE.config["contents"], values.tolist(), strict=True))


def judge(rows: list[dict], contents: int) -> tuple[dict[str, str], str]:
    """Whether the style is met in each layer, on average over styles, and whether each content is still the nearest one."""
    near = FIGURE.config["near"]
    left = {
        layer: [row["left of the content image's distance from the style"][layer] for row in rows]
        for layer in LAYERS
    }
    held = {
        f"less than {near} of the distance from the style is left in {layer}": sum(values)
        / len(values)
        < near
        for layer, values in left.items()
    }
    kept = sum(row["content is the nearest"] for row in rows)
    return verdict(
        held
        | {"in nine of ten the content's code is the nearest": kept >= 0.9 * contents * len(rows)}
    )


def draw(result: Result):
    a, names = result.arrays, result.arrays["names"]
    contents, columns = len(a["contents"]), len(names) + 1
    figure = new_figure(1.63 * columns, 1.77 * (contents + 1))
    grid = figure.subplots(contents + 1, columns, squeeze=False)
    grid[0, 0].set_axis_off()
    for column, name in enumerate(names):
        show(grid[0, column + 1], photograph(a["styles"][column : column + 1])[0], f"style: {name}")
        for row in range(contents):
            left = f"{100 * np.mean([a[f'{column}.{layer}'][row] for layer in LAYERS]):.0f} % off the style"
            show(
                grid[row + 1, column + 1], photograph(a[f"{column}.pixels"][row : row + 1])[0], left
            )
    for row, name in enumerate(FIGURE.config["contents"]):
        show(grid[row + 1, 0], photograph(a["contents"][row : row + 1])[0], f"content: {name}")
    return {"style_transfer.jpg": figure}
