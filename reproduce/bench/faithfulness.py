"""Faithfulness of `zfnet.METHODS` on drawn scenes with known answers.

Only the shape of the object determines the class of a scene. A faithful attribution therefore
points at the object, whose mask is known (pointing game, Zhang et al. 2016). Replacing the pixels
that it ranks first changes the prediction (deletion and insertion, Petsiuk et al. 2018). The map
changes when the network is randomized from the logits down (Adebayo et al. 2018). The baselines are
a random map and, for the pointing game, the center of the image. A small ZFNet is trained once with
configs/scenes.yaml and cached. A run takes about ten minutes on two cores, including one or two
minutes of training.

In the pointing game on VOC 2007 with VGG-16, TorchRay measured 67.5 % for the deconvnet and 69.6 %
for the image center. A deconvnet shows the edges of an image, not the location of a class.
"""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import zfnet
from reproduce import REPOSITORY
from reproduce.bench.faithfulness_plot import draw_cascades, draw_scores
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from zfnet.analysis.faithfulness import (
    auc,
    pointing_game,
    randomize_layers,
    rank_correlation,
    replacement_curve,
)
from zfnet.analysis.intervals import mean_interval
from zfnet.data.cache import cache_dir, digest
from zfnet.data.scenes import load_scenes
from zfnet.model import Network
from zfnet.plot import new_figure
from zfnet.synthesis.base import blur
from zfnet.training.config import load_config
from zfnet.training.loop import train

RECIPE = "../../configs/scenes.yaml"
FIGURE = Figure(
    id="faithfulness",
    title="Faithfulness of attribution methods",
    claim="The deconvnet points at the object no better than the image's center does. Occlusion "
    "and Grad-CAM point better than the center. Guided backpropagation and the deconvnet change "
    "less than the gradient as layer by layer is randomized.",
    inputs=(),
    seed=23,
    time_budget=900,
    manual=True,
    corpus="scenes",
    paper={
        "pointing game on VOC 2007, VGG-16, % (TorchRay)": {
            "deconvnet": 67.5, "image centre": 69.6,
        },
    },
    config={
        "images": 100, "randomised images": 16, "steps": 10, "blur": 12.0, "tolerance": 4,
        "smoothgrad": {"samples": 16, "batch": 16},
        "integrated_gradients": {"steps": 16, "batch": 16},
        "occlusion": {"size": 16, "stride": 8},
    },
    files=(RECIPE,),
    trains=True,
)  # fmt: skip
RANDOM, CENTER = "random map", "image centre"
LESS = "rank correlation over the cascade, less saliency's"
LESS_OF = ("guided_backprop", "deconvnet")
BETTER = "points better than the centre by, %"
SAME = "rank correlation with the map of the random network"
SCORES = {
    "pointing game": "pointing game, %",
    "insertion": "insertion AUC",
    "deletion": "deletion AUC",
}
HEADER = [
    "method",
    "pointing game, %\nhigher is better",
    "insertion AUC\nhigher is better",
    "deletion AUC\nlower is better",
    "rank correlation,\nrandom network",
]


class Scenes(NamedTuple):
    """The first scenes that the network classifies correctly.

    Attributes:
        x: (N, 3, S, S), the inputs.
        target: (N,), the classes.
        mask: (N, S, S), the pixels of the object.
        count: Number of scenes that were classified.
        accuracy: Accuracy of the network on all classified scenes, in percent.
    """

    x: Tensor
    target: Tensor
    mask: Tensor
    count: int
    accuracy: float


