"""Figure 7: covering parts of the image with a grey square.

The paper's claims: when the square covers the object, the probability of the true class drops, so the network locates the
object rather than its surroundings; when it covers what the strongest layer-5 map's projection shows, that map drops, which
validates the projections; and the strongest feature need not be the class's own part: in the Afghan hound's picture it picks
out the faces of the people, to which the classifier is not sensitive. The lectures go further: covering them raises the hound's
logit. Columns: (a) image; (b) total of the strongest layer-5 map; (c) that map projected to pixels, here (black frame) and in
other images; (d) probability of the class; (e) most probable class; and the lectures' logit map with its percentage drop.
"""

import matplotlib.patches as shapes
import numpy as np
import torch
import yaml

import zfnet
from reproduce.core.annotations import (
    DISTRACTOR,
    covered_energy,
    covering_positions,
    find_annotated,
    position_groups,
)
from reproduce.core.figure import Figure, Result
from reproduce.paper.boxed_images import BOXES, MIN_POSITIONS, SIZE, STRIDE, choose_images
from zfnet.plot import (
    at_middles,
    heat,
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
    claim="Covering the object lowers the probability of its class; covering what the strongest layer-5 map's projection shows "
    "lowers that map, which need not be the object: beside an Afghan hound it falls more under people's faces. (The lectures: "
    "covering these raises the hound's logit.)",
    inputs=("model", "images", "top"),
    seed=7,
    time_budget=40,
    config={"size": SIZE, "stride": STRIDE, "fill": 0.0},
    files=("fig7_boxes.yaml",),
    network="chain",
)
SHOWN, HIDDEN = "what its projection shows", "what it does not, of its receptive field"


def compute(ctx) -> Result:
    classes = ctx.model.classes
    arrays: dict[str, np.ndarray] = {"classes": np.array(classes)}
    measured: dict = {}
    for number, (name, x, target, boxes) in enumerate(
        choose_images(ctx, FIGURE.config["size"], FIGURE.config["stride"])
    ):
        occluder = {name: FIGURE.config[name] for name in ("size", "stride", "fill")}
        o = zfnet.occlude(ctx.model, x, target, **occluder, progress=ctx.progress)
        arrays |= {
            f"{number}.{k}": getattr(o, k).cpu().numpy()
            for k in ("activation", "probability", "logit", "label")
        }
        arrays |= {f"{number}.{k}": v for k, v in projections(ctx, name, x, int(o.channel)).items()}
        arrays[f"{number}.x"] = x.cpu().numpy()
        arrays[f"{number}.objects"] = np.array(
            [box for found in boxes.values() for box in found]
        ).reshape(-1, 4)
        arrays[f"{number}.kinds"] = np.array([kind for kind, found in boxes.items() for _ in found])
        base = o.baseline
        measured[name] = {
            "class": classes[target], "predicted": classes[int(base.label)], "probability": float(base.probability),
            "logit": float(base.logit), "strongest layer-5 map": int(o.channel),
            "largest fall of the logit": float(base.logit - o.logit.min()),
        }  # fmt: skip
        groups, p = (
            position_groups(o.boxes, boxes),
            zfnet.project(ctx.model, x, "conv5", int(o.channel)),
        )
        shares = covered_energy(p.pixels[0].cpu(), o.boxes)
        groups |= {
            SHOWN: shares >= shares.max() / 2,
            HIDDEN: (shares < 0.01) & covering_positions(o.boxes, {"": p.box.tolist()})[""],
        }
        measured[name]["positions"] = {kind: int(at.sum()) for kind, at in groups.items()}
        changes = {
            "probability change": o.probability - base.probability, "logit change": o.logit - base.logit,
            "strongest map's change, %": 100 * (o.activation / base.activation - 1),
        }  # fmt: skip
        for what, change in changes.items():
            measured[name][what] = {
                kind: float(change.cpu()[at].mean()) for kind, at in groups.items() if at.any()
            }
    missing = (
        find_annotated(ctx, yaml.safe_load(BOXES.read_text())["sha256"])[1]
        if ctx.corpus != "samples"
        else ""
    )
    claims, verdict = judge(list(measured.values()))
    size, stride = FIGURE.config["size"], FIGURE.config["stride"]
    note = (
        f"An occluder of {size} pixels in steps of {stride}. Each row shows, of the annotated images of its class on which the "
        "claims can be tested, the one the network is surest of; a corpus without such images shows its three surest. A "
        "position counts for the kind of box that it covers most, if it covers half of it (or half of the occluder is in it), "
        "and for a face only if it touches no object; 'elsewhere' touches no box; means over fewer than "
        f"{MIN_POSITIONS} positions test nothing. "
        "The projection is shown where the occluder covers at least half as much of its energy as anywhere, and not where it "
        "covers less than a hundredth; in the middle of the receptive field covering costs most in any case. Maps lie where "
        f"the occluder's middle was. {ctx.differences_from_paper}{missing}"
    )
    return Result(arrays, measured | {"claims": claims}, verdict, n=len(measured), note=note)


