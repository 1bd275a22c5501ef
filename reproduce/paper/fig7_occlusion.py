"""Figure 7: occluding parts of the image with a gray square.

The paper's claims: when the square covers the object, the probability of the true class drops, so
the network locates the object rather than its surroundings. When it covers what the strongest
layer-5 map's projection shows, that map drops, which validates the projections. The strongest
feature need not be the class's own part: in the Afghan hound's picture it picks out the faces of
the people, to which the classifier is not sensitive.

Columns: (a) image; (c) its strongest layer-5 map projected to pixels, here (black frame) and in
other images; (b) total of that map; (d) probability of the class; (e) most probable class. The
third row shows a hound beside people that the network recognizes; fig7_boxes.yaml lists the
candidates.
"""

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure as Picture
from torch import Tensor

import zfnet
from reproduce.core.annotations import (
    covered_energy,
    covering_positions,
    find_annotated,
    position_groups,
)
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.paper.boxed_images import (
    BOXES,
    MIN_ELSEWHERE,
    MIN_POSITIONS,
    SIZE,
    STRIDE,
    BoxedImage,
    box_arrays,
    choose_images,
    measurable_kinds,
    row_title,
)
from reproduce.paper.fig7_claims import HIDDEN, LOGIT, MAP, PROBABILITY, SHOWN, judge, summarize
from reproduce.paper.fig7_pictures import draw_rows
from zfnet.occlusion import Occlusion
from zfnet.projection import patches_inside

FIGURE = Figure(
    id="fig7",
    title="Sensitivity of a layer-5 feature and of the classifier to occlusion",
    claim="Covering the object lowers the probability of its class. Covering what the strongest "
    "layer-5 map's projection shows lowers that map. The map need not show the object: next to a "
    "hound it drops more when people's faces are covered.",
    inputs=("model", "images", "top"),
    seed=7,
    time_budget=40,
    config={"size": SIZE, "stride": STRIDE, "fill": 0.0},
    files=("fig7_boxes.yaml",),
    network="chain",
    version=3,
    headline=(
        "change of the class's probability, by what is covered: Pomeranian: head",
        "change of the class's probability, by what is covered: Pomeranian: elsewhere",
        "change of the class's probability, by what is covered: car wheel: wheel",
        "change of the class's probability, by what is covered: car wheel: elsewhere",
        "change of the class's probability, by what is covered: hound next to people: dog",
        "change of the class's probability, by what is covered: hound next to people: elsewhere",
        "change of the strongest map, %, by what is covered: hound next to people: dog",
        "change of the strongest map, %, by what is covered: hound next to people: face",
    ),
)
MAPS = ("activation", "probability", "label")
TILES = 3  # projections per row: of the photograph and of other images


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    arrays: dict[str, np.ndarray] = {"classes": np.array(ctx.model.classes)}
    rows: dict[str, dict] = {}
    images = choose_images(ctx, config["size"], config["stride"])
    for number, image in enumerate(images):
        o = zfnet.occlude(ctx.model, image.x, image.target, **config, progress=ctx.progress)
        rows[row_title(ctx, image)] = _measure(ctx, image, o)
        row = _arrays(ctx, image, o)
        arrays |= {f"{number}.{name}": values for name, values in row.items()}
    claims, verdict, reason = judge(rows)
    quantities = next(iter(rows.values()))
    measured: dict = {name: {row: rows[row][name] for row in rows} for name in quantities}
    return Result(
        arrays, measured | {"claims": claims}, verdict, n=len(images), note=_note(ctx),
        finding=summarize(rows, claims), reason=reason,
    )  # fmt: skip


