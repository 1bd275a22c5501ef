"""Figure 2: what the feature maps of layers 1 to 5 respond to.

The paper's claim: for a random subset of feature maps, the nine strongest activations over the
validation set, projected to pixels by the deconvnet, show a hierarchy: edges and colors, then
corners and textures, then parts, then whole objects.

What the pictures show is measured as coherence: the nine patches of a feature are more alike than
patches shuffled between the features of the layer, and so are its nine projections. The share of
one class among the nine images is a number in the record; no verdict depends on it. Layer 1 is
shown as filters, all of them, with the nine patches that are most like each.
"""

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

from reproduce.core.claims import above, explain, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.networks import conv_weight
from reproduce.paper.class_shares import jackknife, rises, standard_error
from reproduce.paper.feature_tiles import SATURATED, Tiles, coherence, load_tiles, matching_top
from reproduce.paper.fig2_pictures import COHERENCE, MEANS, PARTS, draw_features
from zfnet.analysis.directions import purity
from zfnet.analysis.intervals import mean_interval
from zfnet.ranking import Top

FIGURE = Figure(
    id="fig2",
    title="Visualization of features in a trained model",
    claim="In every layer the nine strongest patches of a feature are alike, and so are their "
    "projections.",
    inputs=("model", "images", "top"),
    seed=2,
    time_budget=50,
    config={
        "features": {"conv1": "all", "conv2": 16, "conv3": 12, "conv4": 12, "conv5": 12},
        "measured": 16,
        "hero": 6,
        "images of layer 1": 2000,
        "k": 9,
    },
    network="layers",
    version=3,
    cover="hero.png",
    headline=(
        "coherence above that of shuffled tiles, mean cosine: conv1, patches",
        "coherence above that of shuffled tiles, mean cosine: conv2, patches",
        "coherence above that of shuffled tiles, mean cosine: conv3, patches",
        "coherence above that of shuffled tiles, mean cosine: conv4, patches",
        "coherence above that of shuffled tiles, mean cosine: conv5, patches",
        "coherence above that of shuffled tiles, mean cosine: conv4, projections",
        "coherence above that of shuffled tiles, mean cosine: conv5, projections",
        "rise of that share, with 95 % interval: layer 1 to layer 5",
    ),
)


def compute(ctx: Context) -> Result:
    images, k = ctx.images, FIGURE.config["k"]
    if len(images) < k:
        note = "The corpus has fewer than nine images."
        return Result({}, {}, "not run", n=len(images), note=note)
    top = dict(ctx.top)
    first, *_, last = top
    dead = {layer: int((of.value[:, 0] <= 0).sum()) for layer, of in top.items()}
    labels = {layer: images.labels[of.index[(of.value > 0).all(1)]] for layer, of in top.items()}
    top[first] = matching_top(ctx, first, k, FIGURE.config["images of layer 1"])
    generator = torch.Generator().manual_seed(FIGURE.seed)
    arrays: dict[str, np.ndarray] = {"conv1.filters": conv_weight(ctx.model, first).numpy()}
    measured: dict = {"dead features": dead, COHERENCE: {}, MEANS: {}}
    for layer in ctx.progress(list(top), total=len(top), desc="projecting"):
        tiles, shown = _load(ctx, layer, top[layer], generator)
        arrays |= tiles.subset(shown).arrays(layer)
        alike = _measure(measured, layer, tiles)
        if layer == last:
            arrays |= tiles.subset(_most_coherent(alike)).arrays("hero")
    judgments, evidence = judge(measured[COHERENCE])
    measured["claims"], summary = verdict(judgments)
    if len(set(images.labels.tolist())) >= 10:
        measured |= _class_shares(images.labels, labels, top[last].index.numpy())
    return Result(
        arrays, measured, summary, n=len(images), note=_note(ctx),
        finding=_summary(measured[COHERENCE]), reason=explain(judgments, evidence),
    )  # fmt: skip


