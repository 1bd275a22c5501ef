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

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import SMALL, blank, caption, new_page, set_finding
from reproduce.lectures.sampling import spread_indices
from reproduce.lectures.synthesis.separation import probabilities, separate
from zfnet.analysis.intervals import wilson
from zfnet.plot import photograph, show
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.base import total_variation
from zfnet.synthesis.fourier import color_root

FIGURE = Figure(
    id="class_images",
    title="Canonical images of classes",
    claim="The network predicts the intended class for the image drawn for it, some only after "
    "further ascent. With regularization the images are as smooth as photographs, and smoother "
    "than ascent on pixels alone.",
    inputs=("model", "images"),
    seed=24,
    time_budget=600,
    config={
        "classes": 50,
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
    version=2,
    manual=True,
)

REGULARIZED, AT_FIRST, PLAIN = "regularized", "before further ascent", "pixels alone"
SHOWN = 8  # images with regularization in the picture


def compute(ctx: Context) -> Result:
    config, names = FIGURE.config, ctx.model.classes
    photographs = ctx.images.batch(spread_indices(ctx, config["images"]))
    colors = color_root(photographs)
    target = spread(len(names), config["classes"])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    shape = (len(target), 3, *photographs.shape[-2:])
    noise = config["noise"] * torch.randn(*shape, generator=generator).to(ctx.device)
    options: dict[str, Any] = {"steps": config["steps"], "rate": config["rate"], "batch": 10}
    options |= {"progress": ctx.progress, "generator": generator}
    regularization = {"frequency": True, "colors": colors} | {
        key: config[key] for key in ("jitter", "variation", "decay")
    }
    drawn = ascend(ctx.model, noise, target.tolist(), **regularization, **options).pixels
    separated, extra_ascents = separate(
        ctx,
        drawn,
        target,
        config["part at most"],
        **regularization,
        **options | {"steps": config["part steps"]},
    )
    few = spread(len(target), config["plain"])
    plain = ascend(ctx.model, noise[few], target[few].tolist(), **options).pixels
    sets = {
        REGULARIZED: (separated, target, few),
        AT_FIRST: (drawn, target, few),
        PLAIN: (plain, target[few], slice(None)),
    }
    variation = total_variation(photographs).quantile(QUANTILES).tolist()
    measured: dict = {"total variation of photographs": variation}
    arrays: dict[str, np.ndarray] = {"few": few, "names": np.array(names)}
    for kind, (pixels, intended, paired) in sets.items():
        measured[kind], arrays_of = measure(ctx, pixels, intended, paired)
        arrays |= {f"{kind}.{key}": array for key, array in arrays_of.items()}
    measured["extra ascents, by class"] = {
        names[t]: n for t, n in zip(target, extra_ascents, strict=True) if n
    }
    claims, outcome = judge(measured)
    note = (
        f"{len(target)} of {len(names)} classes, evenly spread; the picture shows {SHOWN}. Ascent "
        "continues on the log-probability of images that are predicted as another class, at most "
        f"{config['part at most']} times. Total variation of {len(photographs)} photographs of the "
        "corpus: smallest, median and largest. The claims compare medians, with those of pixels "
        "alone for the same classes."
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(target), note=note)


QUANTILES = torch.tensor([0.0, 0.5, 1.0])


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` numbers below `total`, evenly spread."""
    return np.linspace(0, total - 1, min(total, count)).round().astype(int)


def measure(
    ctx: Context, pixels: torch.Tensor, intended: np.ndarray, paired: np.ndarray | slice
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Predict images, and measure their roughness.

    Args:
        ctx: The network.
        pixels: Images (N, 3, H, W).
        intended: Their intended classes (N,).
        paired: The images whose classes were drawn on pixels alone too.

    Returns:
        The measured numbers, and arrays.
    """
    names, probability = ctx.model.classes, probabilities(ctx.model, pixels)
    predicted = probability.argmax(1).numpy()
    true = probability[range(len(intended)), intended].numpy()
    variation = total_variation(pixels)
    measured = {
        "classes": len(intended),
        "taken for their class, %": 100 * float((predicted == intended).mean()),
        "probability of the class, median": float(np.median(true)),
        "total variation": float(variation.mean()),
        "total variation, median": float(variation.median()),
        "total variation, median of those that were drawn on pixels alone too": float(
            variation[paired].median()
        ),
        "taken for another": {
            names[t]: names[p] for t, p in zip(intended, predicted, strict=True) if t != p
        },
    }
    arrays = {"pixels": pixels.cpu().numpy(), "target": intended, "predicted": predicted}
    return measured, arrays | {"probability": true}


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Predictions, roughness without regularization, and smoothness with it."""
    required = 100 * FIGURE.config["share"]
    _, median, _ = measured["total variation of photographs"]
    first, drawn, plain = (measured[kind] for kind in (AT_FIRST, REGULARIZED, PLAIN))
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
    a, columns = result.arrays, 4
    shown = spread(len(a[f"{REGULARIZED}.target"]), SHOWN)
    figure = new_page(7.6)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(2, 1.1)).flat
    grid = above.subplots(SHOWN // columns, columns)
    blank(grid)
    for panel, i in zip(grid.flat, shown, strict=False):
        show_class(panel, a, REGULARIZED, i)
    plain = below.subplots(1, columns)
    blank(plain)
    for panel, i in zip(plain, range(len(a["few"])), strict=False):
        show_class(panel, a, PLAIN, i)
    below.suptitle("counterexamples: ascent on pixels alone", fontsize=SMALL + 2)
    row = result.measured[REGULARIZED]
    set_finding(
        figure,
        f"{row['taken for their class, %']:.0f} % of {row['classes']} images are predicted as the "
        f"class that they were drawn for; the median probability is "
        f"{row['probability of the class, median']:.2f}",
    )
    return {"class_images.jpg": figure}


def show_class(axes, a: dict, kind: str, i: int) -> None:
    """Show one image with its class, its probability, and a wrong prediction."""
    target, predicted = int(a[f"{kind}.target"][i]), int(a[f"{kind}.predicted"][i])
    text = f"{a['names'][target]}: {a[f'{kind}.probability'][i]:.2f}"
    if target != predicted:
        text += f"\npredicted: {a['names'][predicted]}"
    show(axes, photograph(a[f"{kind}.pixels"][i : i + 1])[0])
    caption(axes, text)