def judge(rows: list[dict]) -> tuple[dict[str, str], str]:
    """The claims as counts of rows in which they hold, and the verdict: reproduced if each was tested and held everywhere."""
    held: dict[str, list[bool]] = {
        "covering the object lowers its class's probability, more than elsewhere": [],
        "covering what the strongest map's projection shows lowers that map, more than what it does not show": [],
        "beside the hound the strongest map falls more under the faces than under the dog": [],
        "the lectures': covering the faces raises the dog's logit, more than covering elsewhere": [],
    }
    lowers, validates, faces, raises = held.values()
    for row in rows:
        change, activation = row["probability change"], row["strongest map's change, %"]
        enough = {kind for kind, count in row["positions"].items() if count >= MIN_POSITIONS}
        for kind in (
            enough - {DISTRACTOR, "elsewhere", SHOWN, HIDDEN} if "elsewhere" in enough else ()
        ):
            lowers.append(change[kind] < min(0.0, change["elsewhere"]))
        if {SHOWN, HIDDEN} <= enough:
            validates.append(activation[SHOWN] < min(0.0, activation[HIDDEN]))
        if row["class"] == "Afghan hound" and {DISTRACTOR, "dog", "elsewhere"} <= enough:
            raises.append(
                row["logit change"][DISTRACTOR] > max(0.0, row["logit change"]["elsewhere"])
            )
            faces.append(activation[DISTRACTOR] < activation["dog"])
    claims = {
        claim: f"{sum(results)} of {len(results)}" for claim, results in held.items() if results
    }
    if not raises:
        return claims, "not comparable"
    results = [result for found in held.values() for result in found]
    return claims, "reproduced" if all(held.values()) and all(results) else "partial" if any(
        results
    ) else "differs"


def projections(ctx, name: str, x: torch.Tensor, channel: int) -> dict[str, np.ndarray]:
    """The strongest map's projection in this image, and in the three other images that excite it most: (4, 3, R, R)."""
    others = [i for i in ctx.top["conv5"].index[channel].tolist() if i >= 0]
    others = [
        i
        for i in others
        if name not in (ctx.images.names[i].split("/")[-1], ctx.images.names[i].split("@")[0])
    ][:3]
    batch = torch.cat([x, ctx.images.batch(others).to(ctx.device)]) if others else x
    p = zfnet.project(ctx.model, batch, "conv5", channel)
    field = zfnet.trace(ctx.model, x).receptive_field("conv5").size
    shown = patches_inside(p, batch, field)
    return {
        key: patches.cpu().numpy()
        for key, patches in zip(("projections", "patches"), shown, strict=True)
    }


def draw(result: Result):
    names = [name for name in result.measured if name != "claims"]
    figure = new_figure(14.5, 2.3 * len(names))
    grid = figure.subplots(
        len(names), 6, squeeze=False, width_ratios=(1, 1.15, 1.9, 1.15, 1.15, 1.15)
    )
    size = FIGURE.config["size"]
    grey = photograph(np.full((1, 3, 1, 1), FIGURE.config["fill"]))[0, 0, 0]
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        a = {
            key.split(".", 1)[1]: value
            for key, value in result.arrays.items()
            if key.startswith(f"{number}.")
        }
        entry = result.measured[name]
        right = entry["predicted"] == entry["class"]
        show(
            axes[0],
            photograph(a["x"])[0],
            f"(a) {entry['class']}" + ("" if right else f"\n(taken for {entry['predicted']})"),
        )
        axes[0].add_patch(
            shapes.Rectangle((0, 0), size, size, facecolor=grey, edgecolor="white", linewidth=0.6)
        )
        for kind, box in zip(a["kinds"], a["objects"], strict=True):
            rectangle(axes[0], box, "yellow" if kind == DISTRACTOR else "cyan", linewidth=1.1)
        heat(
            axes[1],
            a["activation"],
            f"(b) strongest layer-5 map\n(number {entry['strongest layer-5 map']}), total",
        )
        tiles = np.concatenate(
            [framed(projection_image(a["projections"])), photograph(a["patches"])]
        )
        show(
            axes[2],
            mosaic(tiles, len(a["patches"]), gap=4),
            "(c) its projection: here (black frame),\nand in its strongest other images",
        )
        heat(
            axes[3],
            a["probability"],
            f"(d) probability of\n{entry['class']}",
            limits=(0, float(a["probability"].max())),
        )
        drop, logit = entry["largest fall of the logit"], entry["logit"]
        heat(
            axes[4],
            a["logit"],
            f"logit of {entry['class']}\n{logit:.1f} uncovered, falls by up to {drop:.1f}",
        )
        label_map(axes[5], a["label"], result.arrays["classes"], "(e) most probable class")
        for panel in (axes[1], *axes[3:]):
            at_middles(panel, size, FIGURE.config["stride"], a["x"].shape[-1])
    figure.supxlabel(
        "boxes: cyan, the object; yellow, faces beside it. The grey square in the corner is the occluder.",
        fontsize=9,
    )
    return {"fig7.jpg": figure}


def framed(tiles: np.ndarray, width: int = 5) -> np.ndarray:
    """A black frame around the first tile."""
    tiles = tiles.copy()
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        tiles[0][edge] = 0
    return tiles
