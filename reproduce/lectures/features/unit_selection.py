"""Choose a layer's best unit for a label on half of the classes, and test it on the other half."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.lectures.features.labeled_images import LabeledImages
from zfnet.analysis.intervals import bootstrap
from zfnet.analysis.selectivity import auc, best_unit, permute_labels

HELD_OUT = "AUC on held-out classes"
CONTROLS = ("permuted labels", "labels permuted within classes")
LIMITS = "{}: mean and 97.5 %"  # of the AUC on held-out classes


def measure(
    images: LabeledImages,
    maxima: dict[str, torch.Tensor],
    permutations: int,
    seed: int,
    generator: torch.Generator,
) -> tuple[dict[str, Any], list[int], dict[str, np.ndarray]]:
    """Choose the best units on half of the classes, and test them on the other half.

    Args:
        images: The images.
        maxima: Largest activations (N, units) by layer.
        permutations: Number of permutations of each control.
        seed: Seed of the bootstrap.
        generator: Permutes the labels of the controls.

    Returns:
        The measured numbers, the units of layer 5 chosen by both halves, and arrays.
    """
    _, y, class_of, first, _ = images
    positive, in_first, classes = (torch.from_numpy(array) for array in (y, first, class_of))
    best = {layer: best_unit(values, positive, in_first) for layer, values in maxima.items()}
    units = best["conv5"].unit.tolist()
    measured = {
        "images with and without the label": [int(y.sum()), int((~y).sum())],
        "units of layer 5 chosen on the two halves": units,
        "features shown": [f"conv5/{units[0]}"],
        "AUC on the half that chose the unit": best["conv5"].selection_auc.tolist(),
        HELD_OUT: {
            layer: held_out_auc(values.numpy(), y, first, class_of, best[layer].unit.tolist(), seed)
            for layer, values in maxima.items()
        },
    }
    arrays = {"units": auc(maxima["conv5"], positive).numpy()}
    for name, groups in zip(CONTROLS, (torch.zeros_like(classes), classes), strict=True):
        labelings = permute_labels(positive, groups, permutations, generator)
        control = best_unit(maxima["conv5"], labelings, in_first).held_out_auc.mean(1)
        limits = [float(control.mean()), float(control.quantile(0.975))]
        measured[LIMITS.format(name)] = limits
        arrays[name] = auc(maxima["conv5"], labelings[:20]).numpy().ravel()
    return measured, units, arrays


def strongest_held_out(values: torch.Tensor, images: LabeledImages, count: int) -> list[int]:
    """The images with the largest values (N,) in the half that did not choose the first unit."""
    order = values.argsort(descending=True).tolist()
    return [i for i in order if not images.first[i]][:count]


def held_out_auc(
    values: np.ndarray,
    y: np.ndarray,
    first: np.ndarray,
    class_of: np.ndarray,
    units: list[int],
    seed: int = 0,
) -> list[float]:
    """The mean AUC of two units, each on the half of the classes that did not choose it.

    Args:
        values: Largest activations (N, units).
        y: Labels (N,).
        first: Whether an image is in the first half (N,).
        class_of: Class of each image (N,).
        units: The units that the first and the second half chose.
        seed: Seed of the bootstrap.

    Returns:
        [mean, low, high], with an interval over classes.
    """
    pairs = []
    for held_out, unit in zip((~first, first), units, strict=True):
        positive, negative = np.flatnonzero(y & held_out), np.flatnonzero(~y & held_out)
        difference = values[positive, unit][:, None] - values[negative, unit]
        pairs.append(((np.sign(difference) + 1) / 2, class_of[positive], class_of[negative]))

    def mean(drawn: np.ndarray) -> float:
        weight = np.bincount(drawn, minlength=class_of.max() + 1)
        sums = [
            (weight[a] @ wins @ weight[b], weight[a].sum() * weight[b].sum())
            for wins, a, b in pairs
        ]
        return float(np.mean([wins / number if number else np.nan for wins, number in sums]))

    classes = class_of.max() + 1
    return [mean(np.arange(classes)), *bootstrap(mean, classes, seed=seed)]
