"""Units of layer 5 that respond to faces, and to text, without labels for either.

Lectures on Fig. 2 of the paper and on DeepVis show a face detector and a text detector among the
maps of layer 5, though ImageNet has no such class. The measure is the area under the ROC curve
(AUC) of a unit's largest activation, over images that were annotated for this project: ten of each
of 28 classes. The best of 256 units is best partly by chance, and a class may predict the label. So
the unit is chosen on half of the classes and tested on the other half, both ways. Controls permute
the labels among all images (chance), and within each class (what the class alone predicts).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from reproduce.core.annotations import find_annotated
from reproduce.core.claims import verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding, show_tiles
from reproduce.lectures.features.auc_pictures import draw_distribution, draw_layers
from reproduce.lectures.features.labeled_images import LabeledImages, labeled_images
from reproduce.lectures.sampling import subset, unit_patches
from zfnet.analysis.intervals import bootstrap
from zfnet.analysis.responses import responses
from zfnet.analysis.selectivity import auc, best_unit, permute_labels
from zfnet.plot import enlarge, photograph

FIGURE = Figure(
    id="faces_text",
    title="Units that respond to faces and text, which are not classes",
    claim="One unit of layer 5 detects faces, and one detects text, in classes that were not used "
    "to choose it: better than the classes alone predict.",
    inputs=("model", "images"),
    seed=5,
    time_budget=1,
    config={
        "layers": ["conv1", "conv2", "conv3", "conv4", "conv5"],
        "permutations": 1000,
        "at least": 10,
        "shown": 8,
    },
    files=("faces_and_text.yaml",),
    version=2,
    network="layers",
)
MARKS = Path(__file__).with_name("faces_and_text.yaml")
LABELS = ("face", "text")


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    numbers, marks, missing = annotated(ctx)
    names = [str(ctx.images.names[i]) for i in numbers]
    chosen = {label: labeled_images(names, marks, label) for label in LABELS}
    if min(images.smallest_group for images in chosen.values()) < config["at least"]:
        note = f"Fewer than {config['at least']} annotated images of a kind. {missing}"
        return Result({}, {"images": len(numbers)}, "not run", n=len(numbers), note=note)
    responses_of = responses(
        ctx.model, subset(ctx, np.array(numbers)), config["layers"], progress=ctx.progress
    )
    arrays: dict[str, np.ndarray] = {}
    measured: dict[str, Any] = {"images": len(numbers)}
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for label, images in chosen.items():
        maxima = {layer: table.maximum[images.index] for layer, table in responses_of.items()}
        measured[label], units, arrays_of = measure(images, maxima, generator)
        order = strongest_held_out(maxima["conv5"][:, units[0]], images)
        position = responses_of["conv5"].position[images.index[order], units[0]]
        index = np.array(numbers)[images.index[order]]
        arrays_of["patches"] = photograph(unit_patches(ctx, "conv5", index, position))
        arrays_of["right"] = images.positive[order]
        arrays |= {f"{label}.{name}": array for name, array in arrays_of.items()}
    claims, outcome = judge(measured)
    note = (
        "The unit is chosen on half of the classes and tested on the other, both ways; the two "
        "AUCs are averaged. Intervals: 95 %, by bootstrap over classes. Controls permute the "
        "labels of all images (luck), or within each class (the class alone). Text is tested on "
        "images without a face, so that avoiding faces does not help. The images shown are the "
        f"strongest of the half that did not choose the unit. {missing}"
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(numbers), note=note)


def measure(
    images: LabeledImages, maxima: dict[str, torch.Tensor], generator: torch.Generator
) -> tuple[dict[str, Any], list[int], dict[str, np.ndarray]]:
    """Choose the best units on half of the classes, and test them on the other half.

    Args:
        images: The images.
        maxima: Largest activations (N, units) by layer.
        generator: Permutes the labels of the controls.

    Returns:
        The measured numbers, the units of layer 5 chosen by both halves, and arrays.
    """
    _, y, class_of, first, _ = images
    positive, in_first, classes = (torch.from_numpy(array) for array in (y, first, class_of))
    best = {layer: best_unit(values, positive, in_first) for layer, values in maxima.items()}
    units = best["conv5"].unit.tolist()
    measured = {
        "images with and without": [int(y.sum()), int((~y).sum())],
        "units of layer 5 chosen on the two halves": units,
        "features shown": [f"conv5/{units[0]}"],
        "their AUC where they were chosen": best["conv5"].selection_auc.tolist(),
        "AUC on the other half": {
            layer: held_out_auc(values.numpy(), y, first, class_of, best[layer].unit.tolist())
            for layer, values in maxima.items()
        },
    }
    arrays = {"units": auc(maxima["conv5"], positive).numpy()}
    for name, groups in (("luck", torch.zeros_like(classes)), ("the class alone", classes)):
        labelings = permute_labels(positive, groups, FIGURE.config["permutations"], generator)
        control = best_unit(maxima["conv5"], labelings, in_first).held_out_auc.mean(1)
        limits = [float(control.mean()), float(control.quantile(0.975))]
        measured[f"{name}: mean and 97.5 %"] = limits
        arrays[name] = auc(maxima["conv5"], labelings[:20]).numpy().ravel()
    return measured, units, arrays


def strongest_held_out(values: torch.Tensor, images: LabeledImages) -> list[int]:
    """The images with the largest values (N,) in the half that did not choose the first unit."""
    order = values.argsort(descending=True).tolist()
    return [i for i in order if not images.first[i]][: FIGURE.config["shown"]]


def annotated(ctx: Context) -> tuple[list[int], list[dict], str]:
    """The annotated images of the corpus.

    Returns:
        Their indices, their labels, and a sentence on the missing ones.
    """
    marks = yaml.safe_load(MARKS.read_text())["imagenet"]
    rows, missing = find_annotated(ctx, {name: mark["sha256"] for name, mark in marks.items()})
    return list(rows.values()), [marks[name] for name in rows], missing


def held_out_auc(
    values: np.ndarray, y: np.ndarray, first: np.ndarray, class_of: np.ndarray, units: list[int]
) -> list[float]:
    """The mean AUC of two units, each on the half of the classes that did not choose it.

    Args:
        values: Largest activations (N, units).
        y: Labels (N,).
        first: Whether an image is in the first half (N,).
        class_of: Class of each image (N,).
        units: The units that the first and the second half chose.

    Returns:
        [mean, low, high], with an interval over classes.
    """
    pairs = []
    for judging, unit in zip((~first, first), units, strict=True):
        with_, without = np.flatnonzero(y & judging), np.flatnonzero(~y & judging)
        more = values[with_, unit][:, None] - values[without, unit]
        pairs.append(((np.sign(more) + 1) / 2, class_of[with_], class_of[without]))

    def mean(drawn: np.ndarray) -> float:
        weight = np.bincount(drawn, minlength=class_of.max() + 1)
        sums = [
            (weight[a] @ won @ weight[b], weight[a].sum() * weight[b].sum()) for won, a, b in pairs
        ]
        return float(np.mean([won / number if number else np.nan for won, number in sums]))

    classes = class_of.max() + 1
    return [mean(np.arange(classes)), *bootstrap(mean, classes, seed=FIGURE.seed)]


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Each label: the AUC on the other half exceeds 97.5 % of each control."""
    results = {}
    for label in LABELS:
        for control in ("luck", "the class alone"):
            mean, limit = (
                m[label]["AUC on the other half"]["conv5"][0],
                m[label][f"{control}: mean and 97.5 %"][1],
            )
            results[f"{label}: more than {control}"] = mean > limit
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    figure = new_page(6.0)
    for block, label in zip(figure.subfigures(2, 1, squeeze=False).flat, LABELS, strict=True):
        distribution, layers, strip = block.subplots(1, 3, width_ratios=(0.8, 0.9, 1.6))
        draw_distribution(distribution, a, label)
        draw_layers(layers, m[label])
        tiles = enlarge(a[f"{label}.patches"], 130)
        right = a[f"{label}.right"][:, None]
        colors = np.where(right, (0.0, 0.62, 0.45), (0.84, 0.37, 0.0))[:, None, None]
        framed = np.broadcast_to(colors, (len(tiles), 138, 138, 3)).copy()
        framed[:, 4:-4, 4:-4] = tiles
        unit = m[label]["units of layer 5 chosen on the two halves"][0]
        title = f"conv5/{unit}, chosen on other classes\n(green: {label}, orange: no {label})"
        show_tiles(strip, framed, 4, title, gap=3, characters=60)
    faces, text = (m[label]["AUC on the other half"]["conv5"][0] for label in LABELS)
    set_finding(
        figure,
        f"A unit of layer 5 tells images with a face from others in unseen classes with an AUC of "
        f"{faces:.2f}, and another one text with {text:.2f}; chance is 0.5",
    )
    return {"faces_text.jpg": figure}
