"""Figure 2: what the feature maps of layers 1 to 5 respond to.

The paper's claim: for a random subset of feature maps, the nine strongest activations over the validation set, projected
to pixels by the deconvnet, show a hierarchy: edges and colours, then corners and textures, then parts, then whole
objects; and a feature of a high layer responds to images that vary, but belong to fewer classes. The pictures show the
first; the second is measured. Layer 1 is shown as filters, all of them, with the nine patches that excite each.
"""

from itertools import pairwise

import numpy as np
import torch

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.core.networks import conv_weight
from zfnet.analysis.directions import purity
from zfnet.plot import enlarge, filter_image, mosaic, new_figure, photograph, projection_image, show
from zfnet.projection import patches_inside

GROUPS = 50  # of classes, left out in turn
FIGURE = Figure(
    id="fig2",
    title="Visualization of features in a trained model",
    claim="From layer 1 to layer 5, more of a feature's nine strongest images belong to one class.",
    inputs=("model", "images", "top"),
    seed=2,
    time_budget=50,
    config={
        "groups of classes": GROUPS,
        "features": {"conv1": "all", "conv2": 16, "conv3": 12, "conv4": 12, "conv5": 12},
        "k": 9,
    },
    network="chain",
)
WHOLE, MAIN = "layer 5 less layer 1", "layer 5 is above layer 1"
TILE = {"conv1": 16, "conv2": 48, "conv3": 72, "conv4": 80, "conv5": 92}  # pixels of a drawn patch
COLUMNS = {"conv1": 12, "conv2": 4, "conv3": 3, "conv4": 3, "conv5": 3}


def compute(ctx) -> Result:
    model, images = ctx.model, ctx.images
    if len(images) < 9:
        return Result(
            {}, {}, "not run", n=len(images), note="The corpus has fewer than nine images."
        )
    top = ctx.top
    generator = torch.Generator().manual_seed(FIGURE.seed)
    arrays: dict[str, np.ndarray] = {"conv1.filters": conv_weight(model, "conv1").numpy()}
    measured: dict = {"receptive field": {}, "dead features": {}}
    labels: dict[str, np.ndarray] = {}
    for layer in ctx.progress(list(top), total=len(top), desc="projecting"):
        found = top[layer]
        field = zfnet.trace(model, images.batch([0]).to(ctx.device)).receptive_field(layer).size
        alive = torch.where((found.value > 0).all(1))[0]  # the features that nine images excite
        count = FIGURE.config["features"][layer]
        order = torch.randperm(len(alive), generator=generator)[: None if count == "all" else count]
        chosen = torch.arange(len(found.value)) if count == "all" else alive[order].sort().values
        projections, patches = [], []
        for channel in chosen.tolist():
            x = images.batch(found.index[channel].clamp_min(0)).to(ctx.device)
            p = zfnet.project(
                model, x, layer, torch.full((9,), channel), found.position[channel].to(ctx.device)
            )
            projection, patch = patches_inside(p, x, field)
            projections.append(projection.cpu())
            patches.append(patch.cpu())
        arrays[f"{layer}.channels"] = chosen.numpy()
        arrays[f"{layer}.projections"] = torch.stack(
            projections
        ).numpy()  # (features, 9, 3, R, R) signed
        arrays[f"{layer}.patches"] = torch.stack(patches).numpy()  # the same, network inputs
        arrays[f"{layer}.activations"] = found.value[chosen].numpy()
        arrays[f"{layer}.images"] = found.index[chosen].numpy()
        measured["receptive field"][layer] = field
        measured["dead features"][layer] = int((found.value[:, 0] <= 0).sum())
        labels[layer] = images.labels[found.index[alive]]
    if len(set(images.labels.tolist())) < 10:
        note = "Too few classes to compare with the paper: the pictures only."
        return Result(arrays, measured, "not comparable", n=len(images), note=note)
    shuffled = np.random.default_rng(FIGURE.seed).permutation(images.labels)
    means, left_out = jackknife(labels)
    measured["one class among the top nine, mean share"] = dict(
        zip(labels, means.tolist(), strict=True)
    )
    measured["its standard error"] = dict(
        zip(labels, standard_error(left_out).tolist(), strict=True)
    )
    measured["by chance (labels shuffled), conv5"] = float(
        purity(shuffled[top["conv5"].index]).mean()
    )
    per_class = len(images) / len(set(images.labels.tolist()))
    note = (
        "Features are drawn at random among those that nine images excite; a share of 1/9 is nine different classes. "
        f"Here a class has {per_class:.0f} images to take nine from, in the paper's validation set 50. The standard "
        f"error is over classes, {len(left_out)} groups of which are left out in turn: features share images. Of single "
        "features it says nothing: compare the lectures extremes, of a layer-5 feature's nine weakest images, and directions, "
        "of random ones."
    )
    measured["rise of the mean share, with its 95 % interval"] = steps = rises(means, left_out)
    claims, said = judge(steps)
    return Result(arrays, measured | {"claims": claims}, said, n=len(images), note=note)


