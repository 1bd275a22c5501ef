"""Which attribution methods are faithful? Every method of `zfnet.METHODS` on drawn scenes whose answer is known.

In the scenes only the object's shape tells the class, so an attribution must point at the object, whose mask is known
(pointing game, Zhang et al. 2016); the pixels that it ranks first must matter (deletion and insertion, Petsiuk et al. 2018);
and it must change when the network under it is randomised from the logits down (Adebayo et al. 2018). A random map, and for
the pointing game the image's centre, say what nothing scores. A small ZFNet is trained on scenes by configs/scenes.yaml the
first time, and kept in the cache. About ten minutes on two cores with the training, of one to two minutes.

Published context: in the pointing game on VOC 2007 with VGG-16, TorchRay measured 67.5 % for the deconvnet and 69.6 % for the
image's centre: a deconvnet says where its images' edges are, not where the class is.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import zfnet
from reproduce import REPOSITORY
from reproduce.core.claims import above, verdict
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
from zfnet.plot import LINES, new_figure
from zfnet.synthesis.base import blur
from zfnet.training.config import load_config
from zfnet.training.loop import train

RECIPE = "../../configs/scenes.yaml"
FIGURE = Figure(
    id="faithfulness",
    title="Faithfulness of attribution methods",
    claim="The deconvnet points at the object no better than the image's centre does; occlusion and Grad-CAM point better than "
    "the centre; guided backpropagation and the deconvnet change less than the gradient as layer by layer is randomised.",
    inputs=(),
    seed=23,
    time_budget=900,
    manual=True,
    corpus="scenes",
    paper={"pointing game on VOC 2007, VGG-16, % (TorchRay)": {"deconvnet": 67.5, "image centre": 69.6}},
    config={
        "images": 100, "randomised images": 16, "steps": 10, "blur": 12.0, "tolerance": 4,
        "smoothgrad": {"samples": 16, "batch": 16}, "integrated_gradients": {"steps": 16, "batch": 16},
        "occlusion": {"size": 16, "stride": 8},
    },
    files=(RECIPE,),
    trains=True,
)  # fmt: skip
RANDOM, CENTRE = "random map", "image centre"
LESS, LESS_OF = (
    "rank correlation over the cascade, less saliency's",
    ("guided_backprop", "deconvnet"),
)
BETTER, SAME = (
    "points better than the centre by, %",
    "rank correlation with the map of the random network",
)
SCORES = {
    "pointing game": "pointing game, %",
    "insertion": "insertion AUC",
    "deletion": "deletion AUC",
}


def compute(ctx) -> Result:
    config, generator = FIGURE.config, torch.Generator().manual_seed(FIGURE.seed)
    model = network().to(ctx.device)
    images = load_scenes(5 * config["images"], seed=1, size=model.size)
    parts = np.split(np.arange(len(images)), 5)
    right = np.concatenate(
        [model(images.batch(part).to(ctx.device)).argmax(1).cpu().numpy() for part in parts]
    )
    known = np.flatnonzero(right == images.labels)[
        : config["images"]
    ]  # what a network gets wrong has no evidence to find
    x, target = (
        images.batch(known).to(ctx.device),
        torch.from_numpy(images.labels[known]).to(ctx.device),
    )
    border = (images.masks.shape[1] - model.size) // 2
    mask = torch.from_numpy(
        images.masks[known][:, border : border + model.size, border : border + model.size]
    )

    maps = {
        name: attribute(model, x, target, name)
        for name in ctx.progress(zfnet.METHODS, total=len(zfnet.METHODS))
    }
    maps[RANDOM] = torch.rand(len(x), 1, *x.shape[2:], generator=generator)
    place = torch.arange(model.size) - (model.size - 1) / 2
    maps[CENTRE] = -(place[:, None] ** 2 + place**2).expand(len(x), 1, -1, -1)
    rows = {"pointing game": {}, "insertion": {}, "deletion": {}}
    soft = blur(x, config["blur"])
    for name, map in ctx.progress(maps.items(), total=len(maps), desc="pointing and replacing"):
        rows["pointing game"][name] = 100 * pointing_game(map, mask, config["tolerance"]).numpy()
        options = {
            "map": map.nan_to_num().to(ctx.device),
            "target": target,
            "steps": config["steps"],
            "generator": None,
        }
        rows["insertion"][name] = auc(replacement_curve(model, soft, x, **options)).cpu().numpy()
        rows["deletion"][name] = auc(replacement_curve(model, x, 0.0, **options)).cpu().numpy()

    few = config["randomised images"]
    kept: dict[str, list[np.ndarray]] = {name: [] for name in zfnet.METHODS}
    sizes: dict[str, list[np.ndarray]] = {name: [] for name in zfnet.METHODS}  # of absolute values
    layers = []
    for layer, other in randomize_layers(model, generator):
        layers.append(layer)
        for name in ctx.progress(
            zfnet.METHODS, total=len(zfnet.METHODS), desc=f"{layer} and above at random"
        ):
            was, now = maps[name][:few], attribute(other, x[:few], target[:few], name)
            kept[name].append(
                rank_correlation(was, now).nan_to_num().numpy()
            )  # a flat map resembles nothing
            sizes[name].append(rank_correlation(was.abs(), now.abs()).nan_to_num().numpy())
    cascade = {name: np.stack(values, 1) for name, values in kept.items()}  # (few, layers)

    measured: dict = {
        SCORES[score]: {n: mean_interval(v) for n, v in values.items()}
        for score, values in rows.items()
    }
    measured[SAME] = {n: mean_interval(v[:, -1]) for n, v in cascade.items()}
    measured[f"{SAME}, of absolute values"] = {n: mean_interval(v[-1]) for n, v in sizes.items()}
    measured["rank correlation, mean over the cascade"] = {
        n: mean_interval(v.mean(1)) for n, v in cascade.items()
    }
    gradient = cascade["saliency"].mean(1)
    measured[LESS] = {n: mean_interval(cascade[n].mean(1) - gradient) for n in LESS_OF}
    centre = rows["pointing game"][CENTRE]
    measured[BETTER] = {
        n: mean_interval(v - centre) for n, v in rows["pointing game"].items() if n != CENTRE
    }
    measured["share of the image that the object covers, %"] = 100 * float(mask.float().mean())
    measured["accuracy of the network, %"] = 100 * float((right == images.labels).mean())
    arrays = {f"cascade.{name}": values for name, values in cascade.items()} | {
        "layers": np.array(layers)
    }
    claims, found = judge(measured)
    note = (
        f"The first {len(known)} of {len(images)} scenes that the network gets right; a hit is a maximum within "
        f"{config['tolerance']} pixels of the object's mask. Deletion replaces by grey, insertion starts from a blur of "
        f"{config['blur']:g} pixels. Intervals are 95 % over images by bootstrap; one network randomised, {few} images. CAM's "
        "head is a logistic regression on the pooled conv5 of 1,000 other scenes. Signed maps whose signs are drawn anew do "
        "not correlate, wherever they are large: compare the absolute values. In a scene the object's outline is nearly "
        "the only strong edge, which favours methods that show edges: VOC's photographs are not so, and the two do not compare."
    )
    return Result(
        arrays, measured | {"claims": claims}, found, n=len(known), note=note, scale="subset"
    )


def network() -> torch.nn.Module:
    """The scenes network of the recipe, from the cache, trained the first time; with a pooling head for CAM."""
    recipe = REPOSITORY / "configs" / "scenes.yaml"
    config = load_config(recipe)
    scenes = {
        split: load_scenes(n, seed=s)
        for split, n, s in (("train", config.data.scenes, 0), ("val", 500, 1))
    }
    out = cache_dir() / f"scenes-net-{digest(recipe.read_text(), scenes['train'].digest)[:20]}"
    if not (out / "model.safetensors").exists():
        with torch.enable_grad():
            train(
                config,
                lambda split, side: scenes[split],
                out,
                resume=(out / "state.safetensors").exists(),
            )
    model = zfnet.load(out / "model.safetensors")
    chosen = np.arange(1000)
    pooled = [
        zfnet.trace(model, scenes["train"].batch(p), until="conv5")["conv5"].mean((2, 3))
        for p in np.split(chosen, 10)
    ]
    fit = LogisticRegression(max_iter=2000).fit(
        torch.cat(pooled).numpy(), scenes["train"].labels[chosen]
    )
    model.cam_head = tuple(torch.from_numpy(part).float() for part in (fit.coef_, fit.intercept_))
    return model


def attribute(
    model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor, method: str
) -> torch.Tensor:
    """A method's maps (N, 1, H, W) on the CPU, in batches."""
    options = FIGURE.config.get(method, {})
    pairs = zip(x.split(25), target.split(25), strict=True)
    return torch.cat(
        [
            zfnet.explain(model, part, method, classes, **options).map.cpu()
            for part, classes in pairs
        ]
    )


