"""Figure 2: what the feature maps of layers 1 to 5 respond to.

The paper's claim: for a random subset of feature maps, the nine strongest activations over the
validation set, projected to pixels by the deconvnet, show a hierarchy: edges and colors, then
corners and textures, then parts, then whole objects.

What the pictures show is measured as coherence: the nine patches of a feature are more alike than
patches shuffled between the features of the layer, and so are its nine projections. The share of
one class among the nine images is a number in the record; no verdict depends on it. Layer 1 is
shown as filters, all of them, with the nine patches that are most like each.
"""

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from torch import Tensor

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from reproduce.core.networks import conv_weight
from reproduce.paper.class_shares import jackknife, rises, standard_error
from reproduce.paper.feature_tiles import SATURATED, Tiles, coherence, load_tiles, matching_top
from zfnet.analysis.directions import purity
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import enlarge, filter_image, mosaic, new_figure, photograph, projection_image, show
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
    version=2,
    cover="hero.png",
)
TILE = {"conv1": 16, "conv2": 32, "conv3": 44, "conv4": 44, "conv5": 44}  # pixels of a drawn patch
COLUMNS = {"conv1": 12, "conv2": 4, "conv3": 3, "conv4": 3, "conv5": 3}
CONTRAST = {"conv4": 0.98, "conv5": 0.98}  # quantile of |v| that is drawn black or white
PARTS = ("patches", "projections")
COHERENCE = "coherence of a feature's nine, above that of shuffled ones"


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
    measured: dict = {"dead features": dead, COHERENCE: {}, "coherence, mean: nine, shuffled": {}}
    for layer in ctx.progress(list(top), total=len(top), desc="projecting"):
        tiles, shown = _load(ctx, layer, top[layer], generator)
        arrays |= tiles.subset(shown).arrays(layer)
        alike = _measure(measured, layer, tiles)
        if layer == last:
            arrays |= tiles.subset(_most_coherent(alike)).arrays("hero")
    claims, summary = judge(measured[COHERENCE])
    measured["claims"] = claims
    if len(set(images.labels.tolist())) >= 10:
        measured |= _class_shares(images.labels, labels, top[last].index.numpy())
    finding = _summary(measured[COHERENCE])
    return Result(arrays, measured, summary, n=len(images), note=_note(ctx), finding=finding)


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
        measured["coherence, mean: nine, shuffled"][name] = means
        total += alike
    return total


def _most_coherent(alike: np.ndarray) -> Tensor:
    """The rows of the features whose patches and projections are most alike, in order."""
    return torch.from_numpy(np.argsort(-alike, kind="stable")[: FIGURE.config["hero"]])


def judge(intervals: dict[str, list[float]]) -> tuple[dict[str, str], str]:
    """Judge by layer whether patches and projections are more alike than shuffled ones."""
    return verdict(
        {f"{name}: more alike than shuffled": above(of) for name, of in intervals.items()}
    )


def _summary(intervals: dict[str, list[float]]) -> str:
    """In how many layers patches and projections are more alike than shuffled ones."""
    layers = list(dict.fromkeys(name.split(", ")[0] for name in intervals))
    counts = [
        sum(above(intervals[f"{layer}, {part}"]) is True for layer in layers) for part in PARTS
    ]
    return (
        f"The nine strongest patches of a feature are more alike than shuffled ones in {counts[0]} "
        f"of {len(layers)} layers, and their projections in {counts[1]}."
    )


