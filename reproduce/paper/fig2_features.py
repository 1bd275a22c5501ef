"""Figure 2: what the feature maps of layers 1 to 5 respond to.

The paper's claim: for a random subset of feature maps, the nine strongest activations over the
validation set, projected to pixels by the deconvnet, show a hierarchy: edges and colors, then
corners and textures, then parts, then whole objects. A feature of a high layer responds to images
that vary, but belong to fewer classes. The pictures show the first; the second is measured. Layer
1 is shown as filters, all of them, with the nine patches that excite each.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

import zfnet
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.networks import conv_weight
from zfnet.analysis.directions import purity
from zfnet.plot import enlarge, filter_image, mosaic, new_figure, photograph, projection_image, show
from zfnet.projection import patches_inside

GROUPS = 50  # of classes, for the jackknife
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
    network="layers",
)
RISE, MAIN = "layer 5 less layer 1", "layer 5 is above layer 1"
TILE = {"conv1": 16, "conv2": 48, "conv3": 72, "conv4": 80, "conv5": 92}  # pixels of a drawn patch
COLUMNS = {"conv1": 12, "conv2": 4, "conv3": 3, "conv4": 3, "conv5": 3}


def compute(ctx: Context) -> Result:
    images, k = ctx.images, FIGURE.config["k"]
    if len(images) < k:
        note = "The corpus has fewer than nine images."
        return Result({}, {}, "not run", n=len(images), note=note)
    top = ctx.top
    generator = torch.Generator().manual_seed(FIGURE.seed)
    arrays: dict[str, np.ndarray] = {"conv1.filters": conv_weight(ctx.model, "conv1").numpy()}
    measured: dict = {"receptive field": {}, "dead features": {}}
    labels: dict[str, np.ndarray] = {}
    for layer in ctx.progress(list(top), total=len(top), desc="projecting"):
        alive = torch.where((top[layer].value > 0).all(1))[0]  # features that nine images excite
        channels = _choose(layer, alive, len(top[layer].value), generator)
        x = images.batch([0]).to(ctx.device)
        field = zfnet.trace(ctx.model, x).receptive_field(layer).size
        arrays |= _top_patches(ctx, layer, channels, field)
        measured["receptive field"][layer] = field
        measured["dead features"][layer] = int((top[layer].value[:, 0] <= 0).sum())
        labels[layer] = images.labels[top[layer].index[alive]]
    if len(set(images.labels.tolist())) < 10:
        note = "Too few classes to compare with the paper: the pictures only."
        return Result(arrays, measured, "not comparable", n=len(images), note=note)

    shuffled = np.random.default_rng(FIGURE.seed).permutation(images.labels)
    means, left_out = jackknife(labels)
    errors = standard_error(left_out).tolist()
    steps = rises(means, left_out)
    claims, summary = judge(steps)
    measured |= {
        "one class among the top nine, mean share": dict(zip(labels, means.tolist(), strict=True)),
        "its standard error": dict(zip(labels, errors, strict=True)),
        "by chance (labels shuffled), conv5": float(purity(shuffled[top["conv5"].index]).mean()),
        "rise of the mean share, with its 95 % interval": steps,
        "claims": claims,
    }
    per_class = len(images) / len(set(images.labels.tolist()))
    note = (
        "Features are drawn at random among those that nine images excite. A share of 1/9 means "
        f"nine different classes. A class has {per_class:.0f} images here, and 50 in the paper's "
        f"validation set. The standard error is a jackknife over {len(left_out)} groups of "
        "classes, because features share images. It says nothing about single features: compare "
        "the lectures extremes (a layer-5 feature's nine weakest images) and directions (random "
        "directions)."
    )
    return Result(arrays, measured, summary, n=len(images), note=note)


def _choose(layer: str, alive: Tensor, channels: int, generator: torch.Generator) -> Tensor:
    """The features of a layer to show: all of them, or some at random, in order."""
    count = FIGURE.config["features"][layer]
    order = torch.randperm(len(alive), generator=generator)
    if count == "all":
        return torch.arange(channels)
    return alive[order[:count]].sort().values


def _top_patches(ctx: Context, layer: str, channels: Tensor, field: int) -> dict[str, np.ndarray]:
    """The nine strongest activations of some features: projections, patches, values, images."""
    top, projections, patches = ctx.top[layer], [], []
    for channel in channels.tolist():
        x = ctx.images.batch(top.index[channel].clamp_min(0)).to(ctx.device)
        position = top.position[channel].to(ctx.device)
        p = zfnet.project(ctx.model, x, layer, torch.full((len(x),), channel), position)
        projection, patch = patches_inside(p, x, field)
        projections.append(projection.cpu())
        patches.append(patch.cpu())
    return {
        f"{layer}.channels": channels.numpy(),
        f"{layer}.projections": torch.stack(projections).numpy(),  # (features, 9, 3, R, R)
        f"{layer}.patches": torch.stack(patches).numpy(),  # the same shape, network inputs
        f"{layer}.activations": top.value[channels].numpy(),
        f"{layer}.images": top.index[channels].numpy(),
    }


def jackknife(labels: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean share of one class among a feature's nine images.

    Groups of classes are left out, because features share images: they are no independent sample.

    Args:
        labels: (features, 9) by layer.

    Returns:
        The mean by layer (L,), and the means without each of G groups of classes (G, L).
    """
    classes = np.unique(np.concatenate([of_layer.ravel() for of_layer in labels.values()]))
    count = min(GROUPS, len(classes))
    group = np.zeros(classes.max() + 1, dtype=int)
    group[classes] = np.random.default_rng(FIGURE.seed).permutation(len(classes)) % count
    means = np.array([purity(of_layer).mean() for of_layer in labels.values()])
    left_out = [
        [_mean_share(of_layer, group[of_layer] != g) for of_layer in labels.values()]
        for g in range(group.max() + 1)
    ]
    return means, np.array(left_out)


