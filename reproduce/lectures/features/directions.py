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
from reproduce.lectures.features.direction_kinds import (
    KINDS,
    LAYERS,
    directions_and_responses,
    example_tiles,
    with_nine_images,
)
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
    too_few_images,
)
from zfnet.analysis.directions import purity, similarity
from zfnet.analysis.intervals import difference_interval, mean_interval

K = 9
FIGURE = Figure(
    id="directions",
    title="Units, random directions and principal directions",
    claim="The strongest images of a random direction are about as similar as those of a single "
    "unit: over chance, they gain more than two thirds of what a unit's images gain.",
    inputs=("model", "images"),
    seed=14,
    time_budget=10,
    config={
        "k": K,
        "layers": LAYERS,
        "images": 4000,
        "images for principal directions": 300,
        "images of samples": [128, 32],
        "directions": 256,
        "principal directions": 64,
        "shown": 3,
    },
    version=3,
    network="layers",
)
MARGIN = "units minus random directions, minus half of the gain of random directions"


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    counts = (config["images"], config["images for principal directions"])
    counts = config["images of samples"] if samples else counts
    chosen, generator = spread_indices(ctx, counts[0]), torch.Generator().manual_seed(FIGURE.seed)
    if len(chosen) < MIN_IMAGES:
        return too_few_images(len(chosen))
    axes, by_layer, codes = directions_and_responses(ctx, chosen, counts[1], generator, config)
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
    arrays, shown = example_tiles(
        ctx, chosen, tops["conv5"], parts["conv5"], cosine, axes["conv5"], config["shown"]
    )
    measured = measure(coherence, codes, labels, generator)
    claims, outcome = judge(measured)
    reason = state_reason(measured, outcome)
    note = (
        f"Means over directions, of {len(chosen)} images. The 95 % intervals are by bootstrap over "
        "directions. Directions share images, so true intervals are wider. Each kind has up to "
        f"{config['directions']} directions, and principal ones {config['principal directions']}. "
        "Directions that fewer than nine images activate are left out. Principal directions are of "
        "layer 5's activations at random positions and of layer 7's codes, with the largest "
        "coefficient positive. A claim holds if random directions gain more than two thirds of "
        "what units gain over chance. The picture shows the directions with the cosine closest to "
        "the mean of their kind."
    )
    if samples:
        outcome, reason = "not comparable", "The photographs are too few for a comparison."
        note += " The class of a sample crop is its photograph."
    measured |= {"features shown": shown, "claims": claims}
    finding = state_finding(measured)
    return Result(arrays, measured, outcome, len(chosen), note, finding=finding, reason=reason)


def measure(
    coherence: dict[str, dict[str, np.ndarray]],
    codes: torch.Tensor,
    labels: np.ndarray,
    generator: torch.Generator,
) -> dict[str, Any]:
    """The mean of each kind of directions by each measure, and their differences.

    Args:
        coherence: The coherence of each direction, by measure and kind.
        codes: Layer-7 codes of the images (N, F).
        labels: Their classes (N,).
        generator: Draws random sets of nine images.
    """
    at_random = torch.randint(len(labels), (2000, K), generator=generator)
    measured: dict[str, Any] = {name: intervals(kinds) for name, kinds in coherence.items()}
    measured["nine random images"] = {
        "share of the most common class": float(purity(labels[at_random.numpy()]).mean()),
        "cosine of layer 7": float(similarity(codes, at_random).mean()),
    }
    for name, kinds in coherence.items():
        units, random = (kinds[kind] for kind in KINDS[:2])
        limit = random + (random - by_chance(measured, name)) / 2
        measured[name][MARGIN] = difference_interval(units, limit, seed=FIGURE.seed)
    return measured


def intervals(kinds: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """The mean of each kind, and the differences of units from the others."""
    means = {kind: mean_interval(values, seed=FIGURE.seed) for kind, values in kinds.items()}
    units = kinds[KINDS[0]]
    return means | {
        f"units minus {kind}": difference_interval(units, kinds[kind], seed=FIGURE.seed)
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
            holds = not larger if gains and larger is not None else None
            results[f"random directions are about as coherent as units: {name}"] = holds
    return verdict(results)


def state_finding(m: dict) -> str:
    units, random = (m[COSINE][kind][0] for kind in KINDS[:2])
    return (
        f"The layer-7 codes of a layer-5 unit's nine strongest images have a mean cosine of "
        f"{units:.2f}, those of a random direction's {random:.2f}, and those of nine random images "
        f"{by_chance(m, COSINE):.2f}."
    )


def state_reason(m: dict, outcome: str) -> str:
    """By how much units gain more than random directions."""
    if outcome == "reproduced":
        return ""
    gains = []
    for name in (row for row in m if "units" in m[row]):
        units, random = (m[name][kind][0] - by_chance(m, name) for kind in KINDS[:2])
        gains.append(f"{units:.3f} and {random:.3f} ({name})")
    return f"The gains over chance of units and of random directions are {'; '.join(gains)}."


def draw(result: Result) -> dict[str, Any]:
    return {"directions.jpg": draw_directions(result)} if result.arrays else {}
