"""What Figure 5 measures over images, and its claims."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from reproduce.core.claims import above, every, higher
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.invariance import IDENTITY, r_squared

LAYERS = {"conv1": "layer 1", "fc7": "layer 7"}
LINEAR = ("translation", "scale")  # the families with quasi-linear distances
LINEAR_R2 = 0.9  # the least R squared that counts as quasi-linear
UNITS = {"translation": " pixels", "scale": "", "rotation": " degrees"}
QUARTERS, BETWEEN = (90, 180, 270), (40, 50, 130, 140, 220, 230, 310, 320)  # degrees
STABILITY = "mean probability over all transforms, relative to the untransformed image"
TURNS = "probability at quarter turns minus that between them, relative to the untransformed image"
SYMMETRIC, ALL, MORE = "symmetric object", "all images", "symmetric object minus all images"
Arrays = dict[str, np.ndarray]


def transform_grids(config: dict) -> Arrays:
    """The values of each family of transforms, from its first, last and step in `config`."""
    grids = {}
    for family in IDENTITY:
        first, last, step = config[family]
        grids[family] = first + step * np.arange(round((last - first) / step) + 1)
    return grids


def small_transform(config: dict, family: str) -> str:
    """The name of the distances at a family's small transform."""
    return f"relative distance, {family} by {config['small'][family]}{UNITS[family]}"


def measure(a: Arrays, config: dict, seed: int) -> dict:
    """The claims as numbers [mean, low, high], over the averaged images and the symmetric object's.

    Args:
        a: The arrays of `compute`.
        config: The settings of the figure.
        seed: Seed of the intervals.
    """
    grids = transform_grids(config)
    rows, measured, mean = a["averaged"], {}, partial(mean_interval, seed=seed)
    for family, value in config["small"].items():
        distance = {layer: a[f"{family}.{layer}"][rows] for layer in LAYERS}
        small = np.isclose(abs(grids[family]), value)
        near = {layer: d[:, small].mean(1) for layer, d in distance.items()}
        entry = {words: mean(near[layer]) for layer, words in LAYERS.items()}
        entry["layer 1 minus layer 7"] = mean(near["conv1"] - near["fc7"])
        for layer, words in LAYERS.items():
            share = near[layer] / distance[layer].max(1)
            entry[f"share of the largest distance, {words}"] = mean(share)
        measured[small_transform(config, family)] = entry
    for family in LINEAR:
        x = torch.from_numpy(abs(grids[family]))
        fits = {
            words: r_squared(x, torch.from_numpy(a[f"{family}.{layer}"][rows])).numpy()
            for layer, words in LAYERS.items()
        }
        measured[f"R squared of distance against {family}"] = {
            words: mean(r) for words, r in fits.items()
        }
    reference = a["reference"][rows]
    mean_probability = {  # of the true class, over all transformed views
        family: a[f"{family}.probability"][rows][:, grids[family] != identity].mean(1)
        for family, identity in IDENTITY.items()
    }
    stability = {family: mean(p, reference) for family, p in mean_probability.items()}
    for family in LINEAR:
        stability[f"{family} minus rotation"] = mean(
            mean_probability[family] - mean_probability["rotation"], reference
        )
    measured[STABILITY] = stability
    measured[TURNS] = _quarter_turns(a, grids, seed)
    return measured


def _quarter_turns(a: Arrays, grids: Arrays, seed: int) -> dict[str, list[float]]:
    """How far the class's probability peaks at quarter turns, for both groups of images."""
    turned, reference = a["rotation.probability"], a["reference"]
    averaged, symmetric = a["averaged"], a["symmetric"]
    quarters, between = (np.isin(grids["rotation"], degrees) for degrees in (QUARTERS, BETWEEN))
    peak = turned[:, quarters].mean(1) - turned[:, between].mean(1)
    return {
        SYMMETRIC: mean_interval(peak[symmetric], reference[symmetric], seed=seed),
        ALL: mean_interval(peak[averaged], reference[averaged], seed=seed),
        MORE: difference_interval(
            peak[symmetric],
            peak[averaged],
            (reference[symmetric], reference[averaged]),
            seed=seed,
        ),
    }


def judge(
    m: dict, config: dict, has_symmetric: bool = True
) -> tuple[dict[str, bool | None], dict[str, str]]:
    """Judge the claims by their intervals.

    Args:
        m: The numbers of `measure`.
        config: The settings of the figure.
        has_symmetric: Whether a symmetric object was measured.

    Returns:
        The judgments, and for each claim what was measured.
    """
    small = {family: m[small_transform(config, family)] for family in config["small"]}
    least = min(small, key=lambda family: small[family]["layer 1 minus layer 7"][0])
    fits = {family: m[f"R squared of distance against {family}"] for family in LINEAR}
    linear = [above(fit["layer 7"], LINEAR_R2) for fit in fits.values()]
    linear += [higher(fit["layer 7"], fit["layer 1"]) for fit in fits.values()]
    moved = "a small transform moves layer 1 more than layer 7"
    straight = f"layer 7 changes almost linearly: R squared of {LINEAR_R2}, above layer 1's"
    judgments: dict[str, bool | None] = {
        moved: every(above(of["layer 1 minus layer 7"]) for of in small.values()),
        straight: every(linear),
    }
    evidence = {
        moved: "a {} of {}{} moves layer 1 by {:.2f} and layer 7 by {:.2f}".format(
            least, config["small"][least], UNITS[least],
            *(small[least][layer][0] for layer in LAYERS.values()),
        ),
        straight: "a line fits layer 7's distance with an R squared of "
        + " and ".join(f"{fit['layer 7'][0]:.2f} for {name}" for name, fit in fits.items())
        + f" (layer 1: {', '.join(format(fit['layer 1'][0], '.2f') for fit in fits.values())})",
    }  # fmt: skip
    for family in LINEAR:
        claim, gain = (
            f"the class is more stable under {family} than under rotation",
            m[STABILITY][f"{family} minus rotation"],
        )
        judgments[claim] = above(gain)
        evidence[claim] = f"the class keeps {100 * gain[0]:+.0f} points of its probability under "
        evidence[claim] += f"{family} compared with rotation"
    if has_symmetric:
        claim = "a symmetric object's class peaks at quarter turns more than other objects' classes"
        judgments[claim] = every(above(m[TURNS][kind]) for kind in (SYMMETRIC, MORE))
        evidence[claim] = (
            f"at quarter turns the symmetric object's probability is {m[TURNS][SYMMETRIC][0]:+.2f} "
            f"above that between them, and {m[TURNS][MORE][0]:+.2f} compared with other objects"
        )
    return judgments, evidence


def limit_verdict(summary: str, reason: str, shared_fc6: bool) -> tuple[str, str]:
    """The verdict and its reason: "partial" at best if layer 6 is blind to position."""
    if shared_fc6 and summary == "reproduced":
        return "partial", "Layer 6 sees only the mean of each map, and no positions."
    return summary, reason


def summarize(measured: dict, config: dict) -> str:
    """How much a small shift and a rotation change features and the class."""
    near, stable = measured[small_transform(config, "translation")], measured[STABILITY]
    return (
        f"A shift of {config['small']['translation']} pixels changes layer 1 by "
        f"{near['layer 1'][0]:.2f} of its norm and layer 7 by {near['layer 7'][0]:.2f}; the class "
        f"keeps on average {100 * stable['translation'][0]:.0f} % of its probability over all "
        f"shifts, and {100 * stable['rotation'][0]:.0f} % over all rotations."
    )