def compute(ctx: Context) -> Result:
    config, generator = FIGURE.config, torch.Generator().manual_seed(FIGURE.seed)
    model = network().to(ctx.device)
    scenes = _scenes(ctx, model)
    methods = ctx.progress(zfnet.METHODS, total=len(zfnet.METHODS))
    maps = {name: attribute(model, scenes.x, scenes.target, name) for name in methods}
    n, side = len(scenes.x), model.size
    maps[RANDOM] = torch.rand(n, 1, side, side, generator=generator)
    place = torch.arange(side) - (side - 1) / 2
    maps[CENTER] = -(place[:, None] ** 2 + place**2).expand(n, 1, -1, -1)
    scores = _scores(ctx, model, scenes, maps)
    measured: dict = {
        SCORES[score]: {name: mean_interval(v) for name, v in values.items()}
        for score, values in scores.items()
    }
    randomized, cascade, layers = _randomize(ctx, model, scenes, maps, generator)
    measured |= randomized
    center = scores["pointing game"][CENTER]
    measured[BETTER] = {
        name: mean_interval(values - center)
        for name, values in scores["pointing game"].items()
        if name != CENTER
    }
    share = 100 * float(scenes.mask.float().mean())
    measured["share of the image that the object covers, %"] = share
    measured["accuracy of the network, %"] = scenes.accuracy
    measured["claims"], summary = judge(measured)
    arrays = {f"cascade.{name}": values for name, values in cascade.items()}
    arrays["layers"] = np.array(layers)
    note = (
        f"The first {n} of {scenes.count} scenes that the network classifies correctly. A hit is a "
        f"maximum within {config['tolerance']} pixels of the object's mask. Deletion replaces "
        f"pixels by gray, insertion starts from a blur of {config['blur']:g} pixels. Intervals are "
        "95 % over images by bootstrap; one network was randomized, with "
        f"{config['randomised images']} images. CAM's head is a logistic regression on the pooled "
        "conv5 of 1,000 other scenes. Signed maps with random signs do not correlate, wherever "
        "they are large: compare the absolute values. In a scene the object's outline is nearly "
        "the only strong edge, which favors methods that show edges. VOC's photographs differ, so "
        "the two do not compare."
    )
    return Result(arrays, measured, summary, n=n, note=note, scale="subset")


def _scenes(ctx: Context, model: Network) -> Scenes:
    """Classify scenes, and keep those that are classified correctly."""
    config, device = FIGURE.config, ctx.device
    images = load_scenes(5 * config["images"], seed=1, size=model.size)
    batches = np.split(np.arange(len(images)), 5)
    logits = [model(images.batch(rows).to(device)) for rows in batches]
    correct = torch.cat(logits).argmax(1).cpu().numpy() == images.labels
    rows = np.flatnonzero(correct)[: config["images"]]
    assert images.masks is not None
    border = (images.masks.shape[1] - model.size) // 2
    inner = slice(border, border + model.size)
    return Scenes(
        x=images.batch(rows).to(device),
        target=torch.from_numpy(images.labels[rows]).to(device),
        mask=torch.from_numpy(images.masks[rows][:, inner, inner]),
        count=len(images),
        accuracy=100 * float(correct.mean()),
    )


