"""Parts, shape or texture: which cue does the network use?

Geirhos et al. (2019) found that networks trained on ImageNet decide by texture where people decide
by shape; Brendel and Bethge (2019), that a bag of small patches is nearly enough. Correctly
classified images with a known outline are reduced to one cue: parts shuffled, parts covered, only
the outline, or only the texture. The remaining probability of the class measures that cue. Then
cues conflict: each image is painted in the style of another class, and a decision for either class
is one for shape or for texture. Painting takes about a quarter of an hour on two cores, once.
"""

from __future__ import annotations

from typing import Any

from reproduce.core.claims import above, verdict
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.lectures.invariance.cue_conflict import paint_conflict
from reproduce.lectures.invariance.cue_numbers import (
    KEPT,
    PARTS,
    PARTS_GAIN,
    TEXTURE_GAIN,
    TEXTURE_SHARE,
    conflict_numbers,
    cue_numbers,
    example_arrays,
)
from reproduce.lectures.invariance.cue_pictures import (
    draw_conflict,
    draw_probabilities,
    draw_variants,
)
from reproduce.lectures.invariance.single_cues import OUTLINE, TEXTURE, variants
from reproduce.lectures.outlines import outlined_images
from reproduce.lectures.sampling import MIN_IMAGES
from zfnet.analysis.decisions import confidence
from zfnet.analysis.intervals import mean_interval

PHOTOGRAPHS = ("astronaut", "cat", "coffee", "coins", "moon", "motorcycle", "retina", "rocket")
FIGURE = Figure(
    id="parts_shape_texture",
    title="Parts, shape or texture: which cue the network uses",
    claim="A texture without its outline keeps more of the class's probability than an outline "
    "without texture, and so do shuffled parts. Where outline and texture conflict, most decisions "
    "are for the texture.",
    inputs=("model", "images"),
    seed=32,
    time_budget=120,
    manual=True,
    config={
        "photographs": PHOTOGRAPHS,
        "grids": [2, 4, 8],
        "covered": [0.25, 0.5, 0.75],
        "covered grid": 7,
        "patch": 32,
        "side": 112,
        "painted": {"side": 112, "steps": 36, "rate": 0.15, "weight": 10.0},
        "shown": 5,
        "pairs shown": 6,
    },
    paper={
        "texture share, % (Geirhos et al. 2019)": {
            "AlexNet": 57.1,
            "GoogLeNet": 68.8,
            "ResNet-50": 77.9,
            "VGG-16": 82.8,
            "people": 4.1,
        }
    },
    files=("../objects.yaml",),
    version=3,
    network="layers",
)


def compute(ctx: Context) -> Result:
    config, samples = FIGURE.config, ctx.corpus == SAMPLES
    outlined = outlined_images(ctx, PHOTOGRAPHS, config["side"])
    x, target, masks = outlined.x, outlined.target, outlined.masks
    accepted = len(x)
    # A wrong image has no probability to lose.
    correct = confidence(ctx.model, x, target).label == target if len(x) else target.bool()
    x, target, masks = x[correct], target[correct], masks[correct.to(masks.device)]
    if len(x) < MIN_IMAGES and not samples:
        note = f"Fewer than {MIN_IMAGES} of {accepted} outlined images are predicted correctly. "
        note += outlined.missing
        return Result({}, {"images": len(x)}, "not run", n=len(x), note=note)
    kinds = variants(x, masks, config, FIGURE.seed)
    cues, probability = cue_numbers(ctx, kinds, target, FIGURE.seed)
    conflict = paint_conflict(ctx, x, target, FIGURE.seed, config["painted"])
    measured = {"images": len(x), "classes": len(target.unique())} | cues
    measured["cue conflict"] = conflict_numbers(ctx, x, target, conflict, config["painted"]["side"])
    if len(outlined.agreement):
        measured["outlines against polygons drawn by eye, intersection over union"] = mean_interval(
            outlined.agreement, seed=FIGURE.seed
        )
    claims, outcome = ({}, "not comparable") if samples else judge(measured)
    finding, reason = state_finding(measured), state_reason(measured, outcome)
    arrays = {f"probability.{kind}": p for kind, p in probability.items()}
    arrays |= example_arrays(x, target, kinds, conflict, config)
    note = (
        f"Of {accepted} images with an outline accepted by eye, only correctly classified ones are "
        "used, so the top-1 accuracy of the images is 100 % by selection. They come from the 480 "
        "images on which an earlier network was most confident. A texture consists of squares of "
        f"the object in random order. Images are painted at {config['painted']['side']} pixels and "
        f"enlarged. Decisions are among the {measured['classes']} classes of these images, and "
        "among all outputs. Painting may also damage the shape, so the distance to the content's "
        "layer-4 code is measured. The 95 % intervals are by bootstrap for probabilities, and "
        f"Wilson's for shares. {outlined.missing}"
    )
    if samples:
        note += " The sample photographs have no labels, so predictions replace them."
    measured |= {"claims": claims}
    return Result(arrays, measured, outcome, len(x), note, finding=finding, reason=reason)


def judge(m: dict) -> tuple[dict[str, str], str]:
    """Each claim, beyond its interval."""
    return verdict(
        {
            "the texture alone keeps more than the outline alone": above(m[TEXTURE_GAIN]),
            "shuffled parts keep more than the outline alone": above(m[PARTS_GAIN]),
            "most decisions between shape and texture are for the texture": above(
                m["cue conflict"][TEXTURE_SHARE], 50
            ),
        }
    )


def state_finding(m: dict) -> str:
    kept = {kind: 100 * row[0] for kind, row in m[KEPT].items()}
    return (
        f"A texture without its outline keeps {kept[TEXTURE]:.1f} % of the class's probability, a "
        f"silhouette {kept[OUTLINE]:.1f} %, and an image of 16 shuffled parts {kept[PARTS]:.0f} % "
        f"(means over {m['images']} images)."
    )


def state_reason(m: dict, outcome: str) -> str:
    """The numbers of the three claims, with their intervals."""
    if outcome == "reproduced":
        return ""
    if outcome == "not comparable" and m["images"] < MIN_IMAGES:
        return f"{m['images']} photographs are too few to judge a claim."
    texture = m["cue conflict"][TEXTURE_SHARE]
    conflict = "no decision is for the shape or the texture"
    if texture:
        conflict = "the texture has {:.0f} to {:.0f} % of the decisions".format(*texture[1:])
    return (
        "The texture keeps {:+.3f} to {:+.3f} more probability than the outline, shuffled parts "
        "keep {:+.3f} to {:+.3f} more, and {}."
    ).format(*m[TEXTURE_GAIN][1:], *m[PARTS_GAIN][1:], conflict)


def draw(result: Result) -> dict[str, Any]:
    if not result.arrays:
        return {}
    a, m = result.arrays, result.measured
    kinds = [key.removeprefix("probability.") for key in a if key.startswith("probability.")]
    return {
        "parts_shape_texture.jpg": draw_variants(a, kinds, result.finding),
        "probabilities.png": draw_probabilities(m, kinds, result.finding),
        "conflict.jpg": draw_conflict(a, m["cue conflict"]),
    }
