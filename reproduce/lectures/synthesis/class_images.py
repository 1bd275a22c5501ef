"""Canonical images of classes: gradient ascent on class logits.

From gray noise, the logit of a class is maximized (Simonyan et al. 2014, section 2), in frequency
space, with the colors of photographs and jitter (Olah et al. 2017). An image must be predicted as
its class. If it is not, ascent continues on the log-probability of the class; predictions are
counted before and after. Ascent on pixels alone reaches the class as well, but shows nothing: for
the same classes, its images are rougher (total variation).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.lectures.sampling import spread_indices
from zfnet.analysis.intervals import wilson
from zfnet.plot import new_figure, photograph, show
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.base import total_variation
from zfnet.synthesis.fourier import color_root

FIGURE = Figure(
    id="class_images",
    title="Canonical images of classes",
    claim="The network predicts the intended class for the image drawn for it, at the latest after "
    "further ascent. With regularization the images are as smooth as photographs, and smoother "
    "than ascent on pixels alone.",
    inputs=("model", "images"),
    seed=24,
    time_budget=600,
    config={
        "classes": 50,
        "shown": 20,
        "plain": 5,
        "images": 100,
        "steps": 60,
        "rate": 0.03,
        "noise": 0.05,
        "jitter": 16,
        "variation": 40.0,
        "decay": 5.0,
        "share": 0.75,
        "part steps": 20,
        "part at most": 3,
    },
    manual=True,
)


def compute(ctx: Context) -> Result:
    config, names = FIGURE.config, ctx.model.classes
    photographs = ctx.images.batch(spread_indices(ctx, config["images"]))
    colors = color_root(photographs)
    target = np.linspace(0, len(names) - 1, min(len(names), config["classes"])).round().astype(int)
    generator = torch.Generator().manual_seed(FIGURE.seed)
    noise = config["noise"] * torch.randn(
        len(target), 3, *photographs.shape[-2:], generator=generator
    ).to(ctx.device)
    options = {
        "steps": config["steps"],
        "rate": config["rate"],
        "batch": 10,
        "progress": ctx.progress,
    }
    options |= {"generator": generator}
    regularization = {"frequency": True, "colors": colors} | {
        key: config[key] for key in ("jitter", "variation", "decay")
    }
    drawn = ascend(ctx.model, noise, target.tolist(), **regularization, **options).pixels
    separated, extra_ascents = separate(
        ctx, drawn, target, **regularization, **options | {"steps": config["part steps"]}
    )
    plain_rows = (
        np.linspace(0, len(target) - 1, min(len(target), config["plain"])).round().astype(int)
    )
    plain = ascend(ctx.model, noise[plain_rows], target[plain_rows].tolist(), **options)
    sets = {
        "regularised": (separated, target),
        "before they were parted": (drawn, target),
        "pixels alone": (plain.pixels, target[plain_rows]),
    }
    arrays: dict[str, np.ndarray] = {"colours": colors.numpy(), "few": plain_rows}
    measured: dict = {
        "total variation of photographs": [
            float(v) for v in total_variation(photographs).quantile(QUANTILES)
        ]
    }
    for kind, (pixels, intended) in sets.items():
        probability = probabilities(ctx.model, pixels)
        predicted, true = (
            probability.argmax(1).numpy(),
            probability[range(len(intended)), intended].numpy(),
        )
        arrays |= {
            f"{kind}.pixels": pixels.cpu().numpy(),
            f"{kind}.target": intended,
            f"{kind}.predicted": predicted,
        }
        arrays[f"{kind}.probability"] = true
        measured[kind] = {
            "classes": len(intended),
            "taken for their class, %": 100 * float((predicted == intended).mean()),
            "probability of the class, median": float(np.median(true)),
            "total variation": float(total_variation(pixels).mean()),
            "total variation, median": float(total_variation(pixels).median()),
            "total variation, median of those that were drawn on pixels alone too": float(
                total_variation(
                    pixels if len(pixels) == len(plain_rows) else pixels[plain_rows]
                ).median()
            ),
            "taken for another": {
                names[t]: names[p] for t, p in zip(intended, predicted, strict=True) if t != p
            },
        }
    measured["climbs to part them, by class"] = {
        names[t]: n for t, n in zip(target, extra_ascents, strict=True) if n
    }
    arrays["names"] = np.array(names)
    claims, outcome = judge(measured)
    note = (
        f"{len(target)} of {len(names)} classes, evenly spread; the picture shows "
        f"{config['shown']}. Ascent continues on the log-probability of images that are predicted "
        f"as another class, at most {config['part at most']} times. Total variation of "
        f"{len(photographs)} photographs of the corpus: smallest, median and largest. The claims "
        "compare medians, with those of pixels alone for the same classes."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(target), note=note)


QUANTILES = torch.tensor([0.0, 0.5, 1.0])


def separate(
    ctx: Context, pixels: torch.Tensor, target: np.ndarray, **options
) -> tuple[torch.Tensor, list[int]]:
    """Continue the ascent of images that are predicted as another class.

    A class's logit can be high while that of a similar class is higher. So ascent continues on the
    log-probability, whose gradient in the logits z is one_hot(y) - softmax(z). It is computed once
    per ascent and scaled so that the weight of the intended class is 1.

    Args:
        ctx: The network.
        pixels: Images (N, 3, H, W).
        target: Intended classes (N,).
        options: Options of `ascend`.

    Returns:
        The images, and the number of extra ascents of each.
    """
    pixels, extra_ascents, true = pixels.clone(), [0] * len(target), torch.from_numpy(target)
    for _ in range(FIGURE.config["part at most"]):
        probability = probabilities(ctx.model, pixels)
        wrong = torch.nonzero(probability.argmax(1) != true)[:, 0]
        if not len(wrong):
            break
        weights = F.one_hot(true[wrong], probability.shape[1]) - probability[wrong]
        weights = weights / weights.amax(1, keepdim=True)
        pixels[wrong] = ascend(ctx.model, pixels[wrong], weights, **options).pixels
        for i in wrong.tolist():
            extra_ascents[i] += 1
    return pixels, extra_ascents


def probabilities(model, pixels: torch.Tensor) -> torch.Tensor:
    """The probabilities of images in chunks, (N, classes), on the CPU."""
    return torch.cat([model(some) for some in pixels.split(20)]).softmax(1).cpu()


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Predictions, roughness without regularization, and smoothness with it."""
    required = 100 * FIGURE.config["share"]
    _, median, _ = measured["total variation of photographs"]
    first, drawn, plain = (
        measured[kind] for kind in ("before they were parted", "regularised", "pixels alone")
    )
    results = {}
    for when, row in (("at once", first), ("after further ascent", drawn)):
        n, share = row["classes"], row["taken for their class, %"]
        interval = [100 * v for v in wilson(round(n * share / 100), n)]
        claim = f"more than {required:g} % of the images are predicted as their class {when}"
        results[claim] = above([share, *interval], required)
    key = "total variation, median"
    paired = f"{key} of those that were drawn on pixels alone too"
    results["images without regularization are rougher"] = plain[paired] > drawn[paired]
    results["regularized images are no rougher than the median photograph"] = drawn[key] <= median
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    a, config = result.arrays, FIGURE.config
    names, plain_rows = a["names"], a["few"]
    shown = np.linspace(0, len(a["regularised.target"]) - 1, config["shown"]).round().astype(int)
    columns = len(plain_rows)
    rows = -(-len(shown) // columns)
    figure = new_figure(1.72 * columns, 2.1 * (rows + 1))
    grid = figure.subplots(rows + 1, columns, squeeze=False)
    for axes, i in zip(grid[:rows].flat, shown, strict=True):
        caption(axes, a, "regularised", i, names)
    for axes, i in zip(grid[rows], range(columns), strict=True):
        caption(axes, a, "pixels alone", i, names, "pixels alone: ")
    return {"class_images.jpg": figure}


def caption(axes, a: dict, kind: str, i: int, names: np.ndarray, before: str = "") -> None:
    """Show one image with its class, its probability, and a wrong prediction."""
    target, predicted = int(a[f"{kind}.target"][i]), int(a[f"{kind}.predicted"][i])
    true = f"{a[f'{kind}.probability'][i]:.2f}"
    caption_text = (
        f"probability {true}" if target == predicted else f"{true}; predicted: {names[predicted]}"
    )
    text = f"{before}{names[target]}\n{caption_text}"
    show(axes, photograph(a[f"{kind}.pixels"][i : i + 1])[0], text)
    axes.title.set_fontsize(7.5)
