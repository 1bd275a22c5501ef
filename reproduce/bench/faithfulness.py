"""Which attribution methods are faithful? `zfnet.METHODS` on drawn scenes with known answers.

In the scenes only the object's shape determines the class. So an attribution must point at the
object, whose mask is known (pointing game, Zhang et al. 2016). The pixels that it ranks first must
matter (deletion and insertion, Petsiuk et al. 2018). It must change when the network is randomized
from the logits down (Adebayo et al. 2018). A random map, and for the pointing game the image's
center, are the baselines. A small ZFNet is trained on scenes by configs/scenes.yaml once, and
cached. It takes about ten minutes on two cores, including one or two minutes of training.

Published context: in the pointing game on VOC 2007 with VGG-16, TorchRay measured 67.5 % for the
deconvnet and 69.6 % for the image's center. A deconvnet shows where its images' edges are, not
where the class is.
"""

import numpy as np
import torch
from matplotlib.figure import Figure as Picture

import zfnet
from reproduce.bench.faithfulness_plot import draw_cascades, draw_scores
from reproduce.bench.faithfulness_scenes import attribute, correct_scenes, network
from reproduce.bench.faithfulness_scores import (
    LESS,
    LESS_OF,
    SAME,
    SCORES,
    randomize,
    score_maps,
)
from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import Figure, Result
from zfnet.analysis.intervals import mean_interval

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
            "deconvnet": 67.5, "image center": 69.6,
        },
    },
    config={
        "images": 100, "randomised images": 16, "steps": 10, "blur": 12.0, "tolerance": 4,
        "smoothgrad": {"samples": 16, "batch": 16},
        "integrated_gradients": {"steps": 16, "batch": 16},
        "occlusion": {"size": 16, "stride": 8},
    },
    files=(RECIPE,),
    version=2,
    trains=True,
)  # fmt: skip
RANDOM, CENTER = "random map", "image center"
BETTER = "points better than the center by, %"
LABELS = {
    "pointing game": "maximum on the object, %",
    "insertion": "insertion AUC (high is good)",
    "deletion": "deletion AUC (low is good)",
}


def compute(ctx: Context) -> Result:
    config, generator = FIGURE.config, torch.Generator().manual_seed(FIGURE.seed)
    model = network().to(ctx.device)
    scenes = correct_scenes(ctx, model, config["images"])
    methods = ctx.progress(zfnet.METHODS, total=len(zfnet.METHODS))
    maps = {
        name: attribute(model, scenes.x, scenes.target, name, config.get(name, {}))
        for name in methods
    }
    n, side = len(scenes.x), model.size
    maps[RANDOM] = torch.rand(n, 1, side, side, generator=generator)
    place = torch.arange(side) - (side - 1) / 2
    maps[CENTER] = -(place[:, None] ** 2 + place**2).expand(n, 1, -1, -1)
    scores = score_maps(ctx, model, scenes, maps, config)
    measured: dict = {
        SCORES[score]: {name: mean_interval(v) for name, v in values.items()}
        for score, values in scores.items()
    }
    randomized, cascade, layers = randomize(ctx, model, scenes, maps, config, generator)
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


def judge(measured: dict) -> tuple[dict[str, str], str]:
    """Judge the claims by their intervals."""
    better, less = measured[BETTER], measured[LESS]
    deconvnet = above(better["deconvnet"])
    judgments = {
        "the deconvnet points no better than the center of the image": (
            None if deconvnet is None else not deconvnet
        )
    }
    for name in ("occlusion", "grad_cam"):
        judgments[f"{name} points better than the center"] = above(better[name])
    for name in LESS_OF:
        claim = f"{name} changes less over the cascade than the gradient"
        judgments[claim] = above(less[name])
    return verdict(judgments)


def draw(result: Result) -> dict[str, Picture]:
    m, center = result.measured, result.measured[SCORES["pointing game"]][CENTER][0]
    pointing = m[SCORES["pointing game"]]
    better = [name for name, gain in m[BETTER].items() if above(gain)]
    finding = (
        f"{len(better)} of {len(zfnet.METHODS)} methods point at the object more often than the "
        f"image's center does ({center:.0f} %), beyond the interval; the deconvnet points at it in "
        f"{pointing['deconvnet'][0]:.0f} %"
    )
    columns = {LABELS[score]: m[name] for score, name in SCORES.items()}
    less = {name: m[LESS][name][0] for name in LESS_OF}
    changes = (
        "As layers are randomized, the mean rank correlation of guided backpropagation is "
        f"{less['guided_backprop']:+.2f} from the gradient's, that of the deconvnet "
        f"{less['deconvnet']:+.2f}"
    )
    cascades = {name: result.arrays[f"cascade.{name}"] for name in m[SAME]}
    return {
        "faithfulness.png": draw_scores(columns, (RANDOM, CENTER), finding),
        "cascade.png": draw_cascades(result.arrays["layers"].tolist(), cascades, changes),
    }
