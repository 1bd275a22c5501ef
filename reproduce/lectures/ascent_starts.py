"""One target, three starts: how much of a drawn image is the network's, and how much is where the ascent began?

A class or a channel is climbed to from mean grey, from noise and from a photograph that has nothing to do with it. The
images differ pixel by pixel: the network's answer has many maxima. What they share is what the network answers to: their
layer-7 codes are nearer to one another than to those of the images of other targets. Both are correlations of ranks.
"""

import numpy as np
import torch

import zfnet
from reproduce.core.claims import verdict
from reproduce.core.figure import Figure, Result
from reproduce.lectures.shared import spread
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.fourier import color_root

STARTS = ("mean grey", "noise", "photograph")
FIGURE = Figure(
    id="ascent_starts",
    title="Gradient ascent: one target, three starts",
    claim="From three starts a target gives three images that hardly correlate in pixels, and are more alike to the network "
    "than images of other targets are.",
    inputs=("model", "images"),
    seed=25,
    time_budget=240,
    config={
        "targets": {"logits": [130, 291, 340, 985], "conv5": [3]}, "photograph": "astronaut", "images": 100,
        "noise": 0.3, "steps": 60,
        "rate": 0.03, "jitter": 16, "variation": {"logits": 40.0, "conv5": 3.0}, "decay": {"logits": 5.0, "conv5": 0.5},
        "pixels": 0.5,
    },
    manual=True,
    network="chain",
)  # fmt: skip


def compute(ctx) -> Result:
    config = FIGURE.config
    colours = color_root(ctx.images.batch(spread(ctx, config["images"])))
    generator = torch.Generator().manual_seed(FIGURE.seed)
    picture = zfnet.preprocess(zfnet.photograph(config["photograph"]))
    starts = torch.cat(
        [
            torch.zeros_like(picture),
            config["noise"] * torch.randn(picture.shape, generator=generator),
            picture,
        ]
    )
    names, drawn, said = [], [], []
    for layer, targets in config["targets"].items():
        for target in targets:
            a = ascend(
                ctx.model, starts.to(ctx.device), target, layer=None if layer == "logits" else layer, frequency=True,
                colors=colours, jitter=config["jitter"], variation=config["variation"][layer], decay=config["decay"][layer],
                steps=config["steps"], rate=config["rate"], generator=generator, progress=ctx.progress,
            )  # fmt: skip
            names.append(
                ctx.model.classes[target] if layer == "logits" else f"{layer}, channel {target}"
            )
            drawn.append(a.pixels.cpu())
            said.append(a.activation.cpu())
    pixels = torch.stack(drawn)  # (targets, starts, 3, H, W)
    codes = torch.stack(
        [zfnet.trace(ctx.model, part.to(ctx.device), until="fc7")["fc7"].cpu() for part in drawn]
    )
    measured: dict = {"activation": {name: a.tolist() for name, a in zip(names, said, strict=True)}}
    for kind, values in (("pixels", pixels), ("layer 7", codes)):
        same, other = compared(values.flatten(2))
        measured[f"rank correlation of {kind}"] = {
            "one target, two starts": same,
            "two targets": other,
        }
    claims, found = judge(measured)
    arrays = {
        "pixels": pixels.numpy(),
        "codes": codes.numpy(),
        "starts": starts.numpy(),
        "names": np.array(names),
    }
    arrays["activation"] = torch.stack(said).numpy()
    note = (
        "Means over pairs, with the least and the largest: of images of one target from two starts, and of images of two "
        "targets from one start, which have that in common."
    )
    return Result(
        arrays, measured | {"claims": claims}, found, n=pixels.shape[0] * pixels.shape[1], note=note
    )


def compared(values: torch.Tensor) -> tuple[list[float], list[float]]:
    """Rank correlations [mean, least, largest] of rows (targets, starts, D): of one target's starts, of two targets' images."""
    targets, starts = values.shape[:2]
    same = [(t, a, t, b) for t in range(targets) for a in range(starts) for b in range(a)]
    other = [(t, a, u, a) for a in range(starts) for t in range(targets) for u in range(t)]
    found = []
    for pairs in (same, other):
        one, two = (torch.stack([values[pair[i], pair[i + 1]] for pair in pairs]) for i in (0, 2))
        r = rank_correlation(one[:, None, None], two[:, None, None])
        found.append([float(r.mean()), float(r.min()), float(r.max())])
    return found[0], found[1]


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Whether images from different starts differ in pixels, and whether their codes tell the target."""
    (pixels, codes), most = (
        (measured[f"rank correlation of {kind}"] for kind in ("pixels", "layer 7")),
        FIGURE.config["pixels"],
    )
    same, other = "one target, two starts", "two targets"
    return verdict(
        {
            f"images of one target from two starts correlate below {most} in pixels, on average": pixels[
                same
            ][0]
            < most,
            "layer-7 codes of one target correlate more than those of two targets, on average": codes[
                same
            ][0]
            > codes[other][0],
            "and do so in the least alike pair of a target against the average pair of two": codes[
                same
            ][1]
            > codes[other][0],
        }
    )


def draw(result: Result):
    pixels, starts, names = (result.arrays[key] for key in ("pixels", "starts", "names"))
    figure = new_figure(2.0 * (len(names) + 1), 6.9)
    grid = figure.subplots(len(STARTS), len(names) + 1, squeeze=False)
    for row, (axes, start) in enumerate(zip(grid, STARTS, strict=True)):
        show(axes[0], photograph(starts[row : row + 1])[0], f"start: {start}")
        for column, name in enumerate(names):
            said = result.arrays["activation"][column, row]
            show(
                axes[column + 1],
                photograph(pixels[column, row : row + 1])[0],
                f"{name}\n{unit(name)} {said:.1f}" if row == 0 else f"{unit(name)} {said:.1f}",
            )
    for axes in grid.flat:
        axes.title.set_fontsize(8)
    rows = [
        f"{kind} {result.measured[f'rank correlation of {kind}'][pair][0]:.2f}"
        for pair in PAIRS
        for kind in KINDS
    ]
    figure.supxlabel(
        f"rank correlation, one target: {rows[0]}, {rows[1]}; two targets: {rows[2]}, {rows[3]}",
        fontsize=9,
    )
    return {"ascent_starts.jpg": figure}


def unit(name: str) -> str:
    """What the number above an image is."""
    return "mean of the map" if ", channel " in name else "logit"


PAIRS, KINDS = ("one target, two starts", "two targets"), ("pixels", "layer 7")