def _mean_share(labels: np.ndarray, kept: np.ndarray) -> float:
    """The mean share of the most frequent label (features, 9), over the images that are kept."""
    labels, kept = labels[kept.any(1)], kept[kept.any(1)]
    same = ((labels[:, :, None] == labels[:, None]) & kept[:, None]).sum(2) * kept
    return float((same.max(1) / kept.sum(1)).mean())


def standard_error(left_out: np.ndarray) -> np.ndarray:
    """The jackknife's standard error (Tukey 1958) from G left-out values: (G, ...) -> (...)."""
    n = len(left_out)
    return np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))


def rises(means: np.ndarray, left_out: np.ndarray) -> dict[str, list[float]]:
    """The rise of the mean share from layer 1 to the last, and from each layer to the next.

    Returns:
        [rise, low, high] by pair of layers, with 95 % intervals by `jackknife`.
    """
    last, intervals = len(means), {}
    for low, high in ((1, last), *pairwise(range(1, last + 1))):
        rise = float(means[high - 1] - means[low - 1])
        half = 1.96 * float(standard_error(left_out[:, high - 1] - left_out[:, low - 1]))
        intervals[f"layer {high} less layer {low}"] = [rise, rise - half, rise + half]
    return intervals


def judge(rises: dict[str, list[float]]) -> tuple[dict[str, str], str]:
    """Judge the claims by the intervals of `rises`. The main one compares the last layer and 1."""
    if not np.isfinite([*rises.values()]).all():  # a layer has no features that nine images excite
        return {}, "not comparable"
    falls = [above(step) is False for step in rises.values()]
    claims = {
        MAIN: above(rises[RISE]),
        "it falls nowhere on the way, beyond the interval": not any(falls),
    }
    return verdict(claims, MAIN)


def draw(result: Result) -> dict[str, Picture]:
    if not result.arrays:
        return {}
    return {f"layer{layer[4:]}.jpg": _draw_layer(layer, result.arrays) for layer in TILE}


def _draw_layer(layer: str, arrays: dict[str, np.ndarray]) -> Picture:
    side, columns, count = TILE[layer], COLUMNS[layer], len(arrays[f"{layer}.channels"])
    patches = _blocks(photograph, arrays[f"{layer}.patches"], side, columns)
    if layer == "conv1":
        filters = enlarge(filter_image(arrays["conv1.filters"]), 3 * side + 2)
        left = mosaic(filters, columns, gap=6)
        title = f"Layer 1: {count} filters (left), and the nine patches that excite each most"
    else:
        left = _blocks(projection_image, arrays[f"{layer}.projections"], side, columns)
        title = (
            f"Layer {layer[4:]}: nine strongest activations of {count} random features (left), "
            "and their patches"
        )
    height, width = left.shape[0], left.shape[1] + patches.shape[1]
    figure = new_figure(width / 150 + 0.3, height / 150 + 0.45)
    for axes, image in zip(figure.subplots(1, 2), (left, patches), strict=True):
        show(axes, image)
    figure.suptitle(title, fontsize=9 if width > 1000 else 7.5)
    return figure


def _blocks(render: Callable, tiles: np.ndarray, side: int, columns: int) -> np.ndarray:
    """Nine tiles per feature as a 3 x 3 block, in rows: (features, 9, 3, R, R) -> one image."""
    features = [mosaic(enlarge(render(nine), side), 3, gap=1, background=0.6) for nine in tiles]
    # A gray frame, because patches may be white.
    framed = [np.pad(block, ((1, 1), (1, 1), (0, 0)), constant_values=0.6) for block in features]
    return mosaic(np.stack(framed), columns, gap=6)
