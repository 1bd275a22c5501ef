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
from reproduce.lectures.sampling import (
    MIN_IMAGES,
    image_classes,
    photograph_groups,
    spread_indices,
    subset,
    unit_patches,
)
from zfnet.analysis.directions import purity, random_directions, sample_vectors, similarity
from zfnet.analysis.embedding import pca
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.responses import Responses, responses
from zfnet.plot import LINES, enlarge, mosaic, new_figure, photograph, show
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
        "shown": 4,
    },
    network="chain",
)
KINDS = ("units", "random directions", "principal directions")
MARGIN = "units less random directions, less half of what these gain"


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    count, principal_count = (
        config["of samples"] if samples else (config["images"], config["for principal ones"])
    )
    chosen, generator = spread_indices(ctx, count), torch.Generator().manual_seed(FIGURE.seed)
    if len(chosen) < MIN_IMAGES:
        return Result(
            {}, {}, "not run", n=len(chosen), note=f"The corpus has fewer than {MIN_IMAGES} images."
        )
    vectors = sample_vectors(
        ctx.model,
        subset(ctx, spread_indices(ctx, principal_count)),
        "conv5",
        generator,
        progress=ctx.progress,
    )
    axes = {"conv5": three_kinds(vectors, generator)}
    every = torch.cat(axes["conv5"]).to(ctx.device)
    by_layer = responses(
        ctx.model, subset(ctx, chosen), LAYERS, directions={"conv5": every}, progress=ctx.progress
    )
    codes = by_layer["fc7"].maximum  # (N, units)
    axes["fc7"] = three_kinds(codes[:: max(1, len(codes) // 1000)], generator)
    along = codes @ torch.cat(axes["fc7"]).T
    # Directions of layer 7 have no position.
    by_layer["fc7"] = Responses(along, along, torch.zeros(*along.shape, 2, dtype=torch.int64))
    labels, arrays = image_classes(ctx, chosen), {}
    coherence: dict[str, dict[str, np.ndarray]] = {}
    for layer in LAYERS:
        top = by_layer[layer].extremes(K, groups=photograph_groups(ctx, chosen))
        parts = with_nine_images(top, [len(part) for part in axes[layer]])
        name = f"{layer}, one class among nine images, share"
        coherence[name] = {kind: purity(labels[top.index[p].numpy()]) for kind, p in parts.items()}
        if layer == "conv5":
            cosine = similarity(codes, top.index).numpy()
            name = "conv5, cosine of the nine images' layer 7"
            coherence[name] = {kind: cosine[part] for kind, part in parts.items()}
            arrays = example_tiles(ctx, chosen, top, parts, generator)
    measured: dict[str, Any] = {name: intervals(kinds) for name, kinds in coherence.items()}
    at_random = torch.randint(len(chosen), (2000, K), generator=generator)
    measured["nine images at random"] = {
        "one class, share": float(purity(labels[at_random.numpy()]).mean()),
        "cosine of layer 7": float(similarity(codes, at_random).mean()),
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
        "the gain of random directions over chance."
    )
    if samples:
        outcome = "not comparable"
        note += " The class of a sample crop is its photograph."
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def with_nine_images(top: Top, sizes: list[int]) -> dict[str, torch.Tensor]:
    """The directions of each kind that nine images activate, as rows of `top`."""
    parts = torch.arange(len(top.index)).split(sizes)
    return {
        kind: part[(top.value[part] > 0).all(1)] for kind, part in zip(KINDS, parts, strict=True)
    }


def example_tiles(
    ctx: Context,
    chosen: np.ndarray,
    top: Top,
    parts: dict[str, torch.Tensor],
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """The patches of some directions of layer 5: the first principal ones, random other ones.

    Args:
        ctx: The network and the corpus.
        chosen: The images that are measured.
        top: Their strongest responses.
        parts: The directions of each kind.
        generator: Chooses the directions that are not principal.

    Returns:
        (directions, 9, 76, 76, 3) uint8 by kind.
    """
    arrays = {}
    for kind, part in parts.items():
        if kind == KINDS[2]:
            order = torch.arange(len(part))
        else:
            order = torch.randperm(len(part), generator=generator)
        drawn = part[order[: FIGURE.config["shown"]]]
        index = chosen[top.index[drawn].flatten().numpy()]
        tiles = unit_patches(ctx, "conv5", index, top.position[drawn].flatten(0, 1))
        pixels = (255 * enlarge(photograph(tiles), 76)).astype(np.uint8)
        arrays[kind] = pixels.reshape(-1, K, 76, 76, 3)
    return arrays


def intervals(kinds: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """The mean of each kind, and the differences of units from the others."""
    means = {kind: mean_interval(values, seed=FIGURE.seed) for kind, values in kinds.items()}
    units = kinds[KINDS[0]]
    return means | {
        f"units less {kind}": difference_interval(units, kinds[kind], seed=FIGURE.seed)
        for kind in KINDS[1:]
    }


def three_kinds(vectors: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """The directions that are compared.

    Args:
        vectors: Activations (N, C).
        generator: Chooses the units and the random directions.

    Returns:
        Units (rows of the identity), random directions, and principal directions of the vectors.
    """
    units, count = vectors.shape[1], min(FIGURE.config["directions"], vectors.shape[1])
    chosen = torch.randperm(units, generator=generator)[:count].sort().values
    principal = min(FIGURE.config["principal"], len(vectors) - 1, units)
    return [
        torch.eye(units)[chosen],
        random_directions(units, count, generator),
        pca(vectors, principal).axes,
    ]


def by_chance(measured: dict, name: str) -> float:
    """The value of a measure for nine random images."""
    return measured["nine images at random"][
        "one class, share" if "class" in name else "cosine of layer 7"
    ]


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
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    figure = new_figure(12.6, 7.4)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.7, 1)).flat
    for row, kind in zip(left.subplots(3, 1), KINDS, strict=True):
        blocks = np.stack([mosaic(nine / 255, 3, gap=1) for nine in a[kind]])
        which = f"the first {len(blocks)}" if kind == KINDS[2] else f"{len(blocks)} at random"
        show(row, mosaic(blocks, len(blocks), gap=12), f"{kind} of layer 5, {which}")
    left.suptitle("Receptive fields in the nine strongest images")
    names = [name for name in m if "units" in m[name]]
    for panel, name in zip(right.subplots(len(names), 1), names, strict=True):
        chance = by_chance(m, name)
        for place, kind in enumerate(KINDS):
            mean, low, high = m[name][kind]
            panel.errorbar(
                mean,
                -place,
                xerr=[[mean - low], [high - mean]],
                fmt="o",
                color=LINES[place],
                capsize=3,
            )
        panel.axvline(chance, color="0.6", linestyle=":", label="nine random images")
        panel.set_yticks([0, -1, -2], KINDS)
        panel.set(
            title=name.replace("conv5", "layer 5").replace("fc7", "layer 7"), ylim=(-2.6, 0.6)
        )
    right.axes[0].legend(frameon=False, fontsize=7.5)
    right.suptitle(f"Coherence: mean over directions, 95 % interval ({result.n} images)")
    return {"directions.jpg": figure}
