"""The scores of the figure on faithfulness: pointing, insertion, deletion, and randomization."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.bench.faithfulness_scenes import Scenes, attribute
from reproduce.core.context import Context
from zfnet.analysis.faithfulness import (
    auc,
    pointing_game,
    randomize_layers,
    rank_correlation,
    replacement_curve,
)
from zfnet.analysis.intervals import mean_interval
from zfnet.model import Network
from zfnet.synthesis.base import blur

SCORES = {
    "pointing game": "pointing game, %",
    "insertion": "insertion AUC",
    "deletion": "deletion AUC",
}
LESS = "rank correlation over the cascade, less saliency's"
LESS_OF = ("guided_backprop", "deconvnet")
SAME = "rank correlation with the map of the random network"


def score_maps(
    ctx: Context, model: Network, scenes: Scenes, maps: dict[str, Tensor], config: dict[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Return pointing game, insertion and deletion: (N,) by score and method."""
    scores: dict[str, dict[str, np.ndarray]] = {score: {} for score in SCORES}
    soft = blur(scenes.x, config["blur"])
    for name, map in ctx.progress(maps.items(), total=len(maps), desc="pointing and replacing"):
        hits = pointing_game(map, scenes.mask, config["tolerance"])
        scores["pointing game"][name] = 100 * hits.numpy()
        options = {
            "map": map.nan_to_num().to(ctx.device),
            "target": scenes.target,
            "steps": config["steps"],
            "generator": None,
        }
        inserted = replacement_curve(model, soft, scenes.x, **options)
        deleted = replacement_curve(model, scenes.x, 0.0, **options)
        scores["insertion"][name] = auc(inserted).cpu().numpy()
        scores["deletion"][name] = auc(deleted).cpu().numpy()
    return scores


def randomize(
    ctx: Context,
    model: Network,
    scenes: Scenes,
    maps: dict[str, Tensor],
    config: dict[str, Any],
    generator: torch.Generator,
) -> tuple[dict, dict[str, np.ndarray], list[str]]:
    """Randomize the network from the logits down, layer by layer.

    Returns:
        The measured numbers; the rank correlations with the map of the trained network (n, layers)
        by method; the layers in order.
    """
    few, methods = config["randomised images"], zfnet.METHODS
    x, target = scenes.x[:few], scenes.target[:few]
    signed: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    absolute: dict[str, np.ndarray] = {}
    layers = []
    for layer, randomized in randomize_layers(model, generator):
        layers.append(layer)
        description = f"{layer} and above at random"
        for name in ctx.progress(methods, total=len(methods), desc=description):
            options = config.get(name, {})
            before, after = maps[name][:few], attribute(randomized, x, target, name, options)
            # The correlation with a flat map is NaN: count it as 0.
            signed[name].append(rank_correlation(before, after).nan_to_num().numpy())
            correlation = rank_correlation(before.abs(), after.abs()).nan_to_num().numpy()
            absolute[name] = correlation
    cascade = {name: np.stack(values, 1) for name, values in signed.items()}
    mean = {name: values.mean(1) for name, values in cascade.items()}
    measured = {
        SAME: {name: mean_interval(values[:, -1]) for name, values in cascade.items()},
        f"{SAME}, of absolute values": {name: mean_interval(v) for name, v in absolute.items()},
        "rank correlation, mean over the cascade": {
            name: mean_interval(values) for name, values in mean.items()
        },
        LESS: {name: mean_interval(mean[name] - mean["saliency"]) for name in LESS_OF},
    }
    return measured, cascade, layers
