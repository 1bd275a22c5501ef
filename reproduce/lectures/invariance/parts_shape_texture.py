"""Parts, shape or texture: which cue does the network use?

Geirhos et al. (2019) found that networks trained on ImageNet decide by texture where people decide
by shape; Brendel and Bethge (2019), that a bag of small patches is nearly enough. Correctly
classified images with a known outline are reduced to one cue: parts shuffled, parts covered, only
the outline, or only the texture. The remaining probability of the class measures that cue. Then
cues conflict: each image is painted in the style of another class, and a decision for either class
is one for shape or for texture. Painting takes about a quarter of an hour on two cores, once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.invariance.cue_conflict import Conflict, paint_conflict, resize, to_uint8
from reproduce.lectures.invariance.cue_pictures import (
    draw_conflict,
    draw_probabilities,
    draw_variants,
)
from reproduce.lectures.invariance.single_cues import IMAGE, OUTLINE, TEXTURE, variants
from reproduce.lectures.outlines import outlined_images
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.decisions import confidence
from zfnet.analysis.intervals import mean_interval, wilson

PHOTOGRAPHS = ("astronaut", "cat", "coffee", "coins", "moon", "motorcycle", "retina", "rocket")
FIGURE = Figure(
    id="parts_shape_texture",
    title="Parts, shape or texture: which cue the network uses",
    claim="A texture without its outline keeps more of the class's probability than an outline "
    "without texture, and so do shuffled parts. Where outline and texture conflict, most decisions "
    "are for the texture.",
    inputs=("model", "images"),
    seed=32,
    time_budget=120,
    manual=True,
    config={
        "photographs": PHOTOGRAPHS,
        "grids": [2, 4, 8],
        "covered": [0.25, 0.5, 0.75],
        "covered grid": 7,
        "patch": 32,
        "side": 112,
        "painted": {"side": 112, "steps": 36, "rate": 0.15, "weight": 10.0},
        "shown": 5,
        "pairs shown": 6,
    },
    paper={
        "texture share, % (Geirhos et al. 2019)": {
            "AlexNet": 57.1,
            "GoogLeNet": 68.8,
            "ResNet-50": 77.9,
            "VGG-16": 82.8,
            "people": 4.1,
        }
    },
    files=("../objects.yaml",),
    version=2,
    network="layers",
)
NEITHER = "neither"  # the decision for most painted images


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    outlined = outlined_images(ctx, PHOTOGRAPHS, config["side"])
    x, target, masks = outlined.x, outlined.target, outlined.masks
    accepted = len(x)
    # A wrong image has no probability to lose.
    correct = confidence(ctx.model, x, target).label == target if len(x) else target.bool()
    x, target, masks = x[correct], target[correct], masks[correct.to(masks.device)]
    if len(x) < MIN_IMAGES and not samples:
        note = f"Fewer than {MIN_IMAGES} of {accepted} outlined images are predicted correctly. "
        note += outlined.missing
        return Result({}, {"images": len(x)}, "not run", n=len(x), note=note)
    kinds = variants(x, masks, config, FIGURE.seed)
    cues, probability = cue_numbers(ctx, kinds, target)
    conflict = paint_conflict(ctx, x, target, FIGURE.seed, config["painted"])
    measured = {"images": len(x), "classes": len(target.unique())} | cues
    measured["cue conflict"] = conflict_numbers(ctx, x, target, conflict)
    if len(outlined.agreement):
        measured["outlines against polygons drawn by eye, intersection over union"] = mean_interval(
            outlined.agreement, seed=FIGURE.seed
        )
    claims, outcome = ({}, "not comparable") if samples else judge(measured)
    arrays = {f"probability.{kind}": p for kind, p in probability.items()}
    arrays |= example_arrays(x, target, kinds, conflict)
    note = (
        f"The correctly classified ones of {accepted} images with an outline accepted by eye, so "
        "the top-1 of the images is 100 % by selection. They come from the 480 images on which "
        "an earlier network was most confident. Texture: squares of the object in random order. "
        f"Painted at {config['painted']['side']} pixels and enlarged. Decisions are among the "
        f"{measured['classes']} classes of these images, and among all outputs. Painting may also "
        "damage the shape; the distance to the content's layer-4 code is measured. 95 % intervals: "
        f"bootstrap for probabilities, Wilson's for shares. {outlined.missing}"
    )
    if samples:
        note += " The sample photographs have no labels, so predictions replace them."
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


def cue_numbers(
    ctx: Context, kinds: dict[str, torch.Tensor], target: torch.Tensor
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The probability of the class with one cue left.

    Args:
        ctx: The network.
        kinds: Images by variant.
        target: Their classes (N,).

    Returns:
        The measured numbers, and the probabilities (N,) by variant.
    """
    confidences = {kind: confidence(ctx.model, images, target) for kind, images in kinds.items()}
    probability = {kind: c.probability.cpu().numpy() for kind, c in confidences.items()}
    measured = {
        "probability of the class": {
            kind: mean_interval(p, seed=FIGURE.seed) for kind, p in probability.items()
        },
        "probability kept, of the image's": {
            kind: mean_interval(p, probability[IMAGE], seed=FIGURE.seed)
            for kind, p in probability.items()
            if kind != IMAGE
        },
        "top-1, %": {kind: share(c.label == target) for kind, c in confidences.items()},
        "texture only less outline only, probability": difference(probability, TEXTURE, OUTLINE),
        "parts shuffled 4 x 4 less outline only, probability": difference(
            probability, "parts shuffled, 4 x 4", OUTLINE
        ),
    }
    return measured, probability


