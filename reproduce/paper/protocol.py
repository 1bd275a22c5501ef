"""What Tables 4, 5 and 7 and Figure 9 share: the folds, the features, the overlaps left out, and training from scratch.

The paper's protocol, section 5: a number of images of each class to train on, up to 50 others of it to test on, the mean over
classes of the accuracy in a class, its mean and standard deviation over five folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

import zfnet
from reproduce import REPOSITORY
from reproduce.core.context import Context
from reproduce.core.digits import TRAINING_VERSION
from reproduce.core.figure import Figure
from zfnet.analysis.features import extract
from zfnet.analysis.overlaps import find_overlaps
from zfnet.analysis.transfer import C_GRID, coordinates, folds, gram, per_class_accuracy
from zfnet.data.benchmarks import load_caltech101, load_caltech256
from zfnet.data.cache import Images, cache_dir, digest
from zfnet.training.config import load_config, to_dict
from zfnet.training.loop import train

LOADERS = {"caltech101": load_caltech101, "caltech256": load_caltech256}
FROM_SCRATCH = REPOSITORY / "configs" / "caltech101.yaml"


def unseen(ctx: Context, name: str) -> tuple[Images, np.ndarray, dict, dict, str]:
    """A data set, which of its images the network has not seen in training, the counts, the likeliest overlaps, and a word.

    The overlaps are 20 pairs (20, 2, 64, 64, 3), each image above the training image that is most like it, their correlations,
    and how many are left out.
    """
    images, others = ctx.dataset(name), ctx.pretraining
    counts = {"images": len(images), "classes": len(images.classes)}
    if others is None:
        return (
            images,
            np.arange(len(images)),
            counts,
            {},
            "Overlaps with the pretraining images were not searched: no --data. ",
        )
    found = find_overlaps(images, others, progress=ctx.progress)
    counts |= {"images that overlap": len(found.index), "pretraining images searched": len(others)}
    counts["highest correlation of those kept"] = round(
        float(np.delete(found.correlation, found.index).max(initial=-1)), 3
    )
    nearest = np.argsort(-found.correlation, kind="stable")[:20]
    pairs = [small(images, nearest), small(others, found.other[nearest])]
    pictures = {
        "overlaps": np.stack(pairs, 1),
        "correlation": found.correlation[nearest],
        "left out": np.array(len(found.index)),
    }
    word = "Images that overlap with one of the network's training images are left out. "
    if others.digest != ctx.model.info.get("data"):
        word = "Overlaps were searched in a tree that the network was not trained on. "
    return images, np.setdiff1d(np.arange(len(images)), found.index), counts, pictures, word


def small(images: Images, chosen: np.ndarray) -> np.ndarray:
    """Pictures of 64 pixels: (n, 64, 64, 3) uint8."""
    pixels = images.raw(chosen).permute(0, 3, 1, 2).float()
    return F.interpolate(pixels, (64, 64), mode="area").byte().permute(0, 2, 3, 1).numpy()


def inner_products(ctx: Context, images: Images, kept: np.ndarray, layer: str) -> np.ndarray:
    """The Gram matrix of the kept images' features at a layer of the frozen network."""
    features = extract(ctx.model, images, (layer,), progress=ctx.progress)[layer]
    return gram(features, progress=ctx.progress)[np.ix_(kept, kept)]


class Classified(NamedTuple):
    """A linear classifier of frozen features on each fold: its accuracy in percent, the C that was chosen, and of which.

    Of one image a class there is nothing to choose by: C is None, and the classifier's the middle one of the choices.
    """

    accuracy: list[float]
    c: list[float | None]
    choices: Sequence[float]


def frozen(
    ctx: Context,
    products: np.ndarray,
    labels: np.ndarray,
    classifier: Callable,
    per_class: int,
    figure: Figure,
) -> Classified:
    """Fit a classifier, `softmax` or `linear_svm`, of frozen features on each fold, from their inner products."""
    found = Classified([], [], C_GRID[classifier.__name__])
    splits = folds(
        labels,
        per_class,
        max_test=figure.config["most to test"],
        count=figure.config["folds"],
        seed=figure.seed,
    )
    for fold in ctx.progress(
        splits, total=len(splits), desc=f"{classifier.__name__}, {per_class} a class"
    ):
        x, others = coordinates(products, fold)
        fitted = classifier(x, labels[fold.train], found.choices)
        found.accuracy.append(per_class_accuracy(labels[fold.test], fitted.predict(others)))
        found.c.append(float(fitted.C) if per_class > 1 else None)
    return found


def at_the_ends(found: Sequence[Classified]) -> str:
    """How C was chosen, and how often it was the first or the last of the choices: then another might have been better."""
    chosen = [(c, of.choices) for of in found for c in of.c if c is not None]
    ends = sum(c in (choices[0], choices[-1]) for c, choices in chosen)
    middle = (
        " Of one image a class C is the middle one."
        if len(chosen) < sum(len(of.c) for of in found)
        else ""
    )
    return f"C by cross-validation on 30 of the classes, an end of its range in {ends} of {len(chosen)} folds.{middle} "


def from_scratch(ctx: Context, kept: np.ndarray, per_class: int, figure: Figure) -> list[float]:
    """The accuracy in percent on each fold of a ZFNet trained on nothing else, by `configs/caltech101.yaml`.

    The last epoch counts. How many there are was chosen on the test images of Caltech-101's first fold, which favours this
    baseline there.
    Finished trainings are kept in the cache, and an interrupted one continues.
    """
    config = load_config(FROM_SCRATCH)
    assert config.optim.schedule == "one_cycle"  # another one would look at the test images
    load, side = LOADERS[figure.corpus], config.stages[-1].side
    images = load(ctx.datasets, side=side, size=config.model.size, progress=ctx.progress).subset(
        kept
    )
    found = []
    splits = folds(
        images.labels,
        per_class,
        max_test=figure.config["most to test"],
        count=figure.config["folds"],
        seed=figure.seed,
    )
    for number, fold in enumerate(
        ctx.progress(splits, total=len(splits), desc=f"from scratch, {per_class} a class")
    ):
        parts = {"train": images.subset(fold.train), "val": images.subset(fold.test)}
        out = (
            cache_dir()
            / f"scratch-{digest(to_dict(config), number, parts['train'].digest, TRAINING_VERSION)[:20]}"
        )
        if not (out / "model.safetensors").exists():
            seeded = replace(config, seed=number)
            resume = (out / "state.safetensors").exists()
            with torch.enable_grad():
                train(
                    seeded,
                    lambda split, side, p=parts: p[split],
                    out,
                    resume=resume,
                    device=ctx.device,
                )
        model = zfnet.load(out / "model.safetensors").to(ctx.device)
        with torch.inference_mode():
            logits = [
                model(parts["val"].batch(i).to(ctx.device))
                for i in np.array_split(np.arange(len(fold.test)), 50)
            ]
        predicted = torch.cat(logits).argmax(1).cpu().numpy()
        found.append(per_class_accuracy(parts["val"].labels, predicted))
    return found


def mean_and_deviation(values: list[float]) -> list[float]:
    """[mean, standard deviation] over folds, in percent, as the paper gives them."""
    return [round(float(np.mean(values)), 2), round(float(np.std(values)), 2)]


def words(cell: list[float] | float | None) -> str:
    """A cell of a table: mean and deviation, one number, or nothing."""
    numbers = cell if isinstance(cell, list) else [] if cell is None else [cell]
    return " ± ".join(f"{value:.1f}" for value in numbers)