def jackknife(labels: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean share of one class among a feature's nine images, by layer (L,), and without each group of classes (G, L).

    `labels` are (features, 9). Groups of classes, because features share images and are no independent sample.
    """
    classes = np.unique(np.concatenate([found.ravel() for found in labels.values()]))
    group = np.zeros(classes.max() + 1, dtype=int)
    group[classes] = np.random.default_rng(FIGURE.seed).permutation(len(classes)) % min(
        GROUPS, len(classes)
    )

    def mean_share(found: np.ndarray, kept: np.ndarray) -> float:
        found, kept = found[kept.any(1)], kept[kept.any(1)]
        same = ((found[:, :, None] == found[:, None]) & kept[:, None]).sum(2) * kept
        return float((same.max(1) / kept.sum(1)).mean())

    means = np.array([purity(found).mean() for found in labels.values()])
    left_out = [
        [mean_share(found, group[found] != g) for found in labels.values()]
        for g in range(group.max() + 1)
    ]
    return means, np.array(left_out)


def standard_error(left_out: np.ndarray) -> np.ndarray:
    """Of what was computed G times, without a group each: (G, ...) -> (...) (the jackknife, Tukey 1958)."""
    return np.sqrt(
        (len(left_out) - 1) / len(left_out) * ((left_out - left_out.mean(0)) ** 2).sum(0)
    )


def rises(means: np.ndarray, left_out: np.ndarray) -> dict[str, list[float]]:
    """How far the mean share rises, from layer 1 to the last and from each to the next: [rise, low, high] by `jackknife`."""
    last = len(means)
    found = {}
    for low, high in ((1, last), *pairwise(range(1, last + 1))):
        rise = float(means[high - 1] - means[low - 1])
        half = 1.96 * float(standard_error(left_out[:, high - 1] - left_out[:, low - 1]))
        found[f"layer {high} less layer {low}"] = [rise, rise - half, rise + half]
    return found


def judge(rises: dict[str, list[float]]) -> tuple[dict[str, str], str]:
    """Which claims hold of the shares' rises (see `rises`); the main one is that of the last layer above the first."""
    if not np.isfinite([*rises.values()]).all():  # a layer has no features that nine images excite
        return {}, "not comparable"
    falls = [above(step) is False for step in rises.values()]
    return verdict(
        {
            MAIN: above(rises[WHOLE]),
            "it falls nowhere on the way, beyond the interval": not any(falls),
        },
        MAIN,
    )


def draw(result: Result):
    arrays = result.arrays
    pictures = {}
    if not arrays:
        return pictures
    for layer, side in TILE.items():
        columns, count = COLUMNS[layer], len(arrays[f"{layer}.channels"])
        patches = blocks(photograph, arrays[f"{layer}.patches"], side, columns)
        if layer == "conv1":
            gap = 3 * side + 2
            left = mosaic(enlarge(filter_image(arrays["conv1.filters"]), gap), columns, gap=6)
            title = f"Layer 1: {count} filters (left), and the nine patches that excite each most (right)"
        else:
            left = blocks(projection_image, arrays[f"{layer}.projections"], side, columns)
            title = f"Layer {layer[4:]}: nine strongest activations of {count} random features (left), and their patches"
        height, width = left.shape[0], left.shape[1] + patches.shape[1]
        figure = new_figure(width / 150 + 0.3, height / 150 + 0.45)
        for axes, image in zip(figure.subplots(1, 2), (left, patches), strict=True):
            show(axes, image)
        figure.suptitle(title, fontsize=9 if width > 1000 else 7.5)
        pictures[f"layer{layer[4:]}.jpg"] = figure
    return pictures


def blocks(render, tiles: np.ndarray, side: int, columns: int) -> np.ndarray:
    """Nine tiles a feature as a 3 x 3 block, and the blocks in rows: (features, 9, 3, R, R) -> one image."""
    features = [
        mosaic(enlarge(render(nine), side), 3, gap=1, background=0.6) for nine in tiles
    ]  # patches may be white
    framed = [np.pad(block, ((1, 1), (1, 1), (0, 0)), constant_values=0.6) for block in features]
    return mosaic(np.stack(framed), columns, gap=6)
