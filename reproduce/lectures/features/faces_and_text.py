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
from reproduce.lectures.sampling import subset, unit_patches
from zfnet.analysis.intervals import bootstrap
from zfnet.analysis.responses import responses
from zfnet.analysis.selectivity import auc, best_unit, permute_labels
from zfnet.plot import LINES, enlarge, mosaic, new_figure, photograph, show

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
    network="layers",
)
MARKS = Path(__file__).with_name("faces_and_text.yaml")
LABELS = ("face", "text")


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    numbers, marks, missing = annotated(ctx)
    chosen = {}
    for label in LABELS:
        matching = np.array([i for i, mark in enumerate(marks) if counts(mark, label)], dtype=int)
        y = np.array([marks[i][label] for i in matching], dtype=bool)
        names, class_of = np.unique(
            [str(ctx.images.names[numbers[i]]).split("/")[0] for i in matching], return_inverse=True
        )
        chosen[label] = matching, y, class_of, first_half(class_of, y)
        if (
            min([np.bincount(2 * y + chosen[label][3], minlength=4).min(), len(names) // 2])
            < config["at least"]
        ):
            note = f"Fewer than {config['at least']} annotated images of a kind. {missing}"
            return Result({}, {"images": len(numbers)}, "not run", n=len(numbers), note=note)
    responses_of = responses(
        ctx.model, subset(ctx, np.array(numbers)), config["layers"], progress=ctx.progress
    )
    arrays: dict[str, np.ndarray] = {}
    measured: dict[str, Any] = {"images": len(numbers)}
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for label, (matching, y, class_of, first) in chosen.items():
        positive, in_first, classes = (torch.from_numpy(array) for array in (y, first, class_of))
        values = {layer: table.maximum[matching] for layer, table in responses_of.items()}
        best = {layer: best_unit(v, positive, in_first) for layer, v in values.items()}
        aucs = {
            layer: held_out_auc(v.numpy(), y, first, class_of, best[layer].unit.tolist())
            for layer, v in values.items()
        }
        measured[label] = {
            "images with and without": [int(y.sum()), int((~y).sum())],
            "units of layer 5 chosen on the two halves": best["conv5"].unit.tolist(),
            "their AUC where they were chosen": best["conv5"].selection_auc.tolist(),
            "AUC on the other half": aucs,
        }
        for name, groups in (("luck", torch.zeros_like(classes)), ("the class alone", classes)):
            labelings = permute_labels(positive, groups, config["permutations"], generator)
            control = best_unit(values["conv5"], labelings, in_first).held_out_auc.mean(1)
            measured[label][f"{name}: mean and 97.5 %"] = [
                float(control.mean()),
                float(control.quantile(0.975)),
            ]
            arrays[f"{label}.{name}"] = auc(values["conv5"], labelings[:20]).numpy().ravel()
        arrays[f"{label}.units"] = auc(values["conv5"], positive).numpy()
        unit = int(best["conv5"].unit[0])
        order = [
            i for i in values["conv5"][:, unit].argsort(descending=True).tolist() if not first[i]
        ][: config["shown"]]
        index, position = matching[order], responses_of["conv5"].position[matching[order], unit]
        arrays[f"{label}.patches"] = photograph(
            unit_patches(ctx, "conv5", np.array(numbers)[index], position)
        )
        arrays[f"{label}.right"] = y[order]
    claims, outcome = judge(measured)
    note = (
        "The unit is chosen on half of the classes and tested on the other, both ways; the two "
        "AUCs are averaged. Intervals: 95 %, by bootstrap over classes. Controls permute the "
        "labels of all images (luck), or within each class (the class alone). Text is tested on "
        "images without a face, so that avoiding faces does not help. The images shown are the "
        f"strongest of the half that did not choose the unit. {missing}"
    )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(numbers), note=note)


def annotated(ctx: Context) -> tuple[list[int], list[dict], str]:
    """The annotated images of the corpus.

    Returns:
        Their indices, their labels, and a sentence on the missing ones.
    """
    marks = yaml.safe_load(MARKS.read_text())["imagenet"]
    rows, missing = find_annotated(ctx, {name: mark["sha256"] for name, mark in marks.items()})
    return list(rows.values()), [marks[name] for name in rows], missing


def counts(mark: dict, label: str) -> bool:
    """Whether an image is used for a label. Images with a face are not used for text."""
    return label in mark and (label != "text" or mark.get("face") is False)


def first_half(class_of: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Split the classes in two halves: every other class, sorted by its share of positives.

    Args:
        class_of: Class of each image (N,).
        positive: Labels (N,).

    Returns:
        Whether each image is in the first half (N,).
    """
    share = np.bincount(class_of, positive) / np.bincount(class_of)
    return np.isin(class_of, np.argsort(share, kind="stable")[::2])


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
    figure = new_figure(13, 5.8)
    for block, label in zip(figure.subfigures(2, 1, squeeze=False).flat, LABELS, strict=True):
        distribution, layers, strip = block.subplots(1, 3, width_ratios=(1, 1, 1.62))
        bins = np.linspace(0, 1, 41)
        chance = a[f"{label}.luck"]
        distribution.hist(
            chance, bins, weights=np.full(len(chance), 1 / 20), color="0.8", label="labels permuted"
        )
        distribution.hist(
            a[f"{label}.units"],
            bins,
            histtype="step",
            color=LINES[0],
            linewidth=1.6,
            label="layer 5",
        )
        distribution.set(
            xlim=(0.1, 1),
            xlabel=f"AUC for {label}",
            ylabel="units",
            title="The 256 units of layer 5, all images",
        )
        distribution.legend(frameon=False, loc="upper left", fontsize=7.5)
        aucs = m[label]["AUC on the other half"]
        for place, (mean, low, high) in enumerate(aucs.values()):
            layers.errorbar(
                place, mean, yerr=[[mean - low], [high - mean]], fmt="o", color=LINES[0], capsize=3
            )
        for control, style in (("luck", ":"), ("the class alone", "--")):
            layers.axhline(
                m[label][f"{control}: mean and 97.5 %"][0],
                color="0.5",
                linestyle=style,
                label=control,
            )
        layers.set_xticks(range(len(aucs)), aucs)
        layers.set(
            ylim=(0.3, 1),
            ylabel="AUC on the other half",
            title="Best unit, chosen on other classes",
        )
        layers.legend(frameon=False, loc="lower right", fontsize=7.5)
        tiles = enlarge(a[f"{label}.patches"], 130)
        colors = np.where(a[f"{label}.right"][:, None], (0.0, 0.62, 0.45), (0.84, 0.37, 0.0))[
            :, None, None
        ]
        framed = np.broadcast_to(colors, (len(tiles), 138, 138, 3)).copy()
        framed[:, 4:-4, 4:-4] = tiles
        unit, other = m[label]["units of layer 5 chosen on the two halves"]
        also = f" (which chose {other})" if other != unit else ""
        title = f"conv5/{unit}: strongest in classes that did not choose it{also}\n"
        title += f"(green: {label}, orange: no {label})"
        show(strip, mosaic(framed, 4, gap=3), title)
    return {"faces_text.jpg": figure}
