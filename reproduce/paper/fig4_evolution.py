"""Figure 4: how features come about during training.

The paper's claim: the strongest activation of a feature over the training images, projected to pixels, shows that lower layers
converge within a few epochs, and upper ones only after many. Measured here: the epoch from which a feature's strongest image
stays the same, and how far filters turn from snapshot to snapshot, per epoch. Wants the run of a training with `snapshots`:
python -m reproduce run fig4 --model RUN/model.safetensors --data PATH.
"""

from itertools import pairwise

import numpy as np
import torch

import zfnet
from reproduce.core.claims import above, below, verdict
from reproduce.core.figure import Figure, Result
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.data.cache import DataError, Images
from zfnet.data.folders import class_names, load_files, scan
from zfnet.graph import chain, conv_layers
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
    config={
        "features": 6,
        "images": {"paper": 0, "subset": 10_000, "smoke": 500},
    },  # searched; 0: all training images
    manual=True,
    scales=("paper", "subset", "smoke"),
)
TILE = 64  # pixels of a drawn projection


def compute(ctx) -> Result:
    snapshots = ctx.snapshots
    if ctx.tree is None or len(snapshots) < 3:
        note = "Needs a tree of images (--data) and a run with at least three snapshots (--model RUN/model.safetensors)."
        return Result({}, {}, "not run", n=0, note=note, scale="smoke")
    epochs = sorted(snapshots)
    requested = ctx.requested_scale or "subset"
    model = zfnet.load(snapshots[epochs[0]])
    if requested == "paper" and (
        model.info["training_images"] < 1_200_000 or epochs != FIGURE.paper["epochs shown"]
    ):
        note = f"--scale paper needs a run on all of ImageNet with snapshots of epochs {FIGURE.paper['epochs shown']}."
        return Result({}, {}, "not run", n=0, note=note, scale="smoke")
    images, tree = some_images(ctx, model, FIGURE.config["images"][requested])
    arrays: dict[str, np.ndarray] = {"epochs": np.array(epochs)}
    strongest: dict[str, list] = {}
    filters: dict[str, list] = {}
    generator = torch.Generator().manual_seed(FIGURE.seed)
    chosen: dict[str, torch.Tensor] = {}
    for epoch in ctx.progress(epochs, total=len(epochs), desc="snapshots"):
        raw = zfnet.load(snapshots[epoch], folded=False)
        model = zfnet.load(snapshots[epoch]).to(ctx.device)
        layers = conv_layers(chain(model, images.batch([0]).to(ctx.device)))
        top = zfnet.top_activations(model, images, layers, 1)
        for layer in layers:
            filters.setdefault(layer, []).append(
                raw.get_submodule(layer).weight.detach().flatten(1)
            )
            found = top[layer]
            strongest.setdefault(layer, []).append(
                torch.where(found.value > 0, found.index, -1)[:, 0].numpy()
            )
            if layer not in chosen:
                chosen[layer] = (
                    torch.randperm(len(found.value), generator=generator)[
                        : FIGURE.config["features"]
                    ]
                    .sort()
                    .values
                )
            of = chosen[layer]
            x = images.batch(found.index[of, 0]).to(ctx.device)
            p = zfnet.project(model, x, layer, of, found.position[of, 0].to(ctx.device))
            field = zfnet.trace(model, x[:1]).receptive_field(layer).size
            patches, _ = patches_inside(p, x, field)
            arrays[f"{layer}.{epoch}"] = enlarge(projection_image(patches.cpu()), TILE).astype(
                np.float32
            )
    settled = {layer: settling(np.stack(found), epochs) for layer, found in strongest.items()}
    turned = {layer: turning(found, epochs) for layer, found in filters.items()}
    first, *_, last = settled
    later = float(np.mean(turned[first][1:])), float(np.mean(turned[last][1:]))
    difference = difference_interval(settled[last], settled[first], seed=FIGURE.seed)
    means = {layer: mean_interval(e) for layer, e in settled.items()}
    measured: dict = {
        "epoch from which the top image stays, median": {
            layer: float(np.median(e)) for layer, e in settled.items()
        },
        "the same, mean, with its 95 % interval": means,
        "features whose top image still changed at the end, %": {
            n: 100 * float((e == epochs[-1]).mean()) for n, e in settled.items()
        },
        "filters' turn, degrees an epoch, between snapshots": turned,
        f"layer {last} minus {first}, epochs, with its 95 % interval": difference,
        "epochs shown": epochs,
    }
    held = {
        "the top images of the last layer settle later than those of the first": above(difference),
        "after the first snapshots its filters turn more an epoch than those of the first": later[1]
        > later[0],
        "the top images of the first layer settle in the first half of the training": below(
            means[first], epochs[-1] / 2
        ),
    }
    measured["claims"], said = verdict(held)
    note = (
        f"A network of {len(model.classes):,} classes; {len(images):,} training images of these, {len(epochs)} snapshots; "
        "features drawn at random; each projection is the receptive field, with its own contrast. A top image that changes at "
        f"the last snapshot counts as settled there. All are seen at {images.size} pixels, whatever size they were trained at."
    )
    scale = scale_of(len(model.classes), tree, len(images))
    scale = "paper" if (requested, scale) == ("paper", "subset") else scale
    if (
        scale == "smoke"
    ):  # in a short training layer 1 also settles because it hardly leaves its random start
        said, note = (
            "not comparable",
            note + " So small a training shows the order of the layers here, not in a full one.",
        )
    return Result(arrays, measured, said, n=len(images), note=note, scale=scale)


