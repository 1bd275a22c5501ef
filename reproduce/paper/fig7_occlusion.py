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
    MIN_ELSEWHERE,
    MIN_POSITIONS,
    SIZE,
    STRIDE,
    BoxedImage,
    box_arrays,
    choose_images,
    measurable_kinds,
    show_boxes,
    show_occlusion_map,
)
from zfnet.occlusion import Occlusion
from zfnet.plot import (
    align_occlusion_map,
    enlarge,
    escape_math,
    label_map,
    mosaic,
    new_figure,
    photograph,
    projection_image,
    show,
)
from zfnet.projection import patches_inside

FIGURE = Figure(
    id="fig7",
    title="Sensitivity of a layer-5 feature and of the classifier to occlusion",
    claim="Covering the object lowers the probability of its class. Covering what the strongest "
    "layer-5 map's projection shows lowers that map, which need not be the object: next to a "
    "hound it drops more under people's faces.",
    inputs=("model", "images", "top"),
    seed=7,
    time_budget=40,
    config={"size": SIZE, "stride": STRIDE, "fill": 0.0},
    files=("fig7_boxes.yaml",),
    network="chain",
    version=2,
)
SHOWN, HIDDEN = "what its projection shows", "what it does not, of its receptive field"
MAPS = ("activation", "probability", "label")
TILES, GAP = 3, 4  # projections per row: of the photograph and of other images; pixels
TITLES = (  # of the columns
    "(a) photograph; (c) strongest layer-5 map,\nprojected here (frame) and elsewhere",
    "(b) total of\nthat map",
    "(d) probability\nof the class",
    "(e) most probable\nclass",
)
LOWERS = "covering the object lowers its class's probability more than covering other places"
VALIDATES = (
    "covering what the strongest map's projection shows lowers that map, more than what it does "
    "not show"
)
FACES = "next to the hound, covering faces lowers the strongest map more than covering the dog"


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
        "logit change": o.logit - base.logit,  # for the course
        "strongest map's change, %": 100 * (o.activation / base.activation - 1),
    }
    classes = ctx.model.classes
    return {
        "class": classes[image.target],
        "predicted": classes[int(base.label)],
        "probability": float(base.probability),
        "strongest layer-5 map": channel,
        "positions": {kind: int(mask.sum()) for kind, mask in groups.items()},
        "testable": sorted(measurable_kinds(groups, FIGURE.config["stride"])),
    } | {
        name: {kind: float(change.cpu()[m].mean()) for kind, m in groups.items() if m.any()}
        for name, change in changes.items()
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


def judge(rows: list[dict]) -> tuple[dict[str, str], str]:
    """Count for each claim the rows in which it holds.

    The verdict is "reproduced" if each claim was tested and held everywhere.
    """
    tests: dict[str, list[bool]] = {LOWERS: [], VALIDATES: [], FACES: []}
    for row in rows:
        change, activation = row["probability change"], row["strongest map's change, %"]
        enough = set(row["testable"])
        if "elsewhere" in enough:
            for kind in enough - {DISTRACTOR, "elsewhere", SHOWN, HIDDEN}:
                tests[LOWERS].append(change[kind] < min(0.0, change["elsewhere"]))
        if {SHOWN, HIDDEN} <= enough:
            tests[VALIDATES].append(activation[SHOWN] < min(0.0, activation[HIDDEN]))
        if {DISTRACTOR, "dog"} <= enough:
            tests[FACES].append(activation[DISTRACTOR] < activation["dog"])
    claims = {
        claim: f"{sum(results)} of {len(results)}" for claim, results in tests.items() if results
    }
    if not tests[FACES]:
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
    names = [name for name in result.measured if name != "claims"]
    figure = new_figure(8.4, 1.22 * len(names) + 1.0)
    grid = figure.subplots(len(names), 4, squeeze=False, width_ratios=(2.6, 1.3, 1.3, 2.7))
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        prefix = f"{number}."
        arrays = {
            key.removeprefix(prefix): values
            for key, values in result.arrays.items()
            if key.startswith(prefix)
        }
        _draw_row(axes, arrays, result.measured[name], result.arrays["classes"].tolist())
    for axes, title in zip(grid[0], TITLES, strict=True):
        axes.set_title(title, fontsize=8, loc="left")
    figure.suptitle(_finding(result.measured["claims"]), fontsize=10)
    figure.supxlabel(
        "boxes: cyan, the object; yellow, faces. The gray square is the occluder.", fontsize=8
    )
    return {"fig7.jpg": figure}


def _finding(claims: dict[str, str]) -> str:
    """The title: in how many photographs the first two claims hold."""
    parts = [
        f"{text} in {claims[claim]} photographs"
        for claim, text in (
            (LOWERS, "Covering the object lowers its class's probability"),
            (VALIDATES, "covering what the projection shows lowers the map"),
        )
        if claim in claims
    ]
    return ";\n".join(parts) or "How the gray square changes the strongest map and the prediction"


def _draw_row(axes: np.ndarray, a: dict[str, np.ndarray], entry: dict, classes: list[str]) -> None:
    size, stride = FIGURE.config["size"], FIGURE.config["stride"]
    side = a["x"].shape[-1]
    tile = (side - GAP) // 2  # two rows of tiles are as high as the photograph
    tiles = np.concatenate(
        [_frame_first(enlarge(projection_image(a["projections"], 0.98), tile)),
         enlarge(photograph(a["patches"]), tile)]
    )  # fmt: skip
    small = mosaic(tiles, len(a["patches"]), gap=GAP)
    small = np.pad(small, ((0, side - len(small)), (GAP, 0), (0, 0)), constant_values=1)
    show(axes[0], np.concatenate([photograph(a["x"])[0], small], 1))
    show_boxes(axes[0], a, size, FIGURE.config["fill"])
    name = entry["class"]
    if entry["predicted"] != name:
        name += f", taken for\n{entry['predicted']}"
    text = escape_math(f"{name}\nmap conv5/{entry['strongest layer-5 map']}")
    axes[0].text(-8, side / 2, text, rotation=90, ha="right", va="center", fontsize=7.5,
                 multialignment="center")  # fmt: skip
    show_occlusion_map(axes[1], a["activation"], "", size, stride, side)
    limits = (0, float(a["probability"].max()))
    show_occlusion_map(axes[2], a["probability"], "", size, stride, side, limits)
    label_map(axes[3], a["label"], classes)
    align_occlusion_map(axes[3], size, stride, side)
    axes[3].set_xlim(0, 2.7 * side)  # the legend is beside the map
    legend = axes[3].get_legend()
    assert legend is not None
    legend.set_bbox_to_anchor((0.8 / 2.7, 0.5))
    legend.set_in_layout(False)  # there is room
    for panel in axes:
        panel.set_anchor("NW")


def _frame_first(tiles: np.ndarray, width: int = 3) -> np.ndarray:
    """Draw a black frame around the first tile."""
    tiles = tiles.copy()
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        tiles[0][edge] = 0
    return tiles
