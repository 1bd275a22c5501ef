"""Figure 4: how features evolve during training.

The paper's claim: the strongest activation of a feature over the training images, projected to
pixels, shows that lower layers converge within a few epochs, and upper ones only after many.

Measured: the epoch from which a feature's strongest image stays the same, and the angle by which
filters turn from snapshot to snapshot, per epoch. It needs a training run with `snapshots`:

    python -m reproduce run fig4 --model RUN/model.safetensors --data PATH
"""

from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

import zfnet
from reproduce.core.claims import above, below, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.data.folders import load_files
from zfnet.data.labels import class_names
from zfnet.data.tree import scan
from zfnet.graph import chain, conv_layers
from zfnet.model import Network
from zfnet.plot import LINES, enlarge, mosaic, new_figure, projection_image, show
from zfnet.projection import patches_inside

FIGURE = Figure(
    id="fig4",
    title="Evolution of features during training",
    claim="The lower layers' features settle within a few epochs, the upper ones' only after many.",
    inputs=("snapshots", "tree"),
    seed=4,
    time_budget=3600,
    paper={"epochs shown": [1, 2, 5, 10, 20, 30, 40, 64]},
    # The number of training images to search; 0 for all.
    config={"features": 6, "images": {"paper": 0, "subset": 10_000, "smoke": 500}},
    manual=True,
    scales=("paper", "subset", "smoke"),
)
TILE = 64  # pixels of a drawn projection
MEDIAN = "epoch from which the top image stays, median"
TURN = "filters' turn, degrees an epoch, between snapshots"


def compute(ctx: Context) -> Result:
    snapshots = ctx.snapshots
    if ctx.tree is None or len(snapshots) < 3:
        note = (
            "Needs a tree of images (--data) and a run with at least three snapshots "
            "(--model RUN/model.safetensors)."
        )
        return Result({}, {}, "not run", n=0, note=note, scale="smoke")
    epochs, shown = sorted(snapshots), FIGURE.paper["epochs shown"]
    requested = ctx.requested_scale or "subset"
    model = zfnet.load(snapshots[epochs[0]])
    if requested == "paper" and (model.info["training_images"] < 1_200_000 or epochs != shown):
        note = f"--scale paper needs a run on all of ImageNet with snapshots of epochs {shown}."
        return Result({}, {}, "not run", n=0, note=note, scale="smoke")
    images, tree_classes = training_images(ctx, model, FIGURE.config["images"][requested])
    arrays, strongest, filters = _follow(ctx, snapshots, images)
    measured, judgments = _measure(strongest, filters, epochs)
    measured["claims"], summary = verdict(judgments)
    classes = len(model.classes)
    note = (
        f"A network of {classes:,} classes; {len(images):,} training images of these, "
        f"{len(epochs)} snapshots; features drawn at random. Each projection is cropped to the "
        "receptive field, with its own contrast. A top image that changes at the last snapshot "
        f"counts as settled there. Images have {images.size} pixels at all epochs, whatever their "
        "size in training."
    )
    scale = scale_of(classes, tree_classes, len(images))
    scale = "paper" if (requested, scale) == ("paper", "subset") else scale
    if scale == "smoke":  # layer 1 also settles because it hardly leaves its random initialization
        summary = "not comparable"
        note += " So small a training shows the order of the layers here, not in a full one."
    return Result(arrays, measured, summary, n=len(images), note=note, scale=scale)


def _follow(
    ctx: Context, snapshots: dict[int, Path], images: Images
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]], dict[str, list[Tensor]]]:
    """Follow features over the snapshots.

    Returns:
        The arrays to draw; the strongest image of each feature (C,), -1 where none excites it, and
        the filters (C, P), by layer and snapshot.
    """
    epochs = sorted(snapshots)
    arrays: dict[str, np.ndarray] = {"epochs": np.array(epochs)}
    strongest: dict[str, list[np.ndarray]] = {}
    filters: dict[str, list[Tensor]] = {}
    chosen: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(FIGURE.seed)
    for epoch in ctx.progress(epochs, total=len(epochs), desc="snapshots"):
        raw = zfnet.load(snapshots[epoch], folded=False)
        model = zfnet.load(snapshots[epoch]).to(ctx.device)
        layers = conv_layers(chain(model))
        top = zfnet.top_activations(model, images, layers, 1)
        for layer in layers:
            weight = cast(Tensor, raw.get_submodule(layer).weight)
            filters.setdefault(layer, []).append(weight.detach().flatten(1))
            value, index, position = top[layer].value, top[layer].index, top[layer].position
            best = torch.where(value > 0, index, -1)[:, 0].numpy()
            strongest.setdefault(layer, []).append(best)
            if layer not in chosen:
                order = torch.randperm(len(value), generator=generator)
                chosen[layer] = order[: FIGURE.config["features"]].sort().values
            channels = chosen[layer]
            x = images.batch(index[channels, 0]).to(ctx.device)
            p = zfnet.project(model, x, layer, channels, position[channels, 0].to(ctx.device))
            field = zfnet.trace(model, x[:1]).receptive_field(layer).size
            tiles = projection_image(patches_inside(p, x, field)[0].cpu())
            arrays[f"{layer}.{epoch}"] = enlarge(tiles, TILE).astype(np.float32)
    return arrays, strongest, filters


