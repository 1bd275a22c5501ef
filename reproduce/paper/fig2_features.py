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
from reproduce.figure import Figure, Result
from zfnet.deconv import cut
from zfnet.methods.directions import purity
from zfnet.plot import enlarge, filter_image, mosaic, new_figure, photograph, projection_image, show

FIGURE = Figure(
    id="fig2",
    title="Visualization of features in a trained model",
    claim="From layer 1 to layer 5, more of a feature's nine strongest images belong to one class.",
    inputs=("model", "images", "top"),
    seed=2,
    budget=50,
    config={"features": {"conv1": "all", "conv2": 16, "conv3": 12, "conv4": 12, "conv5": 12}, "k": 9},
)
TILE = {"conv1": 16, "conv2": 48, "conv3": 72, "conv4": 80, "conv5": 92}  # pixels of a drawn patch
COLUMNS = {"conv1": 12, "conv2": 4, "conv3": 3, "conv4": 3, "conv5": 3}


def compute(ctx) -> Result:
    model, images = ctx.model, ctx.images
    if len(images) < 9:
        return Result({}, {}, "not run", n=len(images), note="Fewer than nine images.")
    top = ctx.top
    generator = torch.Generator().manual_seed(FIGURE.seed)
    arrays: dict[str, np.ndarray] = {"conv1.filters": model.conv1.weight.detach().cpu().numpy()}
    measured: dict = {"receptive field": {}, "dead features": {}}
    purities = {}
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
            p = zfnet.project(model, x, layer, torch.full((9,), channel), found.position[channel].to(ctx.device))
            corner = p.corner.clamp(0, x.shape[-1] - field)  # at the border, the patch that lies inside the image
            projections.append(cut(p.pixels, corner, field).cpu())
            patches.append(cut(x, corner, field).cpu())
        arrays[f"{layer}.channels"] = chosen.numpy()
        arrays[f"{layer}.projections"] = torch.stack(projections).numpy()  # (features, 9, 3, R, R) signed
        arrays[f"{layer}.patches"] = torch.stack(patches).numpy()  # the same, network inputs
        arrays[f"{layer}.activations"] = found.value[chosen].numpy()
        arrays[f"{layer}.images"] = found.index[chosen].numpy()
        measured["receptive field"][layer] = field
        measured["dead features"][layer] = int((found.value[:, 0] <= 0).sum())
        purities[layer] = purity(images.labels[found.index[alive]])
    if len(set(images.labels.tolist())) < 10:
        note = "Too few classes to compare with the paper: the pictures only."
        return Result(arrays, measured, "not comparable", n=len(images), note=note)
    shuffled = np.random.default_rng(FIGURE.seed).permutation(images.labels)
    measured["one class among the top nine, mean share"] = {layer: float(p.mean()) for layer, p in purities.items()}
    measured["its standard error"] = {layer: float(p.std() / len(p) ** 0.5) for layer, p in purities.items()}
    measured["by chance (labels shuffled), conv5"] = float(purity(shuffled[top["conv5"].index]).mean())
    per_class = len(images) / len(set(images.labels.tolist()))
    note = (
        "Features are drawn at random among those that nine images excite; a share of 1/9 is nine different classes. "
        f"Here a class has {per_class:.0f} images to take nine from, in the paper's validation set 50. The standard "
        "error is over features. `extremes` compares a layer-5 feature's nine weakest images."
    )
    claims, verdict = judge(list(purities.values()))
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(images), note=note)


def judge(purities: list[np.ndarray]) -> tuple[dict[str, str], str]:
    """Reproduced: the share rises clearly from layer 1 to 5 (three standard errors) and falls nowhere on the way (two)."""

    def rise(low: np.ndarray, high: np.ndarray) -> float:
        return float(
            (high.mean() - low.mean()) / np.hypot(low.std() / len(low) ** 0.5, high.std() / len(high) ** 0.5).clip(1e-9)
        )

    higher, steps = rise(purities[0], purities[-1]) >= 3, [rise(low, high) for low, high in pairwise(purities)]
    claims = {
        "layer 5 is above layer 1, by three standard errors": "holds" if higher else "does not hold",
        "it falls nowhere on the way, by two": "holds" if min(steps) > -2 else "does not hold",
    }
    return claims, "differs" if not higher else "reproduced" if min(steps) > -2 else "partial"


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
    features = [mosaic(enlarge(render(nine), side), 3, gap=1, background=0.8) for nine in tiles]  # patches may be white
    framed = [np.pad(block, ((1, 1), (1, 1), (0, 0)), constant_values=0.8) for block in features]
    return mosaic(np.stack(framed), columns, gap=6)
