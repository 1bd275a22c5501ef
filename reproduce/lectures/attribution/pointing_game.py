"""The pointing game on photographs: is the strongest value of a map on the dog?

Zhang et al. (2016, section 4.1) count a hit where a map has its maximum inside the box of the
object. The boxes are those of Stanford Dogs, recovered by `reproduce.dog_boxes`. Zhou et al. (2016,
section 3.2) draw a box of their own around the largest component above a fifth of the maximum; it
is correct if its intersection over union with the object's box is at least one half. Objects are
mostly in the middle, so the center of the image is the control that a method has to beat.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.lines import Line2D
from torch import Tensor

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.corpora import images_root
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.attribution.boxes import box_above, overlap
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.intervals import mean_interval
from zfnet.benchmarking import METRICS, Case, Metric, load_boxed
from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.data.images import center_crop
from zfnet.plot import LINES, new_figure, photograph, rectangle, show

BOXES = Path(__file__).parents[1] / "dogs.csv"
FIGURE = Figure(
    id="pointing_game",
    title="The pointing game on photographs of dogs",
    claim="Class activation maps have their maximum on the dog more often than the center of the "
    "image is on it, also for small dogs.",
    inputs=("model", "images"),
    seed=40,
    time_budget=2,
    config={"methods": tuple(zfnet.METHODS), "small": 0.5, "overlap": 0.5, "shown": 8},
    files=("../dogs.csv",),
    labels=True,
)
CENTER, RANDOM, TRUTH = "center", "random map", "true mask"
CLASS_MAPS = ("cam", "grad_cam", "grad_cam_plus_plus")
DRAWN = {"grad_cam": LINES[0], "saliency": LINES[1], "guided_backprop": LINES[2]}
POINTING, ENERGY, CORRECT = "hits, %", "positive values in the box, %", "correct boxes, %"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    images, reason = boxed_images(ctx)
    if images is None or len(images) < MIN_IMAGES:
        count = 0 if images is None else len(images)
        reason = reason or f"The corpus has {count} images with boxes, and {MIN_IMAGES} are needed."
        return Result({}, {}, "not run", n=count, note=reason)
    box_metric = Metric("box", correct_box, needs_mask=True)
    metrics = [METRICS["pointing"], METRICS["energy"], box_metric]
    table = zfnet.benchmark(
        ctx.model, config["methods"], images, metrics, limit=len(images), batch=8,
        seed=FIGURE.seed, progress=ctx.progress,
    )  # fmt: skip
    masks = view_masks(images)
    small = masks.mean((1, 2)) < config["small"]
    scores = {
        title: {name: 100 * table.values[name, metric] for name in table.methods if name != TRUTH}
        for title, metric in ((POINTING, "pointing"), (ENERGY, "energy"), (CORRECT, "box"))
    }
    measured: dict[str, Any] = {
        title: {name: interval(values) for name, values in of.items()}
        for title, of in scores.items()
    }
    hits = scores[POINTING]
    measured["hits on small dogs, %"] = {name: interval(of[small]) for name, of in hits.items()}
    measured["small dogs"] = int(small.sum())
    measured["share of the view in the box, %"] = interval(100 * masks.mean((1, 2)))
    gains = {name: of - hits[CENTER] for name, of in hits.items() if name != CENTER}
    measured["hits, less those of the center, points"] = {n: interval(g) for n, g in gains.items()}
    judged = [name for name in CLASS_MAPS if name in gains]
    claims = {f"{name} hits more often than the center": gains[name] for name in judged}
    claims |= {f"{name} does so on small dogs": gains[name][small] for name in judged}
    words, outcome = verdict({text: above(interval(gain)) for text, gain in claims.items()})
    skipped = "".join(f" {name} does not apply: {why}." for name, why in table.skipped.items())
    note = (
        f"{len(images)} validation images whose box was recovered from Stanford Dogs. Maps are of "
        f"the true class, even if the prediction is wrong. Small: a box below "
        f"{config['small']:.0%} of the view. 95 % intervals over images.{skipped}"
    )
    arrays = pictures(ctx, images, masks)
    return Result(arrays, measured | {"claims": words}, outcome, n=len(images), note=note)


def boxed_images(ctx: Context) -> tuple[Images | None, str]:
    """The images of the corpus with a box in the view, labeled by the network's outputs.

    Returns:
        The images, or None, and the reason why there are none.
    """
    if ctx.corpus == SAMPLES:
        return None, "The sample photographs have no boxes; give ImageNet-65k with --data."
    ctx.require("images")
    try:
        images = load_boxed(images_root(str(ctx.data)), BOXES, progress=ctx.progress)
    except DataError as error:
        return None, f"{error}."
    images = images.aligned(ctx.model.wnids, ctx.model.classes)
    return images.subset(np.flatnonzero(view_masks(images).any((1, 2)))), ""


def view_masks(images: Images) -> np.ndarray:
    """The boxes in the network's view, (N, size, size) bool."""
    assert images.masks is not None
    return center_crop(torch.from_numpy(np.asarray(images.masks)), images.size).numpy()


