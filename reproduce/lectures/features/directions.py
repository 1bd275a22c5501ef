"""Are single units more coherent than random directions of their layer?

Szegedy et al. (2014, section 3): the images with the strongest response along a random direction
are as similar as those of a unit, so the space has the semantics, not single units. Three kinds of
directions of layers 5 and 7 are compared on the same images, at their strongest positions: units,
random orthonormal directions, and principal directions. Coherence is the share of one class among a
direction's nine strongest images. For layer 5 it is also the mean cosine of the layer-7 codes of
all pairs of these images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.features.direction_kinds import KINDS, three_kinds, with_nine_images
from reproduce.lectures.features.direction_pictures import (
    COSINE,
    SHARE,
    by_chance,
    draw_directions,
)
from reproduce.lectures.sampling import (
    MIN_IMAGES,
    image_classes,
    photograph_groups,
    spread_indices,
    subset,
    too_few_images,
    unit_patches,
)
from zfnet.analysis.directions import purity, sample_vectors, similarity
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.responses import Responses, responses
from zfnet.plot import enlarge, photograph
from zfnet.ranking import Top

LAYERS = ("conv5", "fc7")
K = 9
FIGURE = Figure(
    id="directions",
    title="Units, random directions and principal directions",
    claim="The strongest images of a random direction share a class as much as those of a single "
    "unit.",
    inputs=("model", "images"),
    seed=14,
    time_budget=10,
    config={
        "k": K,
        "layers": LAYERS,
        "images": 4000,
        "for principal ones": 300,
        "of samples": [128, 32],
        "directions": 256,
        "principal": 64,
        "shown": 3,
    },
    version=2,
    network="layers",
)
MARGIN = "units less random directions, less half of what these gain"


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    counts = config["of samples"] if samples else (config["images"], config["for principal ones"])
    chosen, generator = spread_indices(ctx, counts[0]), torch.Generator().manual_seed(FIGURE.seed)
    if len(chosen) < MIN_IMAGES:
        return too_few_images(len(chosen))
    axes, by_layer, codes = directions_and_responses(ctx, chosen, counts[1], generator)
    labels, groups = image_classes(ctx, chosen), photograph_groups(ctx, chosen)
    tops = {layer: by_layer[layer].extremes(K, groups=groups) for layer in LAYERS}
    parts = {layer: with_nine_images(tops[layer], [*map(len, axes[layer])]) for layer in LAYERS}
    coherence: dict[str, dict[str, np.ndarray]] = {
        SHARE.format(layer): {
            kind: purity(labels[tops[layer].index[rows].numpy()])
            for kind, rows in parts[layer].items()
        }
        for layer in LAYERS
    }
    cosine = similarity(codes, tops["conv5"].index).numpy()
    coherence[COSINE] = {kind: cosine[rows] for kind, rows in parts["conv5"].items()}
    arrays, shown = example_tiles(ctx, chosen, tops["conv5"], parts["conv5"], cosine, axes["conv5"])
    at_random = torch.randint(len(chosen), (2000, K), generator=generator)
    measured = summarize(coherence) | {
        "features shown": shown,
        "nine images at random": {
            "one class, share": float(purity(labels[at_random.numpy()]).mean()),
            "cosine of layer 7": float(similarity(codes, at_random).mean()),
        },
    }
    for name, by_kind in coherence.items():
        one, other = (by_kind[kind] for kind in KINDS[:2])
        reached = other + (other - by_chance(measured, name)) / 2
        measured[name][MARGIN] = difference_interval(one, reached, seed=FIGURE.seed)
    claims, outcome = judge(measured)
    note = (
        f"Means over directions, of {len(chosen)} images. The 95 % intervals are by bootstrap over "
        "directions. Directions share images, so true intervals are wider. Each kind has up to "
        f"{config['directions']} directions, the principal ones {config['principal']}; directions "
        "with fewer than nine images are left out. Principal directions are of layer 5's "
        "activations at random positions and of layer 7's codes, with the largest coefficient "
        "positive. A claim holds if the gain of units over random directions is less than half of "
        "the gain of random directions over chance. The picture shows the directions whose cosine "
        "is closest to the mean of their kind."
    )
    if samples:
        outcome = "not comparable"
        note += " The class of a sample crop is its photograph."
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def directions_and_responses(
    ctx: Context, chosen: np.ndarray, count: int, generator: torch.Generator
) -> tuple[dict[str, list[torch.Tensor]], dict[str, Responses], torch.Tensor]:
    """The directions of both layers, and the responses of images along them.

    Args:
        ctx: The network and the corpus.
        chosen: The images.
        count: Number of images for the principal directions of layer 5.
        generator: Random numbers.

    Returns:
        The three kinds of directions by layer, the responses by layer, and the layer-7 codes of the
        images (N, units).
    """
    counts = FIGURE.config["directions"], FIGURE.config["principal"]
    images = subset(ctx, spread_indices(ctx, count))
    vectors = sample_vectors(ctx.model, images, "conv5", generator, progress=ctx.progress)
    axes = {"conv5": three_kinds(vectors, generator, *counts)}
    by_layer = responses(
        ctx.model,
        subset(ctx, chosen),
        LAYERS,
        directions={"conv5": torch.cat(axes["conv5"]).to(ctx.device)},
        progress=ctx.progress,
    )
    codes = by_layer["fc7"].maximum
    axes["fc7"] = three_kinds(codes[:: max(1, len(codes) // 1000)], generator, *counts)
    along = codes @ torch.cat(axes["fc7"]).T
    # Directions of layer 7 have no position.
    by_layer["fc7"] = Responses(along, along, torch.zeros(*along.shape, 2, dtype=torch.int64))
    return axes, by_layer, codes


def example_tiles(
    ctx: Context,
    chosen: np.ndarray,
    top: Top,
    parts: dict[str, torch.Tensor],
    cosine: np.ndarray,
    axes: list[torch.Tensor],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The patches of typical directions of layer 5: those with the mean cosine of their kind.

    Args:
        ctx: The network and the corpus.
        chosen: The images that are measured.
        top: Their strongest responses.
        parts: The directions of each kind, as rows of `top`.
        cosine: The mean cosine of each direction's nine images (directions,).
        axes: The directions of each kind.

    Returns:
        (directions, 9, 76, 76, 3) uint8 by kind, and the names of the units among them.
    """
    arrays: dict[str, np.ndarray] = {}
    for kind, rows in parts.items():
        difference = np.abs(cosine[rows] - cosine[rows].mean())
        drawn = rows[np.argsort(difference, kind="stable")[: FIGURE.config["shown"]].copy()]
        index = chosen[top.index[drawn].flatten().numpy()]
        patches = unit_patches(ctx, "conv5", index, top.position[drawn].flatten(0, 1))
        pixels = (255 * enlarge(photograph(patches), 76)).astype(np.uint8)
        arrays[kind] = pixels.reshape(-1, K, 76, 76, 3)
        if kind == KINDS[0]:
            channels = axes[0][drawn].argmax(1).tolist()
            arrays["units.channels"] = np.array(channels)
    return arrays, [f"conv5/{channel}" for channel in arrays["units.channels"]]


def summarize(coherence: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    return {name: intervals(kinds) for name, kinds in coherence.items()}


def intervals(kinds: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """The mean of each kind, and the differences of units from the others."""
    means = {kind: mean_interval(values, seed=FIGURE.seed) for kind, values in kinds.items()}
    units = kinds[KINDS[0]]
    return means | {
        f"units less {kind}": difference_interval(units, kinds[kind], seed=FIGURE.seed)
        for kind in KINDS[1:]
    }


def judge(m: dict) -> tuple[dict[str, str], str]:
    """The claim for each measure, by the interval of MARGIN.

    A claim is undecided if that interval contains 0, or if random directions may gain nothing.
    """
    results = {}
    for name, row in m.items():
        if "units" in row:
            larger, gains = above(row[MARGIN]), above(row[KINDS[1]], by_chance(m, name))
            results[name] = not larger if gains and larger is not None else None
    return verdict(results)


def draw(result: Result) -> dict[str, Any]:
    return {"directions.jpg": draw_directions(result)} if result.arrays else {}