def conflict_numbers(
    ctx: Context, x: torch.Tensor, target: torch.Tensor, conflict: Conflict
) -> dict[str, Any]:
    """The decisions for texture and shape, and a control for the painting's resolution."""
    side = FIGURE.config["painted"]["side"]
    control = confidence(ctx.model, resize(resize(x, side), x.shape[-1]), target)
    two, free = conflict.two_choice, conflict.open_choice
    distance = float(conflict.distance.median())
    return {
        "pairs": len(x),
        "decisions for texture, for shape": [int(two.texture.sum()), int(two.shape.sum())],
        "texture share, %": percent(two.texture_share),
        "of all outputs, decisions for texture, for shape": [
            int(free.texture.sum()),
            int(free.shape.sum()),
        ],
        "of all outputs, texture share, %": percent(free.texture_share),
        "squared distance to the content's code, over its length, median": distance,
        f"control: top-1 of the unpainted images at {side} pixels, %": share(
            control.label == target
        ),
    }


def example_arrays(
    x: torch.Tensor, target: torch.Tensor, kinds: dict[str, torch.Tensor], conflict: Conflict
) -> dict[str, np.ndarray]:
    """The images that are drawn: some with one cue left, and some pairs of each decision."""
    config, two = FIGURE.config, conflict.two_choice
    examples = np.linspace(0, len(x) - 1, config["shown"]).round().astype(int)
    names = np.array([NEITHER, "shape", "texture"])
    decision = names[(two.shape.int() + 2 * two.texture.int()).cpu()]
    per_kind = config["pairs shown"] // 3
    pairs = np.concatenate(
        [np.flatnonzero(decision == kind)[:per_kind] for kind in ("texture", "shape", NEITHER)]
    )
    return {
        "painted.logits": conflict.logits.half().cpu().numpy(),
        "target": target.cpu().numpy(),
        "style": conflict.style.numpy(),
        **{f"shown.{kind}": to_uint8(images[examples]) for kind, images in kinds.items()},
        "content": to_uint8(x[pairs]),
        "paint": to_uint8(x[conflict.style[pairs]]),
        "painted": to_uint8(conflict.painted[pairs]),
        "said": decision[pairs],
    }


def share(right: torch.Tensor) -> list[float]:
    """The share of correct images (N,) in percent, with Wilson's interval."""
    hits = int(right.sum())
    return percent([hits / len(right), *wilson(hits, len(right))])


def percent(values: list[float]) -> list[float]:
    return [100 * v for v in values]


def difference(probability: dict[str, np.ndarray], one: str, other: str) -> list[float]:
    return mean_interval(probability[one] - probability[other], seed=FIGURE.seed)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Each claim, beyond its interval."""
    texture = m["cue conflict"]["texture share, %"]
    return verdict(
        {
            "the texture alone keeps the class more often than the outline alone": above(
                m["texture only less outline only, probability"]
            ),
            "shuffled parts keep more than the outline alone": above(
                m["parts shuffled 4 x 4 less outline only, probability"]
            ),
            "most decisions between shape and texture are for the texture": above(texture, 50),
        }
    )


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    kinds = [key.removeprefix("probability.") for key in a if key.startswith("probability.")]
    return {
        "parts_shape_texture.jpg": draw_variants(a, kinds),
        "probabilities.png": draw_probabilities(m, kinds),
        "conflict.jpg": draw_conflict(a, m["cue conflict"]),
    }
