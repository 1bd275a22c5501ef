"""Summarize the table of a pass as the numbers on the pages, in a form that JSON can hold."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reproduce.site.atlas.tables import Table
from zfnet.data.dataset import Images
from zfnet.ranking import Top

MAX_CLASSES = 8  # on a feature's page
MAX_SIMILAR = 8  # features on a feature's page
MAX_CONFUSED = 5  # classes on a class's page
MAX_EVIDENCE = 8  # features of the last layer on a class's page
OCTAVE, ONE = 24, 72  # levels of a lift per octave, and the level of 1, in the table of lifts


def kinds(images: Images) -> tuple[list[str], list[int], np.ndarray]:
    """Sort images into kinds: their classes, or without labels the photographs they are crops of.

    Returns:
        The names of the kinds, the network's output of each (-1 for photographs), and the kind of
        each image (N,), -1 without a label.
    """
    if (images.labels >= 0).any():
        outputs, kind = np.unique(images.labels, return_inverse=True)
        labeled = outputs >= 0
        kind = np.where(labeled[kind], kind - (~labeled).sum(), -1)
        names = [str(images.classes[i]) for i in outputs[labeled]]
        return names, outputs[labeled].tolist(), kind
    names, kind = np.unique([str(name).split("@")[0] for name in images.names], return_inverse=True)
    return names.tolist(), [-1] * len(names), kind


def lifts(
    maximum: Tensor, kind: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much more each map responds to the images of a kind than to all images.

    Args:
        maximum: The largest activation of each map in each image (N, C).
        kind: The kind of each image (N,). Images of kind -1 do not count.
        count: The number of kinds.

    Returns:
        The lift, the mean response to a kind over the mean response to all (C, count); its
        standard error (C, count), 0 for a single image; and the selectivity (C,), in [0, 1].
        Selectivity is (m - r) / (m + r), with m the largest mean of a kind and r the mean of the
        others (Morcos et al. 2018, section 2.2). A silent map has zeros.
    """
    values = maximum[torch.from_numpy(kind >= 0)].double().numpy()
    members = np.eye(count)[kind[kind >= 0]]  # (N, count)
    n = members.sum(0)
    mean = values.T @ members / n  # (C, count)
    variance = np.maximum((values**2).T @ members / n - mean**2, 0) * n / np.maximum(n - 1, 1)
    overall = values.mean(0)[:, None]
    scale = np.where(overall > 0, overall, 1)
    best, others = mean.max(1), (mean.sum(1) - mean.max(1)) / max(count - 1, 1)
    selectivity = np.where(best > 0, (best - others) / np.where(best > 0, best + others, 1), 0)
    return mean / scale, np.sqrt(variance / n) / scale * (n > 1), selectivity


def correlations(maximum: Tensor) -> np.ndarray:
    """The correlations of the maps' maxima (N, C) over images: (C, C), 0 for constant maps."""
    values = maximum.double().numpy()
    values = values - values.mean(0)
    norm = np.linalg.norm(values, axis=0)
    values = values / np.where(norm > 0, norm, 1)
    return values.T @ values


def similarity_order(similarity: np.ndarray) -> list[int]:
    """An order from feature 0, in which the most similar remaining feature always comes next."""
    remaining = set(range(1, len(similarity)))
    order = [0]
    while remaining:
        nearest = max(remaining, key=lambda c: (similarity[order[-1], c], -c))
        order.append(nearest)
        remaining.remove(nearest)
    return order


def layer_data(
    table: Table, layer: str, top: Top, numbers: Sequence[int], kind: np.ndarray, count: int
) -> dict[str, Any]:
    """The data file of a layer.

    Args:
        table: The responses.
        layer: The layer.
        top: Its strongest images.
        numbers: The features of the atlas.
        kind: The kind of each image (N,).
        count: The number of kinds.
    """
    chosen = torch.tensor(numbers)
    maximum, counts = table.maximum[layer][:, chosen], table.counts[layer][chosen]
    lift, error, selectivity = lifts(maximum, kind, count)
    similarity = correlations(maximum)
    features = []
    for c, number in enumerate(numbers):
        best = np.argsort(-lift[c], kind="stable")[:MAX_CLASSES]
        near = [d for d in np.argsort(-similarity[c], kind="stable") if d != c][:MAX_SIMILAR]
        n = (top.value[number] > 0).sum()
        features.append({
            "value": rounded(top.value[number, :n]),
            "image": top.index[number, :n].tolist(),
            "position": top.position[number, :n].tolist(),
            "zero": rounded(counts[c, 0] / counts[c].sum()),
            "silent": rounded((maximum[:, c] <= 0).double().mean()),
            "histogram": counts[c, 1:].tolist(),
            "selectivity": rounded(selectivity[c]),
            "classes": [
                [int(k), rounded(lift[c, k]), rounded(error[c, k])] for k in best if lift[c, k] > 0
            ],
            "similar": [
                [numbers[d], rounded(similarity[c, d])] for d in near if similarity[c, d] > 0
            ],
        })  # fmt: skip
    return {
        "features": features,
        "order": [numbers[c] for c in similarity_order(similarity)],
        "lift": base64.b64encode(levels(lift).tobytes()).decode(),
        "step": table.step[layer],
    }


def levels(lift: np.ndarray) -> np.ndarray:
    """Lifts in 8 bits: 0, or a level per 1/24 octave from 2^-3 to 2^7.6, within 1.5 %."""
    octaves = np.log2(np.where(lift > 0, lift, 1))
    level = (OCTAVE * octaves).round() + ONE
    return np.where(lift > 0, level.clip(1, 255), 0).astype(np.uint8)


def class_data(table: Table, images: Images, top: Top) -> list[dict[str, Any]]:
    """The data of each of the network's outputs.

    Args:
        table: The responses.
        images: The corpus.
        top: The images with the highest logits.
    """
    labels, predicted = images.labels, table.logits.argmax(1).numpy()
    data = []
    for c in range(table.logits.shape[1]):
        members = labels == c
        predictions = Counter(predicted[members].tolist())
        correct = predictions.pop(c, 0)
        confused = sorted(predictions.items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [i for i in top.index[c].tolist() if i >= 0]
        item = {
            "images": int(members.sum()),
            "correct": correct,
            "confused": confused[:MAX_CONFUSED],
            "predicted": int((predicted == c).sum()),
            "top": shown,
            "logit": rounded(top.value[c, : len(shown)]),
        }
        data.append(item | _evidence(table, c))
    return data


def _evidence(table: Table, c: int) -> dict[str, Any]:
    """Which features of the last layer raise the logit of a class; empty without target images."""
    targets = table.target == c
    if not targets.any():
        return {}
    drive = table.drive[targets].double().mean(0)
    order = drive.argsort(descending=True, stable=True).tolist()
    return {
        "drive": [[d, rounded(drive[d])] for d in order if drive[d] > 0][:MAX_EVIDENCE],
        "drive_images": int(targets.sum()),
        "mean": rounded(table.logits[targets, c].mean()),
    }


def rounded(values: Any) -> Any:
    """A number, or a list of them, with four significant digits."""
    if isinstance(values, Tensor) and values.ndim:
        return [rounded(value) for value in values]
    return float(f"{float(values):.4g}")
