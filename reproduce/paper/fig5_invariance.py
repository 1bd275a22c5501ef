"""Figure 5: translating, scaling and rotating the picture.

The paper's claim: a small transform changes the first layer's features dramatically, but those of
layer 7 little, where the distance grows quasi-linearly with translation and scale. The probability
of the true class is stable under both, but not under rotation, except for objects with rotational
symmetry (its entertainment center peaks every 90 degrees).

Rows: (a) vertical translation, (b) scale, (c) rotation. Columns: five images, the distance of the
features of layer 1 and of layer 7 from the untransformed ones, the probability of the true class.
Five images prove little, so the numbers and fig5_average.jpg are means over 200.
"""

from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from torch import Tensor

from reproduce.core.claims import above, every, higher, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.paper.fig5_pictures import LAYERS, draw_images, draw_means
from reproduce.paper.transformed_images import Chosen, choose
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.invariance import IDENTITY, SHARE, invariance, r_squared, views
from zfnet.plot import enlarge, photograph

FIGURE = Figure(
    id="fig5",
    title="Invariance to translation, scale and rotation",
    claim="A small transform moves layer 1 far and layer 7 little. Layer 7 moves quasi-linearly "
    "with translation and scale, under which the class is more stable than under rotation. There "
    "it peaks at quarter turns for a symmetric object.",
    inputs=("model", "images"),
    seed=5,
    time_budget=30,
    config={
        "layers": list(LAYERS), "share": SHARE, "average": 200,
        "small": {"translation": 5, "scale": 1.05, "rotation": 10},
        # First, last, step.
        "translation": [-60, 60, 5], "scale": [1, 1.8, 0.05], "rotation": [0, 350, 10],
        "shown": {
            "translation": [-60, -30, 0, 30, 60], "scale": [1, 1.2, 1.4, 1.6, 1.8],
            "rotation": [0, 45, 90, 180, 270],
        },
        # The paper's: lawn mower, Shih-Tzu, African crocodile, African grey, and the symmetric
        # one, entertainment center.
        "classes": ["n03649909", "n02086240", "n01697457", "n01817953", "n03290653"],
        # The last is the symmetric one.
        "photographs": ["cat", "coffee", "motorcycle", "rocket", "coins"],
    },
    network="layers",
)  # fmt: skip
LINEAR = ("translation", "scale")  # the families with quasi-linear distances
QUARTERS, BETWEEN = (90, 180, 270), (40, 50, 130, 140, 220, 230, 310, 320)  # degrees
TURNS = "probability at quarter turns less at the turns between, of the reference's"
SYMMETRIC, ALL, MORE = "symmetric object", "all averaged", "symmetric object less all averaged"


def compute(ctx: Context) -> Result:
    chosen = choose(ctx, FIGURE.config)
    titles, averaged, symmetric = chosen.titles, chosen.averaged, chosen.symmetric
    arrays: dict[str, np.ndarray] = {
        "titles": np.array(titles), "averaged": averaged, "symmetric": symmetric,
    }  # fmt: skip
    labels = torch.empty(0)
    for family in IDENTITY:
        result = invariance(
            ctx.model, chosen.squares, chosen.targets, family, grid(family).tolist(),
            layers=tuple(LAYERS), share=SHARE, progress=ctx.progress,
        )  # fmt: skip
        arrays[f"{family}.tiles"] = _tiles(chosen.squares[: len(titles)], family)
        for layer in LAYERS:
            arrays[f"{family}.{layer}"] = result.distance[layer].cpu().numpy()
        arrays[f"{family}.probability"] = result.probability.cpu().numpy()
        arrays["reference"], labels = result.reference.cpu().numpy(), result.reference_label
    predicted = [ctx.model.classes[int(label)] for label in labels[: len(titles)]]
    shown = {
        title: {"taken for": name, "probability": float(p)}
        for title, name, p in zip(titles, predicted, arrays["reference"], strict=False)
    }
    measured: dict = {"shown": shown} | (measure(arrays) if len(averaged) > 1 else {})
    labeled = ctx.corpus != SAMPLES and len(averaged) >= 20 and len(symmetric) >= 2
    last_class = ctx.model.wnids[int(chosen.targets[len(titles) - 1])] if labeled else ""
    has_symmetric = last_class == FIGURE.config["classes"][-1]
    claims, summary = {}, "not comparable"
    if labeled:
        claims, summary = judge(measured, has_symmetric, ctx.shared_fc6)
    note = _note(ctx, chosen, labeled, has_symmetric)
    measured["claims"], finding = claims, _finding(measured)
    return Result(arrays, measured, summary, n=len(averaged), note=note, finding=finding)


def _finding(measured: dict) -> str:
    """How much a small shift and a rotation change features and the class."""
    shift = FIGURE.config["small"]["translation"]
    near = measured[f"relative distance, translation {shift}"]
    stable = measured["probability over the range, of the reference's"]
    return (
        f"A shift of {shift} pixels changes layer 1 by {near['layer 1'][0]:.2f} of its norm and "
        f"layer 7 by {near['layer 7'][0]:.2f}; the class keeps on average "
        f"{100 * stable['translation'][0]:.0f} % of its probability over all shifts, and "
        f"{100 * stable['rotation'][0]:.0f} % over all rotations."
    )