def _measure(ctx: Context, image: BoxedImage, o: Occlusion) -> dict:
    """The changes of probability, logit and strongest map, by what the occluder covers."""
    assert o.channel is not None
    assert o.activation is not None
    base = o.baseline
    assert base.activation is not None
    channel = int(o.channel)
    groups = position_groups(o.boxes, image.boxes)
    p = zfnet.project(ctx.model, image.x, "conv5", channel)
    energy = covered_energy(p.pixels[0].cpu(), o.boxes)
    in_field = covering_positions(o.boxes, {"": p.box.tolist()})[""]
    groups |= {SHOWN: energy >= energy.max() / 2, HIDDEN: (energy < 0.01) & in_field}
    changes = {
        PROBABILITY: (o.probability - base.probability, groups.keys() - {SHOWN, HIDDEN}),
        MAP: (100 * (o.activation / base.activation - 1), groups.keys()),
        LOGIT: (o.logit - base.logit, groups.keys() - {SHOWN, HIDDEN}),  # for the course
    }
    classes = ctx.model.classes
    return {
        name: {
            kind: float(change.cpu()[mask].mean())
            for kind, mask in groups.items()
            if kind in kinds and mask.any()
        }
        for name, (change, kinds) in changes.items()
    } | {
        "probability of the class": float(base.probability),
        "class": classes[image.target],
        "predicted class": classes[int(base.label)],
        "strongest feature": f"conv5/{channel}",
        "positions": {kind: int(mask.sum()) for kind, mask in groups.items()},
        "testable": sorted(measurable_kinds(groups, FIGURE.config["stride"])),
        "photograph": image.name,
    }


def _arrays(ctx: Context, image: BoxedImage, o: Occlusion) -> dict[str, np.ndarray]:
    """What one row of the figure shows."""
    assert o.channel is not None
    return {
        **{name: getattr(o, name).cpu().numpy() for name in MAPS},
        **projections(ctx, image.name, image.x, int(o.channel)),
        "x": image.x.cpu().numpy(),
        **box_arrays(image),
    }


def projections(ctx: Context, name: str, x: Tensor, channel: int) -> dict[str, np.ndarray]:
    """A map's projection in an image and in the other images that excite it most.

    Returns:
        "projections" and "patches", each (TILES, 3, R, R).
    """
    strongest = [i for i in ctx.top["conv5"].index[channel].tolist() if i >= 0]
    names = [str(ctx.images.names[i]) for i in strongest]
    others = [
        i
        for i, other in zip(strongest, names, strict=True)
        if name not in (other.split("/")[-1], other.split("@")[0])
    ][: TILES - 1]
    batch = torch.cat([x, ctx.images.batch(others).to(ctx.device)]) if others else x
    p = zfnet.project(ctx.model, batch, "conv5", channel)
    field = zfnet.trace(ctx.model, x).receptive_field("conv5").size
    projection, patches = patches_inside(p, batch, field)
    return {"projections": projection.cpu().numpy(), "patches": patches.cpu().numpy()}


def _note(ctx: Context) -> str:
    hashes = yaml.safe_load(BOXES.read_text())["sha256"]
    missing = find_annotated(ctx, hashes)[1] if ctx.corpus != SAMPLES else ""
    size, stride = FIGURE.config["size"], FIGURE.config["stride"]
    return (
        f"An occluder of {size} pixels in steps of {stride}. Each row shows one of its annotated "
        "images: of those on which the claims can be tested, one that the network recognizes, and "
        "of these the one it is surest of. A corpus without such images shows its three surest. A "
        "position counts for the kind of box that it covers most, if it covers half of it or half "
        "of the occluder is in it. It counts for a face only if it touches no object; 'elsewhere' "
        f"touches no box. Means over fewer than {MIN_POSITIONS} positions test nothing, elsewhere "
        f"{MIN_ELSEWHERE}. Of the Pomeranian, the object is the head. The projection is shown "
        "where the occluder covers at least half of the largest share of its energy, and not shown "
        "where it covers less than a hundredth. In the middle of the receptive field, occlusion "
        "costs most in any case. Maps are drawn at the middle of the occluder. "
        f"{ctx.differences_from_paper}{missing}"
    )


def draw(result: Result) -> dict[str, Picture]:
    return {"fig7.jpg": draw_rows(result, FIGURE.config)}
