"""What does the network still know of the image, layer by layer? Images made from their codes alone.

Mahendran & Vedaldi 2015, section 5.2: from noise, pixels are changed until the code of a layer is that of a photograph.
What the code holds comes back, what it has thrown away is filled in by the image prior: the early layers give the
photograph back, the dense ones its parts in other places. Three numbers by layer: the relative error of the code; that
error over the distance of different photographs' codes, which is 1 where the reconstruction is no better than another
image; and the rank correlation of the pixels.
"""

import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import spread
from reproduce.paper.boxed_images import choose_images
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import LINES, new_figure, photograph, show
from zfnet.synthesis.inversion import invert

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
FIGURE = Figure(
    id="inversions",
    title="Inversion: images from their codes alone, by layer",
    claim="Every layer's code can be met by an image much better than by another photograph; the image resembles the "
    "photograph the less, the higher the layer.",
    inputs=("model", "images"),
    seed=26,
    time_budget=480,
    config={
        "layers": LAYERS, "images": 3, "others": 40, "steps": 120, "rate": 0.1, "noise": 0.05, "alpha": 6.0, "bound": 1e-4,
        "beta": 2.0,
        "met": 0.5,
        "variation": {
            "conv1": 0.05, "conv2": 0.3, "conv3": 2.0, "conv4": 5.0, "conv5": 10.0, "fc6": 20.0, "fc7": 20.0, "fc8": 20.0,
        },
    },
    files=("../paper/fig7_boxes.yaml",),
    manual=True,
    network="chain",
)  # fmt: skip
ERROR, RATIO, PIXELS = (
    "relative error of the code",
    "error over the distance of photographs",
    "rank correlation of the pixels",
)


def compute(ctx) -> Result:
    config = FIGURE.config
    rows = choose_images(ctx)[: config["images"]]
    names, x = [row[0] for row in rows], torch.cat([row[1] for row in rows])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    start = config["noise"] * torch.randn(x.shape, generator=generator).to(x.device)
    codes, others = (
        zfnet.trace(ctx.model, x),
        zfnet.trace(ctx.model, ctx.images.batch(spread(ctx, config["others"])).to(x.device)),
    )
    arrays, measured = {"x": x.cpu().numpy()}, {}
    for layer in LAYERS:
        made = invert(
            ctx.model, codes[layer], start, layer=layer, alpha=config["alpha"], bound=config["bound"], beta=config["beta"],
            variation=config["variation"][layer], steps=config["steps"], rate=config["rate"], progress=ctx.progress,
        )  # fmt: skip
        apart = between(codes[layer], others[layer])
        norm = codes[layer].flatten(1).norm(dim=1)
        same = rank_correlation(made.pixels, x)
        arrays |= {
            f"{layer}.pixels": made.pixels.cpu().numpy(),
            f"{layer}.error": made.error.cpu().numpy(),
        }
        arrays[f"{layer}.history"] = made.history.cpu().numpy()
        measured[layer] = {
            key: dict(zip(names, values.tolist(), strict=True))
            for key, values in ((ERROR, made.error), (RATIO, made.error.sqrt() * norm / apart), (PIXELS, same))
        } | {
            "taken for the photograph's class": int((ctx.model(made.pixels).argmax(1) == ctx.model(x).argmax(1)).sum()),
        }  # fmt: skip
    claims, found = judge(measured)
    note = (
        f"The images of Fig. 7. Weights of the image prior: {config['bound']:g} of the mean of |x|^{config['alpha']:g}, and of "
        f"the squared total variation from {min(config['variation'].values()):g} to {max(config['variation'].values()):g}, "
        f"more for higher layers, as in the source: a part of the loss of detail is their "
        f"doing. The distance of photographs is the mean of those to {config['others']} of the corpus."
    )
    return Result(arrays, measured | {"claims": claims}, found, n=len(x), note=note)


def between(codes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The mean distance of each code (N, ...) to the codes of other images (M, ...): (N,). Its own image does not count."""
    distance = torch.cdist(codes.flatten(1), others.flatten(1))
    return distance.sum(1) / (distance > 1e-6 * distance.amax()).sum(1)


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Whether codes are met better than by another photograph, and whether the picture is lost on the way up."""
    met = FIGURE.config["met"]
    like = [
        sum(measured[layer][PIXELS].values()) / len(measured[layer][PIXELS]) for layer in LAYERS
    ]
    groups = [sum(part) / len(part) for part in (like[:2], like[2:5], like[5:])]
    return verdict(
        {
            f"every code is met to within {met} of the distance of photographs": all(
                max(measured[l][RATIO].values()) < met for l in LAYERS
            ),
            "the pixels correlate most in layers 1 and 2, less in 3 to 5": groups[0] > groups[1],
            "and least in the dense layers": groups[1] > groups[2],
        }
    )


def draw(result: Result):
    a, n = result.arrays, len(result.arrays["x"])
    figure = new_figure(13.2, 1.55 * n + 3.0)
    top, below = figure.subfigures(2, 1, height_ratios=(1.55 * n, 2.7))
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
