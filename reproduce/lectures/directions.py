"""Are single units any more coherent than random directions of their layer?

What Szegedy et al. (2014, section 3) say: the images that a random direction of a layer answers most look as alike as those
of a unit, so that there is nothing special about units: it is the space that holds the meaning. Here as numbers, of three
kinds of directions of layers 5 and 7, all at their strongest position, over the same images: the units themselves, random
orthonormal directions, and the principal ones. Coherence is the share of one class among a direction's nine strongest
images; for layer 5 also how alike the nine are to layer 7 (mean cosine of the codes of all pairs).
"""

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.shared import FEW, classes, groups, patches, spread, subset
from zfnet.analysis.directions import purity, random_directions, sample_vectors, similarity
from zfnet.analysis.embedding import pca
from zfnet.analysis.intervals import difference_interval, mean_interval
from zfnet.analysis.responses import Responses, responses
from zfnet.plot import LINES, enlarge, mosaic, new_figure, photograph, show

LAYERS = ("conv5", "fc7")
K = 9
FIGURE = Figure(
    id="directions",
    title="Units, random directions and principal directions",
    claim="The images that excite a random direction most share a class as much as those of a single unit.",
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


def compute(ctx) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    many, few = (
        config["of samples"] if samples else (config["images"], config["for principal ones"])
    )
    chosen, generator = spread(ctx, many), torch.Generator().manual_seed(FIGURE.seed)
    if len(chosen) < FEW:
        return Result(
            {}, {}, "not run", n=len(chosen), note=f"The corpus has fewer than {FEW} images."
        )
    vectors = sample_vectors(
        ctx.model, subset(ctx, spread(ctx, few)), "conv5", generator, progress=ctx.progress
    )
    axes = {"conv5": three_kinds(vectors, generator)}
    every = torch.cat(axes["conv5"]).to(ctx.device)
    found = responses(
        ctx.model, subset(ctx, chosen), LAYERS, directions={"conv5": every}, progress=ctx.progress
    )
    codes = found["fc7"].maximum  # (N, units)
    axes["fc7"] = three_kinds(codes[:: max(1, len(codes) // 1000)], generator)
    along = codes @ torch.cat(axes["fc7"]).T
    # A vector's direction has no place in a map.
    found["fc7"] = Responses(along, along, torch.zeros(*along.shape, 2, dtype=torch.int64))
    labels, measured, arrays = classes(ctx, chosen), {}, {}
    coherence: dict[str, dict[str, np.ndarray]] = {}
    for layer in LAYERS:
        top = found[layer].extremes(K, groups=groups(ctx, chosen))
        parts = torch.arange(len(top.index)).split([len(part) for part in axes[layer]])
        parts = [
            part[(top.value[part] > 0).all(1)] for part in parts
        ]  # those that nine images excite
        name = f"{layer}, one class among nine images, share"
        coherence[name] = {
            kind: purity(labels[top.index[part].numpy()])
            for kind, part in zip(KINDS, parts, strict=True)
        }
        if layer == "conv5":
            alike = similarity(codes, top.index).numpy()
            coherence["conv5, cosine of the nine images' layer 7"] = {
                k: alike[p] for k, p in zip(KINDS, parts, strict=True)
            }
            for kind, part in zip(KINDS, parts, strict=True):
                order = (
                    torch.randperm(len(part), generator=generator)
                    if kind != KINDS[2]
                    else torch.arange(len(part))
                )
                drawn = part[
                    order[: config["shown"]]
                ]  # the first principal ones, of the others some at random
                index, position = (
                    chosen[top.index[drawn].flatten().numpy()],
                    top.position[drawn].flatten(0, 1),
                )
                seen = patches(ctx, layer, index, position)
                arrays[kind] = (
                    (255 * enlarge(photograph(seen), 76)).astype(np.uint8).reshape(-1, K, 76, 76, 3)
                )
    for name, kinds in coherence.items():
        measured[name] = {
            kind: mean_interval(values, seed=FIGURE.seed) for kind, values in kinds.items()
        }
        measured[name] |= {
            f"units less {kind}": difference_interval(kinds["units"], kinds[kind], seed=FIGURE.seed)
            for kind in KINDS[1:]
        }
    at_random = torch.randint(len(chosen), (2000, K), generator=generator)
    measured["nine images at random"] = {
        "one class, share": float(purity(labels[at_random.numpy()]).mean()),
        "cosine of layer 7": float(similarity(codes, at_random).mean()),
    }
    for name, found in coherence.items():
        one, other = (found[kind] for kind in KINDS[:2])
        reached = other + (other - by_chance(measured, name)) / 2
        measured[name][MARGIN] = difference_interval(one, reached, seed=FIGURE.seed)
    claims, outcome = judge(measured)
    note = f"Means over directions, of {len(chosen)} images. The 95 % intervals are by bootstrap over directions as if they were "
    note += "independent: they share images, and true intervals are wider. Of each kind up to "
    note += f"{config['directions']}, of principal ones {config['principal']}, less those that fewer than nine images excite. "
    note += "Principal directions are of layer 5's activations at random positions, and of layer 7's codes, each with its "
    note += "largest coefficient positive. A claim holds if units gain less on random directions than half of what these gain "
    note += "on chance."
    if samples:
        outcome, note = (
            "not comparable",
            note + " The class of a crop is its photograph: the pictures only.",
        )
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(chosen), note=note)


def three_kinds(vectors: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """Units (some at random, as rows of the identity), random directions, and the principal ones of vectors (N, C)."""
    units, count = vectors.shape[1], min(FIGURE.config["directions"], vectors.shape[1])
    some = torch.randperm(units, generator=generator)[:count].sort().values
    principal = min(FIGURE.config["principal"], len(vectors) - 1, units)
    return [
        torch.eye(units)[some],
        random_directions(units, count, generator),
        pca(vectors, principal).axes,
    ]


def by_chance(measured: dict, name: str) -> float:
    """What nine images at random have of a measure."""
    return measured["nine images at random"][
        "one class, share" if "class" in name else "cosine of layer 7"
    ]


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Szegedy's claim holds of a measure if units gain less on random directions than half of what these gain on chance.

    By the interval of the difference: undecided where that reaches beyond 0, or where random directions may gain nothing.
    """
    held = {}
    for name, found in m.items():
        if "units" in found:
            more, gains = above(found[MARGIN]), above(found[KINDS[1]], by_chance(m, name))
            held[name] = not more if gains and more is not None else None
    return verdict(held)


def draw(result: Result):
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    figure = new_figure(12.6, 7.4)
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    for row, kind in zip(left.subplots(3, 1), KINDS, strict=True):
        blocks = np.stack([mosaic(nine / 255, 3, gap=1) for nine in a[kind]])
        which = f"the first {len(blocks)}" if kind == KINDS[2] else f"{len(blocks)} at random"
        show(row, mosaic(blocks, len(blocks), gap=12), f"{kind} of layer 5, {which}")
    left.suptitle("What each sees in the nine images that excite it most")
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
        panel.axvline(chance, color="0.6", linestyle=":", label="nine at random")
        panel.set_yticks([0, -1, -2], KINDS)
        panel.set(
            title=name.replace("conv5", "layer 5").replace("fc7", "layer 7"), ylim=(-2.6, 0.6)
        )
    right.axes[0].legend(frameon=False, fontsize=7.5)
    right.suptitle(f"Coherence, mean over directions with 95 % interval ({result.n} images)")
    return {"directions.jpg": figure}