def _measure(
    strongest: dict[str, list[np.ndarray]], filters: dict[str, list[Tensor]], epochs: list[int]
) -> tuple[dict, dict[str, bool | None]]:
    """The measured numbers, and the judgments of the claims."""
    settled = {layer: settling(np.stack(index), epochs) for layer, index in strongest.items()}
    turned = {layer: turning(weights, epochs) for layer, weights in filters.items()}
    first, *_, last = settled
    difference = difference_interval(settled[last], settled[first], seed=FIGURE.seed)
    means = {layer: mean_interval(epoch) for layer, epoch in settled.items()}
    later = {layer: float(np.mean(turned[layer][1:])) for layer in (first, last)}
    measured: dict = {
        MEDIAN: {layer: float(np.median(epoch)) for layer, epoch in settled.items()},
        "the same, mean, with its 95 % interval": means,
        "features whose top image still changed at the end, %": {
            layer: 100 * float((epoch == epochs[-1]).mean()) for layer, epoch in settled.items()
        },
        TURN: turned,
        f"layer {last} minus {first}, epochs, with its 95 % interval": difference,
        "epochs shown": epochs,
    }
    claims = (
        "the top images of the last layer settle later than those of the first",
        "after the first snapshots its filters turn more an epoch than those of the first",
        "the top images of the first layer settle in the first half of the training",
    )
    judgments = (
        above(difference),
        later[last] > later[first],
        below(means[first], epochs[-1] / 2),
    )
    return measured, dict(zip(claims, judgments, strict=True))


def scale_of(classes: int, tree_classes: int, images: int) -> str:
    """ "subset" if the network was trained on all classes of the tree, and enough was searched."""
    enough = images >= FIGURE.config["images"]["subset"]
    return "subset" if classes == tree_classes and enough else "smoke"


def training_images(ctx: Context, model: Network, count: int = 0) -> tuple[Images, int]:
    """Evenly chosen training images of the network's classes.

    Args:
        ctx: The run.
        model: The network.
        count: How many images; 0 for all.

    Returns:
        The images, and the number of classes of the tree.
    """
    assert ctx.tree is not None
    root = ctx.tree / "train"
    folders, files, labels = scan(root)
    rows = np.flatnonzero(np.isin(np.array(folders)[labels], model.wnids))
    if not len(rows):
        raise DataError(f"{root}: none of its folders is a class that the network was trained on")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), count or len(rows))).astype(int)]
    images = load_files(
        root,
        [files[i] for i in rows],
        labels[rows],
        class_names(folders),
        folders,
        side=round(model.size * 256 / 224),
        size=model.size,
        progress=ctx.progress,
    )
    return images, len(folders)


def settling(index: np.ndarray, epochs: list[int]) -> np.ndarray:
    """The epoch from which each feature's strongest image is its last.

    Args:
        index: (snapshots, C), the strongest images.
        epochs: The epochs of the snapshots.

    Returns:
        (C,) epochs.
    """
    same = index == index[-1]
    settled = np.flip(np.logical_and.accumulate(np.flip(same, 0), 0), 0)  # from here to the end
    return np.array(epochs, dtype=float)[settled.argmax(0)]


def turning(weights: list[Tensor], epochs: list[int]) -> list[float]:
    """The mean angle in degrees between filters (C, P) of consecutive snapshots, per epoch."""
    angles = []
    for (a, b), (start, end) in zip(pairwise(weights), pairwise(epochs), strict=True):
        cosine = torch.nn.functional.cosine_similarity(a.double(), b.double()).clamp(-1, 1)
        angles.append(round(float(cosine.acos().rad2deg().mean()) / (end - start), 3))
    return angles


def draw(result: Result) -> dict[str, Picture]:
    if not result.arrays:
        return {}
    epochs, medians = result.arrays["epochs"].tolist(), result.measured[MEDIAN]
    columns = 3
    rows = -(-(len(medians) + 1) // columns)
    figure = new_figure(4.2 * columns, 3.5 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (layer, median) in zip(panels, medians.items(), strict=False):
        tiles = np.stack([result.arrays[f"{layer}.{epoch}"] for epoch in epochs], 1)
        text = "still change in the last snapshot"
        if median < epochs[-1]:
            text = f"stay from epoch {median:g}"
        image = mosaic(tiles.reshape(-1, *tiles.shape[2:]), len(epochs), gap=2)
        show(axes, image, f"{layer}: top images {text} (median)")
    turn, *empty = panels[len(medians) :]
    for axes in empty:
        axes.set_axis_off()
    for layer, color in zip(medians, LINES, strict=False):
        degrees = result.measured[TURN][layer]
        turn.plot(epochs[1:], degrees, marker="o", ms=3, color=color, label=layer)
    turn.set(xlabel="epoch", ylabel="degrees per epoch", ylim=(0, None))
    turn.set_title("How far filters turn")
    turn.legend(frameon=False, fontsize=8)
    listed = ", ".join(map(str, epochs))
    figure.suptitle(f"Rows: features; columns: after epoch {listed}", fontsize=9)
    return {"fig4.jpg": figure}