def scale_of(known: int, classes: int, images: int) -> str:
    """A subset is one of ImageNet only where the network was trained on all the tree's classes, and enough was searched."""
    return "subset" if known == classes and images >= FIGURE.config["images"]["subset"] else "smoke"


def some_images(ctx, model, count: int = 0) -> tuple[Images, int]:
    """Evenly chosen training images of the network's classes, `count` or all, and how many classes the tree has."""
    root = ctx.tree / "train"
    folders, files, labels = scan(root)
    known = np.flatnonzero(np.isin(np.array(folders)[labels], model.wnids))
    if not len(known):
        raise DataError(f"{root}: none of its folders is a class that the network was trained on")
    kept = known[np.linspace(0, len(known) - 1, min(len(known), count or len(known))).astype(int)]
    chosen, size, side = [files[i] for i in kept], model.size, round(model.size * 256 / 224)
    names = class_names(folders)
    return load_files(
        root, chosen, labels[kept], names, folders, side=side, size=size, progress=ctx.progress
    ), len(folders)


def settling(index: np.ndarray, epochs: list[int]) -> np.ndarray:
    """The epoch from which each feature's strongest image is its last: (snapshots, C) indices to (C,) epochs."""
    same = index == index[-1]
    from_here = np.flip(
        np.logical_and.accumulate(np.flip(same, 0), 0), 0
    )  # the same at this and all later snapshots
    return np.array(epochs, dtype=float)[from_here.argmax(0)]


def turning(weights: list[torch.Tensor], epochs: list[int]) -> list[float]:
    """The mean angle in degrees between each filter (C, P) at two snapshots, over the epochs between them."""
    found = []
    for (a, b), (start, end) in zip(pairwise(weights), pairwise(epochs), strict=True):
        cosine = torch.nn.functional.cosine_similarity(a.double(), b.double()).clamp(-1, 1)
        found.append(round(float(cosine.acos().rad2deg().mean()) / (end - start), 3))
    return found


def draw(result: Result):
    if not result.arrays:
        return {}
    epochs = result.arrays["epochs"].tolist()
    medians = result.measured["epoch from which the top image stays, median"]
    columns = 3
    rows = -(-(len(medians) + 1) // columns)
    figure = new_figure(4.2 * columns, 3.5 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (layer, median) in zip(panels, medians.items(), strict=False):
        tiles = np.stack(
            [result.arrays[f"{layer}.{epoch}"] for epoch in epochs], 1
        )  # (features, epochs, ...)
        title = (
            f"stay from epoch {median:g}"
            if median < epochs[-1]
            else "still change in the last snapshot"
        )
        show(
            axes,
            mosaic(tiles.reshape(-1, *tiles.shape[2:]), len(epochs), gap=2),
            f"{layer}: top images {title} (median)",
        )
    for axes in panels[len(medians) :]:
        axes.set_axis_off()
    turn = panels[len(medians)]
    turn.set_axis_on()
    for layer, colour in zip(medians, LINES, strict=False):
        turned = result.measured["filters' turn, degrees an epoch, between snapshots"][layer]
        turn.plot(epochs[1:], turned, marker="o", ms=3, color=colour, label=layer)
    turn.set(
        xlabel="epoch", ylabel="degrees an epoch", ylim=(0, None), title="How far filters turn"
    )
    turn.legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"Rows: features; columns: after epoch {', '.join(map(str, epochs))}", fontsize=9
    )
    return {"fig4.jpg": figure}
