"""Table 1: does masking the same part of different dogs change the features in the same way?

Read the answer with the control: masking the place where another dog has the part.

The paper's claim: the network implicitly establishes correspondence between parts. With the right
eye, left eye or nose masked, the sign of the change of the features, eps = x - x~, agrees between
images more than with random parts masked: the Hamming distance Delta is lower at layer 5. At layer
7 it is about the same for all, because that layer discriminates between breeds.

Mean and standard deviation are over repetitions: five images drawn from all annotated ones, and
random parts drawn anew. The interval, and so the verdict, is of the paired difference over all
images, by bootstrap over images.

The control: eyes are at similar positions in every view, and random parts are not. So we also mask
in each image the position where another image has the part. Positions are then spread alike, though
some cover the part itself; that share is measured.
"""

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

from reproduce.core.claims import explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.page import new_page, set_finding
from reproduce.paper.dog_faces import FILL, MASK, PARTS, Faces, load_faces
from reproduce.paper.part_masks import CONTROL, RANDOM, covered_parts, draw_masks, mean_distance
from reproduce.paper.tab1_claims import (
    MAIN,
    MINUS_CONTROL,
    MINUS_RANDOM,
    SMALLER,
    TOGETHER,
    judge_parts,
    summarize,
)
from zfnet.analysis.correspondence import correspondence
from zfnet.analysis.intervals import bootstrap
from zfnet.plot import LINES

LAYERS = {"pool5": "layer 5", "fc7": "layer 7"}
FIGURE = Figure(
    id="tab1",
    title="Correspondence between parts of different images",
    claim="Masking an eye or the nose changes layer 5 more alike from dog to dog than masking "
    "random parts; layer 7 hardly.",
    inputs=("model", "images"),
    seed=1,
    time_budget=20,
    paper={
        "layer 5": {
            "right eye": [0.067, 0.007], "left eye": [0.069, 0.007],
            "nose": [0.079, 0.017], "random": [0.107, 0.017],
        },
        "layer 7": {
            "right eye": [0.069, 0.015], "left eye": [0.068, 0.013],
            "nose": [0.069, 0.011], "random": [0.073, 0.014],
        },
    },
    version=3,
    config={
        "layers": list(LAYERS), "size": MASK, "fill": FILL,
        "random parts": 40, "shifts": 12, "subsets": 1000, "images": 5,
    },
    files=("faces.yaml",),
    network="chain",
)  # fmt: skip
COVERED = "control masks that cover the part of the image itself, %"


def compute(ctx: Context) -> Result:
    config, faces = FIGURE.config, load_faces(ctx)
    n = len(faces.names)
    if n < 2:
        note = f"The corpus has fewer than two annotated images. {faces.missing}"
        return Result({}, {}, "not run", n=n, note=note)
    masks = draw_masks(faces, config, FIGURE.seed)
    result = correspondence(
        ctx.model,
        faces.x.to(ctx.device),
        torch.cat(list(masks.values())).to(ctx.device),
        size=config["size"],
        fill=config["fill"],
        progress=ctx.progress,
    )
    measured: dict = {
        "images": n,
        COVERED: covered_parts(faces, masks, config["size"]),
    }
    advantage = {}
    for layer, words in LAYERS.items():
        differences = result.difference[layer].cpu().split([len(m) for m in masks.values()])
        pairs = {name: d.numpy() for name, d in zip(masks, differences, strict=True)}
        entries, advantage[layer] = _compare(pairs, words)
        measured |= entries
    measured[SMALLER] = paired(advantage["pool5"] - advantage["fc7"])
    finding, note = summarize(measured), _note(ctx, faces, masks[RANDOM])
    claims, summary = {}, "not comparable"
    reason = f"The paper compares {config['images']} images, and this corpus has {n}."
    if n >= config["images"]:
        judgments, evidence = judge_parts(measured)
        claims, summary = verdict(judgments, MAIN)
        reason = explain(judgments, evidence)
    measured["claims"] = claims
    return Result({}, measured, summary, n=n, note=note, finding=finding, reason=reason)


