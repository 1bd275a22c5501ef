"""From the table of a pass to what the pages say of features and classes: numbers that JSON can hold."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reproduce.atlas.tables import Table
from zfnet.data.cache import Images
from zfnet.ranking import Top

LIKED = 8  # classes shown on a feature's page
SIMILAR = 8  # features
CONFUSED = 5  # classes that a class is taken for
DRIVERS = 8  # features of the last layer that drive a class's logit
STEPS = 1000  # of a lift of 1, in the table by which features are sorted for a class


def kinds(images: Images) -> tuple[list[str], list[int], np.ndarray]:
    """What the images are images of: names, the network's output for each, and each image's kind (N,).

    Where they have no classes, these are the photographs that the images are crops of, and there is no output, -1.
    """
    if (images.labels >= 0).any():
        outputs, kind = np.unique(images.labels, return_inverse=True)
        known = outputs >= 0
        kind = np.where(known[kind], kind - (~known).sum(), -1)
        return [images.classes[i] for i in outputs[known]], outputs[known].tolist(), kind
    names, kind = np.unique([name.split("@")[0] for name in images.names], return_inverse=True)
    return names.tolist(), [-1] * len(names), kind


def lifts(
    maximum: Tensor, kind: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean response to the images of each kind over the mean to all, its standard error, and the selectivity of each map.

    From maxima (N, C): (C, count), (C, count), (C,). Selectivity is (m - r) / (m + r), m the largest mean of a kind and r the
    mean of the others (Morcos et al. 2018, section 2.2), in [0, 1]. A silent map has 0 for all; one image has no error, 0.
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


def alike(maximum: Tensor) -> np.ndarray:
    """The correlation of the maps' responses to the images, their maxima (N, C): (C, C), 0 where one is constant."""
    values = maximum.double().numpy()
    values = values - values.mean(0)
    norm = np.linalg.norm(values, axis=0)
    values = values / np.where(norm > 0, norm, 1)
    return values.T @ values


def beside(similarity: np.ndarray) -> list[int]:
    """An order in which like features stand side by side: from the first, always to the most similar of those that are left."""
    left = set(range(1, len(similarity)))
    order = [0]
    while left:
        nearest = max(left, key=lambda c: (similarity[order[-1], c], -c))
        order.append(nearest)
        left.remove(nearest)
    return order


def layer_data(
    table: Table, layer: str, top: Top, numbers: Sequence[int], kind: np.ndarray, count: int
) -> dict:
    """What the pages say of a layer's features `numbers`, in lists beside these."""
    chosen = torch.tensor(numbers)
    maximum, counts = table.maximum[layer][:, chosen], table.counts[layer][chosen]
    lift, error, selectivity = lifts(maximum, kind, count)
    similarity = alike(maximum)
    features = []
    for c, number in enumerate(numbers):
        likes = np.argsort(-lift[c], kind="stable")[:LIKED]
        near = [d for d in np.argsort(-similarity[c], kind="stable") if d != c][:SIMILAR]
        excited = (top.value[number] > 0).sum()
        features.append({
            "value": brief(top.value[number, :excited]), "image": top.index[number, :excited].tolist(),
            "position": top.position[number, :excited].tolist(),
            "zero": brief(counts[c, 0] / counts[c].sum()), "silent": brief((maximum[:, c] <= 0).double().mean()),
            "histogram": counts[c, 1:].tolist(), "selectivity": brief(selectivity[c]),
            "likes": [[int(k), brief(lift[c, k]), brief(error[c, k])] for k in likes if lift[c, k] > 0],
            "similar": [[numbers[d], brief(similarity[c, d])] for d in near if similarity[c, d] > 0],
        })  # fmt: skip
    steps = (lift * STEPS).round().clip(0, 2**16 - 1).astype("<u2")  # (C, count)
    order = [numbers[c] for c in beside(similarity)]
    return {
        "features": features, "order": order, "lift": base64.b64encode(steps.tobytes()).decode(), "step": table.step[layer],
    }  # fmt: skip


def class_data(table: Table, images: Images, top: Top) -> list[dict]:
    """What the page says of each of the network's outputs."""
    labels, predicted, target = images.labels, table.logits.argmax(1).numpy(), table.target.numpy()
    found = []
    for c in range(table.logits.shape[1]):
        own, driven = labels == c, target == c
        taken = Counter(predicted[own].tolist()) if own.any() else Counter()
        right, wrong = (
            taken.pop(c, 0),
            sorted(taken.items(), key=lambda pair: (-pair[1], pair[0]))[:CONFUSED],
        )
        there = [i for i in top.index[c].tolist() if i >= 0]
        item: dict = {
            "images": int(own.sum()), "right": right, "confused": wrong, "taken": int((predicted == c).sum()),
            "top": there, "logit": brief(top.value[c, : len(there)]), "of": int(driven.sum()),
        }  # fmt: skip
        if driven.any():
            mine = torch.from_numpy(driven)
            drive = table.drive[mine].double().mean(0)
            order = [
                d for d in drive.argsort(descending=True, stable=True).tolist() if drive[d] > 0
            ][:DRIVERS]
            item |= {
                "drive": [[d, brief(drive[d])] for d in order],
                "mean": brief(table.logits[mine, c].mean()),
            }
        found.append(item)
    return found


def brief(values):
    """A number, or a list of them, with four significant digits."""
    if isinstance(values, Tensor) and values.ndim:
        return [brief(v) for v in values]
    return float(f"{float(values):.4g}")