def judge(m: dict) -> tuple[dict[str, str], str]:
    """The claims, beyond their intervals: reproduced if all hold, partial if any does, undecided where one holds zero."""
    better = m[BETTER]
    deconvnet = above(better["deconvnet"])
    held = {
        "the deconvnet points no better than the image's centre": None
        if deconvnet is None
        else not deconvnet
    }
    held |= {
        f"{name} points better than the centre": above(better[name])
        for name in ("occlusion", "grad_cam")
    }
    held |= {
        f"{name} changes less over the cascade than the gradient": above(m[LESS][name])
        for name in LESS_OF
    }
    return verdict(held)


def draw(result: Result):
    m, layers = result.measured, result.arrays["layers"].tolist()
    random = m[SAME]
    figure = new_figure(11.5, 8.6)
    upper, lower = figure.subplots(2, 1, height_ratios=(1.25, 1))
    upper.set_axis_off()
    columns = [m[title] for title in SCORES.values()] + [random]
    names = sorted(columns[0], key=lambda name: -columns[0][name][0])
    digits = (0, 2, 2, 2)
    cells = [
        [spoken(name)]
        + [interval(column.get(name), d) for column, d in zip(columns, digits, strict=True)]
        for name in names
    ]
    header = [
        "method",
        "pointing game, %\nhigher is better",
        "insertion AUC\nhigher is better",
        "deletion AUC\nlower is better",
    ]
    header += ["rank correlation,\nrandom network"]
    table = upper.table(
        cells, colLabels=header, cellLoc="center", bbox=(0, 0, 1, 1), edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (row, _), cell in table.get_celld().items():
        cell.set(linewidth=1.2 if row == 0 else 0.3, height=2.4 if row == 0 else 1)
        baseline = row > 0 and names[row - 1] in (RANDOM, CENTRE)
        cell.get_text().set(
            weight="bold" if row == 0 else "normal", color="0.45" if baseline else "black"
        )
    for number, name in enumerate(random):
        style = f"{'-' if number < len(LINES) else '--'}o"
        means, colour = [1, *result.arrays[f"cascade.{name}"].mean(0)], LINES[number % len(LINES)]
        lower.plot(means, style, color=colour, markersize=3, label=spoken(name))
    lower.set_xticks(range(len(layers) + 1), ["trained", *layers])
    lower.set(
        xlabel="randomised, this layer and all above",
        ylabel="rank correlation with the\nmap of the trained network",
    )
    lower.legend(ncols=1, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    upper.set_title(f"{result.n} drawn scenes that the network gets right: mean and 95 % interval")
    return {"faithfulness.png": figure}


def spoken(name: str) -> str:
    return name.replace("_plus_plus", "++").replace("_", " ")


def interval(values: list[float] | None, digits: int) -> str:
    """A mean with its interval, as a cell."""
    return (
        f"{values[0]:z.{digits}f}  ({values[1]:z.{digits}f} to {values[2]:z.{digits}f})"
        if values
        else ""
    )
