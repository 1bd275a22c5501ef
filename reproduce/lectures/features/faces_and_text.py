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
from reproduce.lectures.features.labeled_images import labeled_images
from reproduce.lectures.features.unit_selection import (
    CONTROLS,
    HELD_OUT,
    LIMITS,
    measure,
    strongest_held_out,
)
from reproduce.lectures.sampling import subset, unit_patches
from zfnet.analysis.responses import responses
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
        "minimum images": 10,
        "shown": 8,
    },
    files=("faces_and_text.yaml",),
    version=3,
    network="layers",
)
MARKS = Path(__file__).with_name("faces_and_text.yaml")
LABELS = ("face", "text")


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    numbers, marks, missing = annotated(ctx)
    names = [str(ctx.images.names[i]) for i in numbers]
    chosen = {label: labeled_images(names, marks, label) for label in LABELS}
    if min(images.smallest_group for images in chosen.values()) < config["minimum images"]:
        note = f"Fewer than {config['minimum images']} annotated images of a kind. {missing}"
        return Result({}, {"images": len(numbers)}, "not run", n=len(numbers), note=note)
    responses_of = responses(
        ctx.model, subset(ctx, np.array(numbers)), config["layers"], progress=ctx.progress
    )
    arrays: dict[str, np.ndarray] = {}
    measured: dict[str, Any] = {"images": len(numbers)}
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for label, images in chosen.items():
        maxima = {layer: table.maximum[images.index] for layer, table in responses_of.items()}
        measured[label], units, arrays_of = measure(
            images, maxima, config["permutations"], FIGURE.seed, generator
        )
        order = strongest_held_out(maxima["conv5"][:, units[0]], images, config["shown"])
        position = responses_of["conv5"].position[images.index[order], units[0]]
        index = np.array(numbers)[images.index[order]]
        arrays_of["patches"] = photograph(unit_patches(ctx, "conv5", index, position))
        arrays_of["positive"] = images.positive[order]
        arrays |= {f"{label}.{name}": array for name, array in arrays_of.items()}
    claims, outcome = judge(measured)
    note = (
        "The unit is chosen on half of the classes and tested on the other, both ways; the two "
        "AUCs are averaged. The 95 % intervals are by bootstrap over classes. One control permutes "
        "the labels among all images, and the other within each class. Text is tested on images "
        "without a face, so that a unit that avoids faces gains nothing. The picture shows the "
        f"strongest images of the half that did not choose the unit. {missing}"
    )
    finding, reason = state_finding(measured), state_reason(measured)
    measured |= {"claims": claims}
    return Result(arrays, measured, outcome, len(numbers), note, finding=finding, reason=reason)


def annotated(ctx: Context) -> tuple[list[int], list[dict], str]:
    """The annotated images of the corpus.

    Returns:
        Their indices, their labels, and a sentence on the missing ones.
    """
    marks = yaml.safe_load(MARKS.read_text())["imagenet"]
    rows, missing = find_annotated(ctx, {name: mark["sha256"] for name, mark in marks.items()})
    return list(rows.values()), [marks[name] for name in rows], missing


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Each label: the AUC on held-out classes exceeds 97.5 % of each control."""
    return verdict(
        {
            f"the AUC for {label} exceeds that of {control}": m[label][HELD_OUT]["conv5"][0]
            > m[label][LIMITS.format(control)][1]
            for label in LABELS
            for control in CONTROLS
        }
    )


def state_finding(m: dict) -> str:
    face, text = (m[label][HELD_OUT]["conv5"][0] for label in LABELS)
    return (
        f"The best unit of layer 5 detects faces in held-out classes with an AUC of {face:.2f}, "
        f"and the best one for text has {text:.2f}; chance is 0.50."
    )


def state_reason(m: dict) -> str:
    """The labels whose AUC is within a control; empty without any."""
    misses = [
        f"The AUC for {label} is {score:.2f}, and 97.5 % of {control} are below {limit:.2f}."
        for label in LABELS
        for control in CONTROLS
        if (score := m[label][HELD_OUT]["conv5"][0])
        <= (limit := m[label][LIMITS.format(control)][1])
    ]
    return " ".join(misses)


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
        positive = a[f"{label}.positive"][:, None]
        colors = np.where(positive, (0.0, 0.62, 0.45), (0.84, 0.37, 0.0))[:, None, None]
        framed = np.broadcast_to(colors, (len(tiles), 138, 138, 3)).copy()
        framed[:, 4:-4, 4:-4] = tiles
        unit = m[label]["units of layer 5 chosen on the two halves"][0]
        title = f"conv5/{unit}, chosen on other classes\n(green: {label}, orange: no {label})"
        show_tiles(strip, framed, 4, title, gap=3, characters=60)
    set_finding(figure, result.finding)
    return {"faces_text.jpg": figure}
