"""The protocol of Tables 4, 5 and 7 and Figure 9: folds, features, overlaps, and classifiers.

The paper's protocol (section 5): a number of training images per class, up to 50 other images per
class to test on, and the mean over classes of the per-class accuracy, with its mean and standard
deviation over five folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import zfnet
from reproduce import REPOSITORY
from reproduce.core.context import Context
from reproduce.core.digits import TRAINING_VERSION
from reproduce.core.figure import Figure
from zfnet.analysis.features import extract
from zfnet.analysis.overlaps import find_overlaps
from zfnet.analysis.transfer import C_GRID, Fold, coordinates, folds, gram, per_class_accuracy
from zfnet.data.benchmarks import load_caltech101, load_caltech256
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.training.config import Config, load_config, to_dict
from zfnet.training.loop import train

LOADERS = {"caltech101": load_caltech101, "caltech256": load_caltech256}
OVERLAPS = "images that overlap with ImageNet"
FROM_SCRATCH = REPOSITORY / "configs" / "caltech101.yaml"


class Unseen(NamedTuple):
    """The images of a data set that the network was not trained on.

    Attributes:
        images: The whole data set.
        rows: The images without an overlap with the pretraining images.
        counts: Numbers of images, classes and overlaps, for the record.
        note: A sentence on the overlaps.
    """

    images: Images
    rows: np.ndarray
    counts: dict[str, Any]
    note: str


def unseen(ctx: Context, name: str) -> Unseen:
    """Exclude images that overlap with the network's pretraining images."""
    images, others = ctx.dataset(name), ctx.pretraining
    counts: dict[str, Any] = {"images": len(images), "classes": len(images.classes)}
    if others is None:
        note = "Overlaps with the pretraining images were not searched: no --data. "
        return Unseen(images, np.arange(len(images)), counts, note)
    overlaps = find_overlaps(images, others, progress=ctx.progress)
    remaining = np.delete(overlaps.correlation, overlaps.index)
    counts[OVERLAPS] = len(overlaps.index)
    counts["pretraining images searched"] = len(others)
    counts["highest correlation of the other images"] = round(float(remaining.max(initial=-1)), 3)
    note = "Images that overlap with one of the network's training images are left out. "
    if others.digest != ctx.model.info.get("data"):
        note = "Overlaps were searched in a tree that the network was not trained on. "
    rows = np.setdiff1d(np.arange(len(images)), overlaps.index)
    return Unseen(images, rows, counts, note)


def inner_products(ctx: Context, images: Images, rows: np.ndarray, layer: str) -> np.ndarray:
    """The Gram matrix of some images' features at a layer of the frozen network."""
    features = extract(ctx.model, images, (layer,), progress=ctx.progress)[layer]
    return gram(features, progress=ctx.progress)[np.ix_(rows, rows)]


class Classified(NamedTuple):
    """Linear classifiers of frozen features.

    Attributes:
        accuracy: Accuracy on each fold, in percent.
        c: The regularization C that was chosen on each fold. None with one image per class, as
            cross-validation is impossible, and the middle of the grid is used.
        choices: The grid of C.
    """

    accuracy: list[float]
    c: list[float | None]
    choices: Sequence[float]


def classify_frozen(
    ctx: Context,
    products: np.ndarray,
    labels: np.ndarray,
    classifier: Callable,
    per_class: int,
    figure: Figure,
) -> Classified:
    """Fit a classifier on each fold.

    Args:
        ctx: The run, for its progress.
        products: (N, N), inner products of the features.
        labels: (N,), the classes.
        classifier: `softmax` or `linear_svm`.
        per_class: Training images per class.
        figure: Its config has the number of folds and of test images.
    """
    name = classifier.__name__
    result = Classified([], [], C_GRID[name])
    splits = _folds(labels, per_class, figure)
    for fold in ctx.progress(splits, total=len(splits), desc=f"{name}, {per_class} per class"):
        train, test = coordinates(products, fold)
        fitted = classifier(train, labels[fold.train], result.choices)
        result.accuracy.append(per_class_accuracy(labels[fold.test], fitted.predict(test)))
        result.c.append(float(fitted.C) if per_class > 1 else None)
    return result


def _folds(labels: np.ndarray, per_class: int, figure: Figure) -> list[Fold]:
    config = figure.config
    count, max_test = config["folds"], config["most to test"]
    return folds(labels, per_class, max_test=max_test, count=count, seed=figure.seed)


def grid_note(results: Sequence[Classified]) -> str:
    """A sentence on how C was chosen, and how often it was an end of the grid.

    Where it was, a value beyond the grid might have been better.
    """
    chosen = [(c, result.choices) for result in results for c in result.c if c is not None]
    ends = sum(c in (choices[0], choices[-1]) for c, choices in chosen)
    note = (
        f"C by cross-validation on 30 of the classes, an end of its range in {ends} of "
        f"{len(chosen)} folds. "
    )
    if len(chosen) < sum(len(result.c) for result in results):
        note += "With one image per class, C is the middle of the range. "
    return note


def train_from_scratch(
    ctx: Context, rows: np.ndarray, per_class: int, figure: Figure
) -> list[float]:
    """Train a ZFNet on each fold by `configs/caltech101.yaml`.

    The accuracy is that after the last epoch. The number of epochs was chosen on the test images of
    Caltech-101's first fold, which favors this baseline there. Finished trainings are cached, and
    an interrupted one resumes.

    Returns:
        The accuracy on each fold, in percent.
    """
    config = load_config(FROM_SCRATCH)
    assert config.optim.schedule == "one_cycle"  # other schedules use the test images
    load, side = LOADERS[figure.corpus], config.stages[-1].side
    dataset = load(ctx.datasets, side=side, size=config.model.size, progress=ctx.progress)
    images = dataset.subset(rows)
    splits, accuracy = _folds(images.labels, per_class, figure), []
    description = f"from scratch, {per_class} per class"
    for number, fold in enumerate(ctx.progress(splits, total=len(splits), desc=description)):
        parts = {"train": images.subset(fold.train), "val": images.subset(fold.test)}
        key = digest(to_dict(config), number, parts["train"].digest, TRAINING_VERSION)[:20]
        out = cache_dir() / f"scratch-{key}"
        if not (out / "model.safetensors").exists():
            _train(replace(config, seed=number), parts, out, ctx.device)
        predicted = _predict(out / "model.safetensors", parts["val"], ctx.device)
        accuracy.append(per_class_accuracy(parts["val"].labels, predicted))
    return accuracy


def _train(config: Config, parts: dict[str, Images], out: Path, device: str) -> None:
    resume = (out / "state.safetensors").exists()
    with torch.enable_grad():
        train(config, lambda split, side: parts[split], out, resume=resume, device=device)


@torch.inference_mode()
def _predict(checkpoint: Path, images: Images, device: str) -> np.ndarray:
    """The most probable class of each image."""
    model = zfnet.load(checkpoint).to(device)
    batches = np.array_split(np.arange(len(images)), 50)
    logits = [model(images.batch(rows).to(device)) for rows in batches]
    return torch.cat(logits).argmax(1).cpu().numpy()


def mean_and_deviation(values: Sequence[float]) -> list[float]:
    """[mean, standard deviation] over folds, in percent, as in the paper."""
    return [round(float(np.mean(values)), 2), round(float(np.std(values)), 2)]
