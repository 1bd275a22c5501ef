"""Figure 7: occluding parts of the image with a gray square.

The paper's claims: when the square covers the object, the probability of the true class drops, so
the network locates the object rather than its surroundings. When it covers what the strongest
layer-5 map's projection shows, that map drops, which validates the projections. The strongest
feature need not be the class's own part: in the Afghan hound's picture it picks out the faces of
the people, to which the classifier is not sensitive. The lectures go further: covering them raises
the hound's logit.

Columns: (a) image; (b) total of the strongest layer-5 map; (c) that map projected to pixels, here
(black frame) and in other images; (d) probability of the class; (e) most probable class; and the
lectures' logit map with its largest drop.
"""

import matplotlib.patches as shapes
import numpy as np
import torch
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from torch import Tensor

import zfnet
from reproduce.core.annotations import (
    DISTRACTOR,
    covered_energy,
    covering_positions,
    find_annotated,
    position_groups,
)
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES, Figure, Result
from reproduce.paper.boxed_images import (
    BOXES,
    MIN_POSITIONS,
    SIZE,
    STRIDE,
    BoxedImage,
    choose_images,
)
from zfnet.occlusion import Occlusion
from zfnet.plot import (
    align_occlusion_map,
    heat_map,
    label_map,
    mosaic,
    new_figure,
    photograph,
    projection_image,
    rectangle,
    show,
)
from zfnet.projection import patches_inside

FIGURE = Figure(
    id="fig7",
    title="Sensitivity of a layer-5 feature and of the classifier to occlusion",
    claim="Covering the object lowers the probability of its class. Covering what the strongest "
    "layer-5 map's projection shows lowers that map, which need not be the object: next to an "
    "Afghan hound it drops more under people's faces. (The lectures: covering these raises the "
    "hound's logit.)",
    inputs=("model", "images", "top"),
    seed=7,
    time_budget=40,
    config={"size": SIZE, "stride": STRIDE, "fill": 0.0},
    files=("fig7_boxes.yaml",),
    network="chain",
)
SHOWN, HIDDEN = "what its projection shows", "what it does not, of its receptive field"
MAPS = ("activation", "probability", "logit", "label")
LOWERS = "covering the object lowers its class's probability, more than elsewhere"
VALIDATES = (
    "covering what the strongest map's projection shows lowers that map, more than what it does "
    "not show"
)
FACES = "beside the hound the strongest map falls more under the faces than under the dog"
RAISES = "the lectures': covering the faces raises the dog's logit, more than covering elsewhere"


def compute(ctx: Context) -> Result:
    config = FIGURE.config
    arrays: dict[str, np.ndarray] = {"classes": np.array(ctx.model.classes)}
    measured: dict = {}
    images = choose_images(ctx, config["size"], config["stride"])
    for number, image in enumerate(images):
        o = zfnet.occlude(ctx.model, image.x, image.target, **config, progress=ctx.progress)
        measured[image.name] = _measure(ctx, image, o)
        row = _arrays(ctx, image, o)
        arrays |= {f"{number}.{name}": values for name, values in row.items()}
    claims, verdict = judge(list(measured.values()))
    note = _note(ctx)
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(images), note=note)


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
        "probability change": o.probability - base.probability,
        "logit change": o.logit - base.logit,
        "strongest map's change, %": 100 * (o.activation / base.activation - 1),
    }
    classes = ctx.model.classes
    return {
        "class": classes[image.target],
        "predicted": classes[int(base.label)],
        "probability": float(base.probability),
        "logit": float(base.logit),
        "strongest layer-5 map": channel,
        "largest fall of the logit": float(base.logit - o.logit.min()),
        "positions": {kind: int(mask.sum()) for kind, mask in groups.items()},
    } | {
        name: {kind: float(change.cpu()[m].mean()) for kind, m in groups.items() if m.any()}
        for name, change in changes.items()
    }


def _arrays(ctx: Context, image: BoxedImage, o: Occlusion) -> dict[str, np.ndarray]:
    """What one row of the figure shows."""
    assert o.channel is not None
    boxes = [box for of_kind in image.boxes.values() for box in of_kind]
    kinds = [kind for kind, of_kind in image.boxes.items() for _ in of_kind]
    return {
        **{name: getattr(o, name).cpu().numpy() for name in MAPS},
        **projections(ctx, image.name, image.x, int(o.channel)),
        "x": image.x.cpu().numpy(),
        "objects": np.array(boxes).reshape(-1, 4),
        "kinds": np.array(kinds),
    }


def projections(ctx: Context, name: str, x: Tensor, channel: int) -> dict[str, np.ndarray]:
    """A map's projection in an image and in the three other images that excite it most.

    Returns:
        "projections" and "patches", each (4, 3, R, R).
    """
    strongest = [i for i in ctx.top["conv5"].index[channel].tolist() if i >= 0]
    names = [str(ctx.images.names[i]) for i in strongest]
    others = [
        i
        for i, other in zip(strongest, names, strict=True)
        if name not in (other.split("/")[-1], other.split("@")[0])
    ][:3]
    batch = torch.cat([x, ctx.images.batch(others).to(ctx.device)]) if others else x
    p = zfnet.project(ctx.model, batch, "conv5", channel)
    field = zfnet.trace(ctx.model, x).receptive_field("conv5").size
    projection, patches = patches_inside(p, batch, field)
    return {"projections": projection.cpu().numpy(), "patches": patches.cpu().numpy()}