def _load(ctx: Context, layer: str, top: Top, generator: torch.Generator) -> tuple[Tiles, Tensor]:
    """The tiles of the features of a layer that are measured, and the rows that are drawn."""
    alive = torch.where((top.value > 0).all(1))[0]  # features that nine images excite
    order = alive[torch.randperm(len(alive), generator=generator)]
    count = FIGURE.config["features"][layer]
    if count == "all":
        channels = torch.arange(len(top.value))
        return load_tiles(ctx, layer, top, channels), channels
    channels = order[: max(count, FIGURE.config["measured"])]
    return load_tiles(ctx, layer, top, channels), channels[:count].argsort()


def _measure(measured: dict, layer: str, tiles: Tiles) -> np.ndarray:
    """Add the coherence of a layer to the record. Returns that of each feature (F,), summed."""
    total = np.zeros(len(tiles.channels))
    for part in PARTS:
        alike, shuffled = coherence(getattr(tiles, part), FIGURE.seed)
        name = f"{layer}, {part}"
        measured[COHERENCE][name] = mean_interval(alike - shuffled, seed=FIGURE.seed)
        means = [float(alike.mean()), float(shuffled.mean())]
        measured[MEANS][name] = means
        total += alike
    return total


def _most_coherent(alike: np.ndarray) -> Tensor:
    """The rows of the features whose patches and projections are most alike, in order."""
    return torch.from_numpy(np.argsort(-alike, kind="stable")[: FIGURE.config["hero"]])


def judge(intervals: dict[str, list[float]]) -> tuple[dict[str, bool | None], dict[str, str]]:
    """Judge by layer whether patches and projections are more alike than shuffled ones.

    Returns:
        The judgments, and for each claim what was measured.
    """
    judgments, evidence = {}, {}
    for name, interval in intervals.items():
        layer, part = name.split(", ")
        claim = f"{layer}: a feature's nine {part} are more alike than shuffled ones"
        mean, *bounds = (f"{value:+z.2f}" for value in interval)
        judgments[claim] = above(interval)
        evidence[claim] = (
            f"the coherence of {layer}'s {part} differs from that of shuffled ones by {mean} "
            f"[{', '.join(bounds)}]"
        )
    return judgments, evidence


def _summary(intervals: dict[str, list[float]]) -> str:
    """In how many layers patches and projections are more alike than shuffled ones."""
    layers = list(dict.fromkeys(name.split(", ")[0] for name in intervals))
    counts = [
        sum(above(intervals[f"{layer}, {part}"]) is True for layer in layers) for part in PARTS
    ]
    return (
        f"The nine strongest patches of a feature are more alike than shuffled ones in {counts[0]} "
        f"of {len(layers)} layers, and the nine projections in {counts[1]}."
    )


def _class_shares(labels: np.ndarray, by_layer: dict[str, np.ndarray], last: np.ndarray) -> dict:
    """The share of one class among the nine images, a number beside the verdict."""
    shuffled = np.random.default_rng(FIGURE.seed).permutation(labels)
    means, left_out = jackknife(by_layer)
    errors = standard_error(left_out).tolist()
    name = list(by_layer)[-1]
    return {
        "share of the most frequent class among the top nine, mean": dict(
            zip(by_layer, means.tolist(), strict=True)
        ),
        "standard error of that share": dict(zip(by_layer, errors, strict=True)),
        f"that share by chance (labels shuffled), {name}": float(purity(shuffled[last]).mean()),
        "rise of that share, with 95 % interval": rises(means, left_out),
    }


def _note(ctx: Context) -> str:
    config = FIGURE.config
    return (
        f"Features are drawn at random among those that nine images excite; {config['measured']} "
        "per layer are measured, of layer 1 all. Coherence is the mean cosine between the tiles of "
        "a feature, at 12 pixels and without their mean color; shuffled tiles are those of the "
        "same features. Intervals are over features. Layer 1's patches are those most like the "
        f"filter (largest cosine) in {min(config['images of layer 1'], len(ctx.images)):,} images, "
        f"among patches that excite it with at most {SATURATED:.0%} of black or white values; the "
        "strongest ones are saturated and hide the pattern. The shares of one class have a "
        "standard error by a jackknife over groups of classes, because features share images. "
        f"hero.png shows the {config['hero']} measured features of layer 5 whose patches and "
        "projections are most alike."
    )


def draw(result: Result) -> dict[str, Picture]:
    return draw_features(result) if result.arrays else {}