def correct_box(case: Case) -> Tensor:
    """Whether the box of a map's largest component overlaps the object's box, (N,) 0 or 1."""
    assert case.mask is not None
    predicted = np.array([box_above(map) for map in case.map[:, 0].cpu().numpy()])
    truth = np.array([mask_box(mask) for mask in case.mask.cpu().numpy()])
    return torch.from_numpy((overlap(predicted, truth) >= FIGURE.config["overlap"]).astype(float))


def mask_box(mask: np.ndarray) -> list[int]:
    """The bounding box of a mask (H, W) that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]


def interval(values: np.ndarray) -> list[float]:
    """The mean over images with its interval; empty for fewer than two images."""
    return mean_interval(values, seed=FIGURE.seed) if len(values) > 1 else []


def pictures(ctx: Context, images: Images, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Evenly spaced photographs with their boxes and the maxima of some methods' maps."""
    shown = np.linspace(0, len(images) - 1, FIGURE.config["shown"]).round().astype(int)
    x, target = images.batch(shown).to(ctx.device), torch.from_numpy(images.labels[shown])
    arrays = {
        "photographs": photograph(x.cpu()).astype(np.float16),
        "boxes": np.array([mask_box(mask) for mask in masks[shown]]),
        "names": np.array([ctx.model.classes[i] for i in target.tolist()]),
    }
    for name in (name for name in DRAWN if name in FIGURE.config["methods"]):
        map = zfnet.explain(ctx.model, x, name, target.to(ctx.device)).map[:, 0]
        index = map.flatten(1).argmax(1).cpu().numpy()
        arrays[f"point.{name}"] = np.stack(np.divmod(index, map.shape[2]), 1)
    return arrays


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    figure = new_figure(8.4, 6.6)
    above_, below_ = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.15, 1)).flat
    points = {name: color for name, color in DRAWN.items() if f"point.{name}" in a}
    for i, panel in enumerate(above_.subplots(2, 4).flat):
        show(panel, a["photographs"][i].astype(np.float32), str(a["names"][i]))
        rectangle(panel, np.clip(a["boxes"][i], 2, a["photographs"].shape[1] - 2), "white")
        for name, color in points.items():
            row, column = a[f"point.{name}"][i]
            panel.plot(column, row, "o", color=color, markersize=7, markeredgecolor="white")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, label=name)
        for name, color in points.items()
    ]
    above_.legend(handles=handles, loc="outside lower center", ncols=len(points))
    left, right = below_.subplots(1, 2, sharey=True)
    for panel, title in ((left, POINTING), (right, "hits on small dogs, %")):
        means = {name: values for name, values in m[title].items() if values}
        for row, (name, values) in enumerate(means.items()):
            mean, low, high = values
            color = "0.6" if name in (CENTER, RANDOM, "edge detector") else LINES[0]
            panel.barh(row, mean, color=color)
            panel.errorbar(mean, row, xerr=[[mean - low], [high - mean]], color="0.2", capsize=2)
        panel.set_yticks(range(len(means)), list(means))
        panel.set(xlabel=f"{title}, with 95 % interval", xlim=(0, 100))
    left.invert_yaxis()
    best = max(m[POINTING], key=lambda name: m[POINTING][name][0])
    figure.suptitle(
        f"The center of the image is on the dog in {m[POINTING][CENTER][0]:.0f} % of {result.n} "
        f"images, the maximum of {best} in {m[POINTING][best][0]:.0f} %"
    )
    return {"pointing_game.jpg": figure}
