"""Gradient ascent on one target from three starts: gray, noise, and a photograph.

A class or a channel is maximized from mean gray, from noise, and from an unrelated photograph. The
images differ in every pixel, since the activation has many maxima. What they share is what the
network responds to: their layer-7 codes are closer to each other than to those of other targets.
Both comparisons are rank correlations.
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
from reproduce.lectures.sampling import spread_indices
from zfnet.analysis.faithfulness import rank_correlation
from zfnet.plot import photograph, show
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.fourier import color_root

STARTS = ("mean gray", "noise", "photograph")
SHOWN = 3  # targets
FIGURE = Figure(
    id="ascent_starts",
    title="Gradient ascent on one target from three starts",
    claim="Three starts lead to three images of a target that hardly correlate in pixels. To the "
    "network they are more similar than images of different targets.",
    inputs=("model", "images"),
    seed=25,
    time_budget=240,
    config={
        "targets": {"logits": [130, 291, 340, 985], "conv5": [3]},
        "photograph": "astronaut",
        "images": 100,
        "noise": 0.3,
        "steps": 60,
        "rate": 0.03,
        "jitter": 16,
        "variation": {"logits": 40.0, "conv5": 3.0},
        "decay": {"logits": 5.0, "conv5": 0.5},
        "pixels": 0.5,
    },
    version=2,
    manual=True,
    network="layers",
)


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    colors = color_root(ctx.images.batch(spread_indices(ctx, config["images"])))
    generator = torch.Generator().manual_seed(FIGURE.seed)
    picture = zfnet.preprocess(zfnet.photograph(config["photograph"]))
    noise = config["noise"] * torch.randn(picture.shape, generator=generator)
    starts = torch.cat([torch.zeros_like(picture), noise, picture])
    names, images, activations = [], [], []
    for layer, targets in config["targets"].items():
        options = {key: config[key][layer] for key in ("variation", "decay")}
        for target in targets:
            a = ascend(
                ctx.model,
                starts.to(ctx.device),
                target,
                layer=None if layer == "logits" else layer,
                frequency=True,
                colors=colors,
                jitter=config["jitter"],
                steps=config["steps"],
                rate=config["rate"],
                generator=generator,
                progress=ctx.progress,
                **options,
            )
            is_class = layer == "logits"
            names.append(ctx.model.classes[target] if is_class else f"{layer}/{target}")
            images.append(a.pixels.cpu())
            activations.append(a.activation.cpu())
    measured: dict = {
        "activation": {name: a.tolist() for name, a in zip(names, activations, strict=True)}
    }
    pixels = torch.stack(images)  # (targets, starts, 3, H, W)
    traces = [zfnet.trace(ctx.model, part.to(ctx.device), until="fc7") for part in images]
    codes = torch.stack([t["fc7"].cpu() for t in traces])
    for kind, values in (("pixels", pixels), ("layer 7", codes)):
        same, other = correlations(values.flatten(2))
        row = {"one target, two starts": same, "two targets": other}
        measured[f"rank correlation of {kind}"] = row
    claims, outcome = judge(measured)
    arrays = {
        "pixels": pixels.numpy(),
        "starts": starts.numpy(),
        "names": np.array(names),
        "activation": torch.stack(activations).numpy(),
    }
    note = (
        "Mean, smallest and largest over pairs: images of one target from two starts, and images "
        f"of two targets from the same start. The picture shows {SHOWN} targets."
    )
    n = pixels.shape[0] * pixels.shape[1]
    return Result(arrays, measured | {"claims": claims}, outcome, n=n, note=note)


def correlations(values: torch.Tensor) -> tuple[list[float], list[float]]:
    """Rank correlations between images of one target, and between targets.

    Args:
        values: Pixels or codes (targets, starts, D).

    Returns:
        [mean, smallest, largest] over pairs of starts of one target, and over pairs of targets with
        the same start.
    """
    targets, starts = values.shape[:2]
    same = [(t, a, t, b) for t in range(targets) for a in range(starts) for b in range(a)]
    other = [(t, a, u, a) for a in range(starts) for t in range(targets) for u in range(t)]
    ranges = []
    for pairs in (same, other):
        one, two = (torch.stack([values[pair[i], pair[i + 1]] for pair in pairs]) for i in (0, 2))
        r = rank_correlation(one[:, None, None], two[:, None, None])
        ranges.append([float(r.mean()), float(r.min()), float(r.max())])
    return ranges[0], ranges[1]


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Images of one target differ in pixels, and their codes identify the target."""
    limit, same, other = FIGURE.config["pixels"], "one target, two starts", "two targets"
    pixels = measured["rank correlation of pixels"]
    codes = measured["rank correlation of layer 7"]
    mean, smallest = codes[same][:2]
    other_mean = codes[other][0]
    return verdict(
        {
            f"images of one target correlate below {limit} in pixels, on average": pixels[same][0]
            < limit,
            "layer-7 codes correlate more within a target than between targets, on average": mean
            > other_mean,
            "so do those of the least similar pair within a target": smallest > other_mean,
        }
    )


def draw(result: Result) -> dict[str, Any]:
    pixels, starts, names = (result.arrays[key] for key in ("pixels", "starts", "names"))
    shown = np.linspace(0, len(names) - 1, min(len(names), SHOWN)).round().astype(int)
    figure = new_page(7.0)
    grid = figure.subplots(len(STARTS), len(shown) + 1, squeeze=False)
    for row, (axes, start) in enumerate(zip(grid, STARTS, strict=True)):
        show(axes[0], photograph(starts[row : row + 1])[0])
        caption(axes[0], f"start: {start}")
        for panel, target in zip(axes[1:], shown, strict=True):
            value, name = result.arrays["activation"][target, row], str(names[target])
            show(panel, photograph(pixels[target, row : row + 1])[0])
            caption(panel, f"{name}: {'mean' if '/' in name else 'logit'} {value:.1f}")
    same, other = "one target, two starts", "two targets"
    pixel, code = (result.measured[f"rank correlation of {kind}"] for kind in ("pixels", "layer 7"))
    set_finding(
        figure,
        f"Two starts lead to images that correlate by {pixel[same][0]:.2f} in pixels and "
        f"{code[same][0]:.2f} in layer 7; images of two targets by {pixel[other][0]:.2f} and "
        f"{code[other][0]:.2f}",
    )
    return {"ascent_starts.jpg": figure}
