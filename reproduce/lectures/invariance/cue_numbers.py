"""The numbers and example images of parts_shape_texture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from reproduce.core.context import Context
from reproduce.lectures.invariance.cue_conflict import Conflict, resize, to_uint8
from reproduce.lectures.invariance.single_cues import IMAGE, OUTLINE, TEXTURE
from zfnet.analysis.decisions import confidence
from zfnet.analysis.intervals import mean_interval, wilson

PARTS = "parts shuffled, 4 x 4"
KEPT = "share of the image's probability that is kept"
TEXTURE_GAIN = "texture only minus outline only, probability"
PARTS_GAIN = "parts shuffled 4 x 4 minus outline only, probability"
TEXTURE_SHARE = "texture share, %"
NEITHER = "neither"  # the decision for most painted images


def cue_numbers(
    ctx: Context, kinds: dict[str, torch.Tensor], target: torch.Tensor, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The probability of the class with one cue left.

    Args:
        ctx: The network.
        kinds: Images by variant.
        target: Their classes (N,).
        seed: Seed of the bootstrap.

    Returns:
        The measured numbers, and the probabilities (N,) by variant.
    """
    confidences = {kind: confidence(ctx.model, images, target) for kind, images in kinds.items()}
    probability = {kind: c.probability.cpu().numpy() for kind, c in confidences.items()}
    measured = {
        "probability of the class": {
            kind: mean_interval(p, seed=seed) for kind, p in probability.items()
        },
        KEPT: {
            kind: mean_interval(p, probability[IMAGE], seed=seed)
            for kind, p in probability.items()
            if kind != IMAGE
        },
        "top-1, %": {kind: share(c.label == target) for kind, c in confidences.items()},
        TEXTURE_GAIN: mean_interval(probability[TEXTURE] - probability[OUTLINE], seed=seed),
        PARTS_GAIN: mean_interval(probability[PARTS] - probability[OUTLINE], seed=seed),
    }
    return measured, probability


def conflict_numbers(
    ctx: Context, x: torch.Tensor, target: torch.Tensor, conflict: Conflict, side: int
) -> dict[str, Any]:
    """The decisions for texture and shape, and a control for the resolution of painting, `side`."""
    control = confidence(ctx.model, resize(resize(x, side), x.shape[-1]), target)
    two, every = conflict.two_choice, conflict.open_choice
    distance = float(conflict.distance.median())
    return {
        "pairs": len(x),
        "decisions for texture, for shape": [int(two.texture.sum()), int(two.shape.sum())],
        TEXTURE_SHARE: percent(two.texture_share),
        "among all outputs: decisions for texture, for shape": [
            int(every.texture.sum()),
            int(every.shape.sum()),
        ],
        "among all outputs: texture share, %": percent(every.texture_share),
        "relative squared distance to the content's layer-4 code, median": distance,
        f"control: top-1 of the unpainted images at {side} pixels, %": share(
            control.label == target
        ),
    }


def example_arrays(
    x: torch.Tensor,
    target: torch.Tensor,
    kinds: dict[str, torch.Tensor],
    conflict: Conflict,
    config: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """The images that are drawn: some with one cue left, and some pairs of each decision."""
    two = conflict.two_choice
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
        "style images": to_uint8(x[conflict.style[pairs]]),
        "painted": to_uint8(conflict.painted[pairs]),
        "decision": decision[pairs],
    }


def share(correct: torch.Tensor) -> list[float]:
    """The share of correct images (N,) in percent, with Wilson's interval."""
    hits = int(correct.sum())
    return percent([hits / len(correct), *wilson(hits, len(correct))])


def percent(values: list[float]) -> list[float]:
    return [100 * v for v in values]
