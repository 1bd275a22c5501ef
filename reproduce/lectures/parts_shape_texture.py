"""What does the network use? Parts shuffled, parts covered, the outline only, the texture only; and the two at odds.

Geirhos et al. 2019 found that networks trained on ImageNet decide by texture where people decide by shape; Brendel and Bethge
2019, that a bag of small patches is nearly enough. Images that the network gets right and whose outline is known are shown
with one cue left: what remains of the class's probability says what that cue was worth. Then the cues are set at odds: each
image is painted in the style of another of another class (our own style transfer), and a decision for either class is for
the shape or for the texture. The painted images are kept in the cache: made once, in about a quarter of an hour on two cores.
"""

import numpy as np
import torch

from reproduce.core.claims import above, verdict
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.objects import outlined
from reproduce.lectures.painted import bytes_of, paint, partners, resized
from reproduce.lectures.shared import FEW
from zfnet.analysis.cues import apply_mask, cover_parts, shuffle_parts, silhouettes, texture_patches
from zfnet.analysis.decisions import confidence, cue_conflict
from zfnet.analysis.intervals import mean_interval, wilson
from zfnet.plot import LINES, enlarge, mosaic, new_figure, show

PHOTOGRAPHS = ("astronaut", "cat", "coffee", "coins", "moon", "motorcycle", "retina", "rocket")
FIGURE = Figure(
    id="parts_shape_texture",
    title="Parts, shape or texture: what the network uses",
    claim="A texture without its outline keeps more of the class's probability than an outline without texture; so do shuffled "
    "parts; and where outline and texture are at odds, most decisions are for the texture.",
    inputs=("model", "images"),
    seed=32,
    time_budget=120,
    manual=True,
    config={
        "photographs": PHOTOGRAPHS, "grids": [2, 4, 8], "covered": [0.25, 0.5, 0.75], "covered grid": 7, "patch": 32,
        "side": 112,
        "painted": {"side": 112, "steps": 36, "rate": 0.15, "weight": 10.0}, "shown": 5, "pairs shown": 6,
    },
    paper={
        "texture share, % (Geirhos et al. 2019)": {
            "AlexNet": 57.1, "GoogLeNet": 68.8, "ResNet-50": 77.9, "VGG-16": 82.8, "people": 4.1,
        }
    },
    files=("objects.yaml",),
    network="chain",
)  # fmt: skip
WHOLE, OUTLINE, TEXTURE = "image", "outline only", "texture only"
NEITHER = "neither"  # what most painted images are taken for