def _note(ctx: Context, chosen: Chosen, labeled: bool, has_symmetric: bool) -> str:
    parts = [
        f"The reference view is the central {SHARE:.0%} of the square at 224 pixels, so that every "
        "transform samples inside the picture, once; at scale 1.8 it sees the central "
        f"{SHARE / 1.8:.0%}. Distances are Euclidean, relative to the norm of the untransformed "
        f"features (the paper does not divide). Means are over {len(chosen.averaged)} images "
        "spread over the corpus, with 95 % intervals by bootstrap over them. R squared is of a "
        "line per image. "
    ]
    if has_symmetric:
        parts.append(
            f"The symmetric object has {len(chosen.symmetric)} images of its class, which are not "
            "in the means. "
        )
    if ctx.shared_fc6:
        parts.append("With a layer 6 that is blind to position, the result is partial at best. ")
    parts.append(ctx.differences_from_paper)
    if labeled:
        parts.append(
            "Shown: of each of the paper's classes (of any classes, where the corpus lacks one) "
            "the image whose class is most probable."
        )
    else:
        parts.append(
            "Too few images, or photographs without labels, which count as the class that the "
            "network predicts: no proof."
        )
    return "".join(parts)


def _tiles(squares: Tensor, family: str) -> np.ndarray:
    """The shown views of some squares, as uint8 tiles."""
    tiles = views(squares, family, FIGURE.config["shown"][family], share=SHARE).flatten(0, 1)
    return (255 * enlarge(photograph(tiles.cpu()), 112)).round().astype(np.uint8)


def grid(family: str) -> np.ndarray:
    """The values of a family of transforms."""
    first, last, step = FIGURE.config[family]
    return first + step * np.arange(round((last - first) / step) + 1)


def measure(a: dict[str, np.ndarray]) -> dict:
    """The claims as numbers [mean, low, high], over the averaged images and the symmetric object's.

    Args:
        a: The arrays of `compute`.
    """
    rows, measured, mean = a["averaged"], {}, partial(mean_interval, seed=FIGURE.seed)
    for family, value in FIGURE.config["small"].items():
        distance = {layer: a[f"{family}.{layer}"][rows] for layer in LAYERS}
        small = np.isclose(abs(grid(family)), value)
        near = {layer: d[:, small].mean(1) for layer, d in distance.items()}
        entry = {words: mean(near[layer]) for layer, words in LAYERS.items()}
        entry["layer 1 less layer 7"] = mean(near["conv1"] - near["fc7"])
        for layer, words in LAYERS.items():
            share = near[layer] / distance[layer].max(1)
            entry[f"share of the largest, {words}"] = mean(share)
        measured[f"relative distance, {family} {value}"] = entry
    for family in LINEAR:
        x = torch.from_numpy(abs(grid(family)))
        fits = {
            words: r_squared(x, torch.from_numpy(a[f"{family}.{layer}"][rows])).numpy()
            for layer, words in LAYERS.items()
        }
        name = f"R squared of distance against {family}"
        measured[name] = {words: mean(r) for words, r in fits.items()}
    reference = a["reference"][rows]
    mean_probability = {  # of the true class, over all transformed views
        family: a[f"{family}.probability"][rows][:, grid(family) != identity].mean(1)
        for family, identity in IDENTITY.items()
    }
    stability = {family: mean(p, reference) for family, p in mean_probability.items()}
    for family in LINEAR:
        stability[f"{family} less rotation"] = mean(
            mean_probability[family] - mean_probability["rotation"], reference
        )
    measured["probability over the range, of the reference's"] = stability
    measured[TURNS] = _quarter_turns(a)
    return measured


def _quarter_turns(a: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """How far the class's probability peaks at quarter turns, for both groups of images."""
    turned, reference = a["rotation.probability"], a["reference"]
    averaged, symmetric = a["averaged"], a["symmetric"]
    quarters, between = (np.isin(grid("rotation"), degrees) for degrees in (QUARTERS, BETWEEN))
    peak = turned[:, quarters].mean(1) - turned[:, between].mean(1)
    return {
        SYMMETRIC: mean_interval(peak[symmetric], reference[symmetric], seed=FIGURE.seed),
        ALL: mean_interval(peak[averaged], reference[averaged], seed=FIGURE.seed),
        MORE: difference_interval(
            peak[symmetric],
            peak[averaged],
            (reference[symmetric], reference[averaged]),
            seed=FIGURE.seed,
        ),
    }


def judge(
    m: dict, has_symmetric: bool = True, shared_fc6: bool = False
) -> tuple[dict[str, str], str]:
    """Judge the claims by their intervals.

    Args:
        m: The numbers of `measure`.
        has_symmetric: Whether a symmetric object was measured.
        shared_fc6: Whether layer 6 is blind to position; then the verdict is "partial" at best.
    """
    small = [m[f"relative distance, {f} {value}"] for f, value in FIGURE.config["small"].items()]
    fits = [m[f"R squared of distance against {family}"] for family in LINEAR]
    linear = [above(fit["layer 7"], 0.9) for fit in fits]
    linear += [higher(fit["layer 7"], fit["layer 1"]) for fit in fits]
    stable = m["probability over the range, of the reference's"]
    judgments = {
        "a small transform moves layer 1 more than layer 7": every(
            above(entry["layer 1 less layer 7"]) for entry in small
        ),
        "layer 7 changes almost linearly: R squared of 0.9, above layer 1's": every(linear),
    }
    for family in LINEAR:
        claim = f"the class is more stable under {family} than under rotation"
        judgments[claim] = above(stable[f"{family} less rotation"])
    if has_symmetric:
        claim = "a symmetric object's class peaks at quarter turns more than other objects' classes"
        judgments[claim] = every(above(m[TURNS][kind]) for kind in (SYMMETRIC, MORE))
    claims, summary = verdict(judgments)
    return claims, "partial" if shared_fc6 and summary == "reproduced" else summary


def draw(result: Result) -> dict[str, Picture]:
    grids = {family: grid(family) for family in IDENTITY}
    return {
        "fig5.jpg": draw_images(result, grids, FIGURE.config["shown"]),
        "fig5_average.jpg": draw_means(result, grids),
    }