def judge(rows: list[dict]) -> tuple[dict[str, str], str]:
    """Count for each claim the rows in which it holds.

    The verdict is "reproduced" if each claim was tested and held everywhere.
    """
    tests: dict[str, list[bool]] = {LOWERS: [], VALIDATES: [], FACES: [], RAISES: []}
    for row in rows:
        change, activation = row["probability change"], row["strongest map's change, %"]
        logit = row["logit change"]
        enough = {kind for kind, count in row["positions"].items() if count >= MIN_POSITIONS}
        if "elsewhere" in enough:
            for kind in enough - {DISTRACTOR, "elsewhere", SHOWN, HIDDEN}:
                tests[LOWERS].append(change[kind] < min(0.0, change["elsewhere"]))
        if {SHOWN, HIDDEN} <= enough:
            tests[VALIDATES].append(activation[SHOWN] < min(0.0, activation[HIDDEN]))
        if row["class"] == "Afghan hound" and {DISTRACTOR, "dog", "elsewhere"} <= enough:
            tests[RAISES].append(logit[DISTRACTOR] > max(0.0, logit["elsewhere"]))
            tests[FACES].append(activation[DISTRACTOR] < activation["dog"])
    claims = {
        claim: f"{sum(results)} of {len(results)}" for claim, results in tests.items() if results
    }
    if not tests[RAISES]:
        return claims, "not comparable"
    results = [result for of_claim in tests.values() for result in of_claim]
    if all(tests.values()) and all(results):
        return claims, "reproduced"
    return claims, "partial" if any(results) else "differs"


def _note(ctx: Context) -> str:
    hashes = yaml.safe_load(BOXES.read_text())["sha256"]
    missing = find_annotated(ctx, hashes)[1] if ctx.corpus != SAMPLES else ""
    size, stride = FIGURE.config["size"], FIGURE.config["stride"]
    return (
        f"An occluder of {size} pixels in steps of {stride}. Each row shows one annotated image "
        "per class: of those on which the claims can be tested, the one that the network is surest "
        "of. A corpus without such images shows its three surest. A position counts for the kind "
        "of box that it covers most, if it covers half of it or half of the occluder is in it. It "
        "counts for a face only if it touches no object; 'elsewhere' touches no box. Means over "
        f"fewer than {MIN_POSITIONS} positions test nothing. The projection is shown where the "
        "occluder covers at least half of the largest share of its energy, and not shown where it "
        "covers less than a hundredth. In the middle of the receptive field, occlusion costs most "
        "in any case. Maps are drawn at the middle of the occluder. "
        f"{ctx.differences_from_paper}{missing}"
    )


def draw(result: Result) -> dict[str, Picture]:
    names = [name for name in result.measured if name != "claims"]
    figure = new_figure(14.5, 2.3 * len(names))
    widths = (1, 1.15, 1.9, 1.15, 1.15, 1.15)
    grid = figure.subplots(len(names), 6, squeeze=False, width_ratios=widths)
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        prefix = f"{number}."
        arrays = {
            key.removeprefix(prefix): values
            for key, values in result.arrays.items()
            if key.startswith(prefix)
        }
        _draw_row(axes, arrays, result.measured[name], result.arrays["classes"].tolist())
    legend = (
        "boxes: cyan, the object; yellow, faces. The gray square in the corner is the occluder."
    )
    figure.supxlabel(legend, fontsize=9)
    return {"fig7.jpg": figure}


def _draw_row(axes: np.ndarray, a: dict[str, np.ndarray], entry: dict, classes: list[str]) -> None:
    name, size = entry["class"], FIGURE.config["size"]
    _draw_image(axes[0], a, entry)
    title = f"(b) strongest layer-5 map\n(number {entry['strongest layer-5 map']}), total"
    heat_map(axes[1], a["activation"], title)
    tiles = np.concatenate(
        [_frame_first(projection_image(a["projections"])), photograph(a["patches"])]
    )
    title = "(c) its projection: here (black frame),\nand in its strongest other images"
    show(axes[2], mosaic(tiles, len(a["patches"]), gap=4), title)
    limits = (0, float(a["probability"].max()))
    heat_map(axes[3], a["probability"], f"(d) probability of\n{name}", limits=limits)
    drop = (
        f"{entry['logit']:.1f} uncovered, drops by up to {entry['largest fall of the logit']:.1f}"
    )
    heat_map(axes[4], a["logit"], f"logit of {name}\n{drop}")
    label_map(axes[5], a["label"], classes, "(e) most probable class")
    for panel in (axes[1], *axes[3:]):
        align_occlusion_map(panel, size, FIGURE.config["stride"], a["x"].shape[-1])


def _draw_image(axes: Axes, a: dict[str, np.ndarray], entry: dict) -> None:
    """The image, its annotated boxes, and the occluder in the corner."""
    title = f"(a) {entry['class']}"
    if entry["predicted"] != entry["class"]:
        title += f"\n(taken for {entry['predicted']})"
    show(axes, photograph(a["x"])[0], title)
    size = FIGURE.config["size"]
    gray = photograph(np.full((1, 3, 1, 1), FIGURE.config["fill"]))[0, 0, 0]
    style = {"facecolor": gray, "edgecolor": "white", "linewidth": 0.6}
    axes.add_patch(shapes.Rectangle((0, 0), size, size, **style))
    for kind, box in zip(a["kinds"], a["objects"], strict=True):
        rectangle(axes, box, "yellow" if kind == DISTRACTOR else "cyan", linewidth=1.1)


def _frame_first(tiles: np.ndarray, width: int = 5) -> np.ndarray:
    """Draw a black frame around the first tile."""
    tiles = tiles.copy()
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        tiles[0][edge] = 0
    return tiles