def _compare(pairs: dict[str, np.ndarray], layer: str) -> tuple[dict, np.ndarray]:
    """Compare the parts of a layer with random parts and with the control.

    Args:
        pairs: Delta between pairs of images (repetitions, N, N), by mask.
        layer: The layer, in words.

    Returns:
        The measured numbers; and by pair of images, how much of the random parts' Delta the parts
        are below it, in percent.
    """
    measured: dict = {layer: {name: repeated(d) for name, d in pairs.items()}}
    mean = {name: d.mean(0) for name, d in pairs.items()}
    for title, other in ((MINUS_RANDOM, dict.fromkeys(PARTS, RANDOM)), (MINUS_CONTROL, CONTROL)):
        differences = {part: mean[other[part]] - mean[part] for part in PARTS}
        differences[TOGETHER] = np.mean(list(differences.values()), 0)
        measured[f"{layer}: {title}"] = {
            part: paired(difference) for part, difference in differences.items()
        }
    base = paired(mean[RANDOM])[0]
    gain = measured[f"{layer}: {MINUS_RANDOM}"][TOGETHER]
    measured[f"{layer}: relative advantage of the parts, %"] = [100 * v / base for v in gain]
    return measured, 100 * np.mean([mean[RANDOM] - mean[part] for part in PARTS], 0) / base


def _note(ctx: Context, faces: Faces, random: Tensor) -> str:
    config, n = FIGURE.config, len(faces.names)
    note = (
        f"Mean and standard deviation over {config['subsets']} draws "
        f"of {config['images']} of {n} images; differences over all images, with 95 % intervals. "
        f"There are {config['random parts']} sets of random parts that cover no middle of an eye "
        "or the nose. The paper does not say by what it divides its sum, so the order compares and "
        "the size does not. From image to image, the positions of a part are "
        f"{mean_distance(faces.points):.0f} pixels apart, those of random parts "
        f"{mean_distance(random.transpose(0, 1)):.0f}; the control removes that difference. "
        f"{ctx.differences_from_paper}"
    )
    if n < config["images"]:
        note += "The paper has five images: with fewer there is nothing to compare. "
    return note + faces.missing


def repeated(difference: np.ndarray) -> list[float]:
    """Delta's mean and standard deviation over repetitions.

    A repetition draws a few of the images, and one of the (R, N, N) sets of parts. With one set,
    and no more images than are drawn, only the mean is returned.
    """
    n, rng = difference.shape[1], np.random.default_rng(FIGURE.seed)
    few = min(FIGURE.config["images"], n)
    deltas = []
    for _ in range(FIGURE.config["subsets"]):
        rows = rng.choice(n, few, replace=False)
        total = difference[rng.integers(len(difference))][np.ix_(rows, rows)].sum()
        deltas.append(total / (few * (few - 1)))
    varies = few < n or len(difference) > 1
    return [float(np.mean(deltas)), float(np.std(deltas))] if varies else [float(np.mean(deltas))]


def paired(difference: np.ndarray) -> list[float]:
    """The mean over pairs of different images (N, N), and its bootstrap interval.

    Returns:
        [mean, low, high]; for fewer than three images, [mean].
    """
    n = len(difference)

    def mean(rows: np.ndarray) -> float:
        other = rows[:, None] != rows  # an image drawn twice is no pair with itself
        values = difference[np.ix_(rows, rows)][other]
        return float(values.mean()) if other.any() else float("nan")

    return [mean(np.arange(n)), *(bootstrap(mean, n, seed=FIGURE.seed) if n > 2 else [])]


def draw(result: Result) -> dict[str, Picture]:
    if "layer 5" not in result.measured:
        return {}
    figure = new_page(3.6)
    panels = figure.subplots(1, len(LAYERS), sharex=True, sharey=True)
    names = (*PARTS, *CONTROL.values(), RANDOM)
    colors = (LINES[0],) * len(PARTS) + (LINES[4],) * len(CONTROL) + ("0.4",)
    for axes, layer in zip(panels, LAYERS.values(), strict=True):
        for row, (name, color) in enumerate(zip(names, colors, strict=True)):
            mean, *deviation = result.measured[layer][name]
            axes.errorbar(mean, row, xerr=deviation or None, fmt="o", color=color, capsize=3)
        axes.set(yticks=range(len(names)), title=layer, xlabel="Δ, share of signs that differ")
        axes.set_yticklabels([*names[:-1], "random part"], fontsize=10)
    panels[0].invert_yaxis()
    set_finding(figure, result.finding)
    return {"tab1.png": figure}
