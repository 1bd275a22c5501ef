"""The images of Figure 5: five shown, 200 averaged, and those of a symmetric object."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES
from zfnet.analysis.invariance import SHARE, views
from zfnet.data.images import center, standardize
from zfnet.data.samples import photograph


class Chosen(NamedTuple):
    """Images to transform, the shown ones first.

    Attributes:
        squares: (N, 3, S, S), standardized squares.
        targets: (N,), their classes.
        titles: Titles of the shown images.
        averaged: Rows of the images to average over.
        symmetric: Rows of the images of the symmetric object.
    """

    squares: Tensor
    targets: Tensor
    titles: list[str]
    averaged: np.ndarray
    symmetric: np.ndarray


def choose(ctx: Context, config: dict[str, Any]) -> Chosen:
    """Choose images: of the paper's classes, where the corpus has them all, else of any."""
    if ctx.corpus == SAMPLES:
        return _choose_samples(ctx, config["photographs"])
    images, labels = ctx.images, ctx.images.labels
    count = min(len(images), config["average"])
    averaged = np.linspace(0, len(images) - 1, count).round().astype(int)
    wnids = [wnid for wnid in config["classes"] if wnid in ctx.model.wnids]
    outputs = [ctx.model.wnids.index(wnid) for wnid in wnids]
    outputs = [output for output in outputs if output in labels]
    complete = len(outputs) == len(config["classes"])
    pool = np.flatnonzero(np.isin(labels, outputs)) if complete else averaged
    probability = _probability(ctx, _squares(ctx, images.raw(pool))).numpy()
    true = probability[np.arange(len(pool)), labels[pool]]
    best: dict[int, int] = {}  # class -> its most probable image, the most probable class first
    for i in pool[np.argsort(-true, kind="stable")]:
        best.setdefault(int(labels[i]), int(i))
    shown = [best[label] for label in (outputs if complete else list(best)[:5])]
    symmetric = np.flatnonzero(labels == labels[shown[-1]])
    averaged = np.setdiff1d(averaged, symmetric)
    rows = np.concatenate([shown, averaged, symmetric])
    ends = np.cumsum([len(shown), len(averaged)])
    _, averaged_rows, symmetric_rows = np.split(np.arange(len(rows)), ends)
    titles = [ctx.model.classes[labels[i]] for i in shown]
    targets = torch.from_numpy(labels[rows])
    squares = _squares(ctx, images.raw(rows))
    return Chosen(squares, targets, titles, averaged_rows, symmetric_rows)


def _choose_samples(ctx: Context, names: list[str]) -> Chosen:
    """Sample photographs, with the predicted classes; the last is the symmetric object."""
    pixels = np.stack([np.asarray(center(photograph(name))) for name in names])
    squares = _squares(ctx, torch.from_numpy(pixels))
    targets, rows = _probability(ctx, squares).argmax(1), np.arange(len(names))
    return Chosen(squares, targets, names, rows, rows[-1:])


def _squares(ctx: Context, pixels: Tensor) -> Tensor:
    """Pixels (N, S, S, 3) as standardized squares (N, 3, S, S)."""
    return standardize(pixels.permute(0, 3, 1, 2)).to(ctx.device)


def _probability(ctx: Context, squares: Tensor) -> Tensor:
    """The probabilities in the untransformed view: (N, classes)."""
    logits = [
        ctx.model(views(part, "scale", [1.0], share=SHARE)[:, 0]) for part in squares.split(16)
    ]
    return torch.cat(logits).softmax(1).cpu()