def _scores(
    ctx: Context, model: Network, scenes: Scenes, maps: dict[str, Tensor]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the scores (N,) of each metric and method: pointing game, insertion, deletion."""
    config = FIGURE.config
    scores: dict[str, dict[str, np.ndarray]] = {score: {} for score in SCORES}
    blurred = blur(scenes.x, config["blur"])
    for name, map in ctx.progress(maps.items(), total=len(maps), desc="pointing and replacing"):
        hits = pointing_game(map, scenes.mask, config["tolerance"])
        scores["pointing game"][name] = 100 * hits.numpy()
        options = {
            "map": map.nan_to_num().to(ctx.device),
            "target": scenes.target,
            "steps": config["steps"],
            "generator": None,
        }
        inserted = replacement_curve(model, blurred, scenes.x, **options)
        deleted = replacement_curve(model, scenes.x, 0.0, **options)
        scores["insertion"][name] = auc(inserted).cpu().numpy()
        scores["deletion"][name] = auc(deleted).cpu().numpy()
    return scores


def _randomize(
    ctx: Context,
    model: Network,
    scenes: Scenes,
    maps: dict[str, Tensor],
    generator: torch.Generator,
) -> tuple[dict, dict[str, np.ndarray], list[str]]:
    """Randomize the network from the logits down, layer by layer.

    Returns:
        The measured numbers; the rank correlations with the map of the trained network (n, layers)
        by method; the layers in order.
    """
    count, methods = FIGURE.config["randomised images"], zfnet.METHODS
    x, target = scenes.x[:count], scenes.target[:count]
    signed: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    absolute: dict[str, np.ndarray] = {}
    layers = []
    for layer, randomized in randomize_layers(model, generator):
        layers.append(layer)
        description = f"{layer} and above at random"
        for name in ctx.progress(methods, total=len(methods), desc=description):
            before, after = maps[name][:count], attribute(randomized, x, target, name)
            # The correlation with a constant map is NaN; count it as 0.
            signed[name].append(rank_correlation(before, after).nan_to_num().numpy())
            correlation = rank_correlation(before.abs(), after.abs()).nan_to_num().numpy()
            absolute[name] = correlation
    cascade = {name: np.stack(values, 1) for name, values in signed.items()}
    mean = {name: values.mean(1) for name, values in cascade.items()}
    measured = {
        SAME: {name: mean_interval(values[:, -1]) for name, values in cascade.items()},
        f"{SAME}, of absolute values": {name: mean_interval(v) for name, v in absolute.items()},
        "rank correlation, mean over the cascade": {
            name: mean_interval(values) for name, values in mean.items()
        },
        LESS: {name: mean_interval(mean[name] - mean["saliency"]) for name in LESS_OF},
    }
    return measured, cascade, layers


def network() -> Network:
    """Return the cached network of configs/scenes.yaml with a pooling head for CAM."""
    recipe = REPOSITORY / "configs" / "scenes.yaml"
    config = load_config(recipe)
    scenes = {"train": load_scenes(config.data.scenes, seed=0), "val": load_scenes(500, seed=1)}
    key = digest(recipe.read_text(), scenes["train"].digest)[:20]
    out = cache_dir() / f"scenes-net-{key}"
    if not (out / "model.safetensors").exists():
        resume = (out / "state.safetensors").exists()
        with torch.enable_grad():
            train(config, lambda split, side: scenes[split], out, resume=resume)
    model = zfnet.load(out / "model.safetensors")
    rows, images = np.arange(1000), scenes["train"]
    pooled = [
        zfnet.trace(model, images.batch(part), until="conv5")["conv5"].mean((2, 3))
        for part in np.split(rows, 10)
    ]
    head = LogisticRegression(max_iter=2000).fit(torch.cat(pooled).numpy(), images.labels[rows])
    weight, bias = (torch.from_numpy(part).float() for part in (head.coef_, head.intercept_))
    model.cam_head = (weight, bias)
    return model


def attribute(model: torch.nn.Module, x: Tensor, target: Tensor, method: str) -> Tensor:
    """Return the maps (N, 1, H, W) of a method on the CPU, computed in batches."""
    options = FIGURE.config.get(method, {})
    batches = zip(x.split(25), target.split(25), strict=True)
    maps = [
        zfnet.explain(model, images, method, classes, **options).map.cpu()
        for images, classes in batches
    ]
    return torch.cat(maps)


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Judge the claims by their intervals."""
    better, less = measured[BETTER], measured[LESS]
    deconvnet = above(better["deconvnet"])
    judgments = {
        "the deconvnet points no better than the image's centre": (
            None if deconvnet is None else not deconvnet
        )
    }
    for name in ("occlusion", "grad_cam"):
        judgments[f"{name} points better than the centre"] = above(better[name])
    for name in LESS_OF:
        claim = f"{name} changes less over the cascade than the gradient"
        judgments[claim] = above(less[name])
    return verdict(judgments)


def draw(result: Result) -> dict[str, Picture]:
    figure = new_figure(11.5, 8.6)
    upper, lower = figure.subplots(2, 1, height_ratios=(1.25, 1))
    columns = [result.measured[title] for title in (*SCORES.values(), SAME)]
    draw_scores(upper, HEADER, columns, baselines=(RANDOM, CENTER))
    upper.set_title(f"{result.n} drawn scenes, classified correctly: mean and 95 % interval")
    cascades = {name: result.arrays[f"cascade.{name}"] for name in result.measured[SAME]}
    draw_cascades(lower, result.arrays["layers"].tolist(), cascades)
    return {"faithfulness.png": figure}