def _class_shares(labels: np.ndarray, by_layer: dict[str, np.ndarray], last: np.ndarray) -> dict:
    """The share of one class among the nine images, a number beside the verdict."""
    shuffled = np.random.default_rng(FIGURE.seed).permutation(labels)
    means, left_out = jackknife(by_layer)
    errors = standard_error(left_out).tolist()
    name = list(by_layer)[-1]
    return {
        "one class among the top nine, mean share": dict(
            zip(by_layer, means.tolist(), strict=True)
        ),
        "its standard error": dict(zip(by_layer, errors, strict=True)),
        f"by chance (labels shuffled), {name}": float(purity(shuffled[last]).mean()),
        "rise of the mean share, with its 95 % interval": rises(means, left_out),
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
    if not result.arrays:
        return {}
    pictures = {f"layer{layer[4:]}.jpg": _draw_layer(layer, result) for layer in TILE}
    return pictures | {"hero.png": _draw_hero(result.arrays)}


def _draw_layer(layer: str, result: Result) -> Picture:
    arrays, columns, side = result.arrays, COLUMNS[layer], TILE[layer]
    channels = arrays[f"{layer}.channels"]
    figure = new_figure(8.4, 0.75 + 4.1 * _aspect(len(channels), columns, layer == "conv1"))
    left, right = figure.subplots(1, 2)
    if layer == "conv1":
        blocks = enlarge(filter_image(arrays["conv1.filters"]), 3 * side + 2)
        title = f"all {len(channels)} filters"
    else:
        blocks = _blocks(_renderer(layer), arrays[f"{layer}.projections"], side)
        title = f"projections of {len(channels)} random features"
    show_blocks(left, blocks, channels, columns, title, layer)
    patches = _blocks(photograph, arrays[f"{layer}.patches"], side)
    show_blocks(right, patches, channels, columns, "their image patches", layer)
    figure.suptitle(_finding(layer, result.measured), fontsize=10)
    return figure


def _aspect(count: int, columns: int, narrow: bool) -> float:
    """Height over width of a panel of blocks with their numbers."""
    return -(-count // columns) / columns * (1.32 if narrow else 1.1)


def _finding(layer: str, measured: dict) -> str:
    """The title: how alike a feature's nine patches and projections are."""
    means = measured["coherence, mean: nine, shuffled"]
    return (
        f"Layer {layer[4:]}: nine patches of a feature are alike by "
        + ", their projections by ".join(
            "{:.2f} (shuffled {:.2f})".format(*means[f"{layer}, {part}"]) for part in PARTS
        )
    )


def _draw_hero(arrays: dict[str, np.ndarray]) -> Picture:
    """Six blocks of layer 5: nine projections and, beside them, their patches."""
    side, columns = 44, 3
    projections = _blocks(_renderer("conv5"), arrays["hero.projections"], side)
    patches = _blocks(photograph, arrays["hero.patches"], side)
    blocks = np.concatenate([projections, patches], 2)  # side by side
    count = len(blocks)
    figure = new_figure(8.4, 0.7 + 1.55 * -(-count // columns))
    axes = figure.subplots()
    show_blocks(axes, blocks, arrays["hero.channels"], columns, "", "conv5", gap=22)
    figure.suptitle(
        f"What {count} features of layer 5 respond to: nine projections and their image patches",
        fontsize=10,
    )
    return figure


def _renderer(layer: str) -> Callable[[np.ndarray], np.ndarray]:
    """Projections with the layer's contrast; those of layers 4 and 5 have few strong pixels."""
    return lambda tiles: projection_image(tiles, CONTRAST.get(layer, 0.998))


def _blocks(render: Callable, tiles: np.ndarray, side: int) -> np.ndarray:
    """Nine tiles per feature as a framed 3 x 3 block: (F, 9, 3, R, R) -> (F, S, S, 3)."""
    blocks = [mosaic(enlarge(render(nine), side), 3, gap=1, background=0.6) for nine in tiles]
    # A gray frame, because patches may be white.
    return np.stack(
        [np.pad(block, ((1, 1), (1, 1), (0, 0)), constant_values=0.6) for block in blocks]
    )


def show_blocks(
    axes: Axes,
    blocks: np.ndarray,
    channels: np.ndarray,
    columns: int,
    title: str,
    layer: str,
    gap: int = 16,
) -> None:
    """Show blocks (F, H, W, 3) in rows, each with its channel above, as in the atlas."""
    gap = 24 if layer == "conv1" else gap
    height, width = blocks.shape[1] + gap, blocks.shape[2] + 8
    rows = -(-len(blocks) // columns)
    sheet = np.ones((rows * height, columns * width - 8, 3), np.float32)
    for i, (block, channel) in enumerate(zip(blocks, channels, strict=True)):
        top, left = i // columns * height + gap, i % columns * width
        sheet[top : top + len(block), left : left + block.shape[1]] = block
        text = str(channel) if layer == "conv1" else f"{layer}/{channel}"
        axes.text(left, top - 2, text, fontsize=7, va="bottom")
    show(axes, sheet)
    axes.set_title(title, fontsize=9)