def compute(ctx) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    x, target, masks, agreed, missing = outlined(ctx, PHOTOGRAPHS, config["side"])
    known = (
        confidence(ctx.model, x, target).label == target if len(x) else target.bool()
    )  # else there is nothing to lose
    x, target, masks, accepted = x[known], target[known], masks[known.to(masks.device)], len(x)
    if len(x) < FEW and not samples:
        note = f"Fewer than {FEW} of the {accepted} outlined images here are recognised. {missing}"
        return Result({}, {"images": len(x)}, "not run", n=len(x), note=note)
    kinds = variants(x, masks)
    found = {kind: confidence(ctx.model, images, target) for kind, images in kinds.items()}
    probability = {kind: c.probability.cpu().numpy() for kind, c in found.items()}
    style = partners(target.cpu(), torch.Generator().manual_seed(FIGURE.seed))
    painted, away = paint(ctx.model, x, style, progress=ctx.progress, **config["painted"])
    logits = confidence(ctx.model, painted, target).logits
    among = target.unique()
    free, asked = (
        cue_conflict(logits, target, target[style]),
        cue_conflict(logits, target, target[style], among),
    )
    side = config["painted"]["side"]
    coarse = confidence(ctx.model, resized(resized(x, side), x.shape[-1]), target)
    measured = {
        "images": len(x), "classes": len(among),
        "probability of the class": {kind: mean_interval(p, seed=FIGURE.seed) for kind, p in probability.items()},
        "probability kept, of the image's": {
            kind: mean_interval(p, probability[WHOLE], seed=FIGURE.seed) for kind, p in probability.items() if kind != WHOLE
        },
        "top-1, %": {kind: share(c.label == target) for kind, c in found.items()},
        "texture only less outline only, probability": difference(probability, TEXTURE, OUTLINE),
        "parts shuffled 4 x 4 less outline only, probability": difference(probability, "parts shuffled, 4 x 4", OUTLINE),
        "cue conflict": {
            "pairs": len(x), "decisions for texture, for shape": [int(asked.texture.sum()), int(asked.shape.sum())],
            "texture share, %": percent(asked.texture_share),
            "of all outputs, decisions for texture, for shape": [int(free.texture.sum()), int(free.shape.sum())],
            "of all outputs, texture share, %": percent(free.texture_share),
            "squared distance to the content's code, over its length, median": float(away.median()),
            f"control: top-1 of the unpainted images at {side} pixels, %": share(coarse.label == target),
        },
    }  # fmt: skip
    if len(agreed):
        measured["outlines against polygons drawn by eye, intersection over union"] = mean_interval(
            agreed, seed=FIGURE.seed
        )
    claims, outcome = ({}, "not comparable") if samples else judge(measured)
    picked = np.linspace(0, len(x) - 1, config["shown"]).round().astype(int)
    said = np.array([NEITHER, "shape", "texture"])[
        (asked.shape.int() + 2 * asked.texture.int()).cpu()
    ]
    pairs = np.concatenate(
        [
            np.flatnonzero(said == kind)[: config["pairs shown"] // 3]
            for kind in ("texture", "shape", NEITHER)
        ]
    )
    arrays = {f"probability.{kind}": p for kind, p in probability.items()}
    arrays |= {
        "painted.logits": logits.half().cpu().numpy(),
        "target": target.cpu().numpy(),
        "style": style.numpy(),
    }
    arrays |= {f"shown.{kind}": bytes_of(images[picked]) for kind, images in kinds.items()}
    arrays |= {
        "content": bytes_of(x[pairs]),
        "paint": bytes_of(x[style[pairs]]),
        "painted": bytes_of(painted[pairs]),
    }
    arrays["said"] = said[pairs]
    note = (
        f"Those of {accepted} images with an outline accepted by eye that the network gets right: so the image's own top-1 is "
        "100 % by choice. (They come from the 480 of which an earlier network was surest.) Texture: squares of the object, "
        f"laid out at random. Painted at {side} pixels and enlarged; decisions are among the {len(among)} classes of these "
        "images, and among all outputs. What painting leaves of the shape is not known: of the content's code at layer 4 it "
        f"is as far away as is measured. 95 % intervals: bootstrap for probabilities, Wilson's for shares. {missing}"
    )
    if samples:
        note += " The sample photographs have no classes here: the network's own predictions stand for them."
    return Result(arrays, measured | {"claims": claims}, outcome, n=len(x), note=note)


def variants(x: torch.Tensor, masks: torch.Tensor) -> dict[str, torch.Tensor]:
    """The images with one cue left, or some gone: each like x."""
    config, rng = FIGURE.config, torch.Generator().manual_seed(FIGURE.seed)
    kinds = {WHOLE: x, "object only": apply_mask(x, masks), "ground only": apply_mask(x, ~masks)}
    kinds |= {
        f"parts shuffled, {grid} x {grid}": shuffle_parts(x, grid, rng) for grid in config["grids"]
    }
    kinds |= {
        f"parts covered, {gone:.0%}": cover_parts(x, config["covered grid"], gone, rng)
        for gone in config["covered"]
    }
    return kinds | {
        OUTLINE: silhouettes(masks),
        TEXTURE: texture_patches(x, masks, config["patch"], rng),
    }


def share(right: torch.Tensor) -> list[float]:
    """The share of images that are right (N,), in per cent, with Wilson's interval."""
    hits = int(right.sum())
    return percent([hits / len(right), *wilson(hits, len(right))])


def percent(values: list[float]) -> list[float]:
    return [100 * v for v in values]


def difference(probability: dict[str, np.ndarray], one: str, other: str) -> list[float]:
    return mean_interval(probability[one] - probability[other], seed=FIGURE.seed)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """The claims, each beyond its interval."""
    texture = m["cue conflict"]["texture share, %"]
    return verdict(
        {
            "the texture alone keeps more than the outline alone": above(
                m["texture only less outline only, probability"]
            ),
            "shuffled parts keep more than the outline alone": above(
                m["parts shuffled 4 x 4 less outline only, probability"]
            ),
            "most decisions between shape and texture are for the texture": above(texture, 50),
        }
    )


def draw(result: Result):
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    kinds = [key.removeprefix("probability.") for key in a if key.startswith("probability.")]
    figure = new_figure(11.6, 8.9)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 0.82))
    axes = above.subplots()
    rows = np.stack([a[f"shown.{kind}"] for kind in kinds], 1) / 255  # (shown, kinds, H, W, 3)
    side, gap = 112, 4
    show(
        axes,
        mosaic(
            enlarge(rows.reshape(-1, *rows.shape[2:]).astype(np.float32), side), len(kinds), gap=gap
        ),
    )
    for n, kind in enumerate(kinds):
        axes.text(
            n * (side + gap) + side / 2,
            -6,
            kind.replace(", ", "\n").replace(" only", "\nonly").replace("outline", "silhouette"),
            ha="center",
            va="bottom",
            fontsize=7.5,
        )
    left, right = below.subfigures(1, 2, width_ratios=(1, 1.25))
    bars = left.subplots()
    values = np.array([m["probability of the class"][kind] for kind in kinds])
    bars.barh(
        kinds,
        values[:, 0],
        color=[LINES[1] if kind in (OUTLINE, TEXTURE) else LINES[0] for kind in kinds],
    )
    bars.errorbar(
        values[:, 0],
        range(len(kinds)),
        xerr=abs(values[:, 1:] - values[:, :1]).T,
        fmt="none",
        color="0.2",
        capsize=2,
    )
    for n, kind in enumerate(kinds):
        said = f"{values[n, 0]:.2g}; {m['top-1, %'][kind][0]:.0f} % right"
        bars.text(values[n, 2] + 0.01, n, said, va="center", fontsize=7.5)
    bars.set_yticks(range(len(kinds)), [kind.replace("outline", "silhouette") for kind in kinds])
    bars.invert_yaxis()
    bars.set(
        xlim=(0, 1.35 * values[:, 2].max()),
        xlabel="probability of the class, mean and 95 % interval",
        title=f"One cue left, {result.n} images; orange: the two that are compared",
    )
    strip = right.subplots()
    tiles = np.stack([a["content"], a["paint"], a["painted"]]) / 255  # (3, pairs, H, W, 3)
    size, pairs = 150, len(a["said"])
    show(
        strip,
        mosaic(
            enlarge(tiles.reshape(-1, *tiles.shape[2:]).astype(np.float32), size), pairs, gap=gap
        ),
    )
    for n, text in enumerate(("shape of", "in the style of", "painted")):
        strip.text(
            -8, n * (size + gap) + size / 2, text, rotation=90, ha="right", va="center", fontsize=8
        )
    for n, said in enumerate(a["said"]):
        strip.text(
            n * (size + gap) + size / 2,
            3 * (size + gap) + 4,
            f"decided:\n{said}",
            ha="center",
            va="top",
            fontsize=8,
        )
    conflict = m["cue conflict"]
    texture, shape = conflict["decisions for texture, for shape"]
    strip.set_title(
        f"Cues at odds: of {conflict['pairs']} images {texture} are decided for the texture, {shape} for the shape, "
        f"{conflict['pairs'] - texture - shape} for neither"
        + (
            "\ntexture share {:.0f} %, {:.0f} to {:.0f}".format(*conflict["texture share, %"])
            if texture + shape
            else ""
        )
    )
    return {"parts_shape_texture.jpg": figure}
