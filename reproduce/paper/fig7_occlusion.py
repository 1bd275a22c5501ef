"""Figure 7: covering parts of the image with a grey square.

The paper's claim: when the square covers the object, the strongest layer-5 feature and the probability of the true class
drop, so the network locates the object rather than its surroundings; and the strongest feature need not be the class's
own part. In the Afghan hound's picture the faces of the people drive the strongest map: covering them raises the hound's
logit, covering the dog lowers it. Columns: (a) image; (b) total of the strongest layer-5 map; (c) that map projected to
pixels, here (black frame) and in other images; (d) probability of the class; (e) most probable class; and the lectures'
logit map with its percentage drop.
"""

from pathlib import Path

import matplotlib.patches as shapes
import numpy as np
import torch
import yaml

import zfnet
from reproduce.figure import Figure, Result
from zfnet.deconv import cut
from zfnet.plot import heat, label_map, mosaic, new_figure, photograph, projection_image, rectangle, show

FIGURE = Figure(
    id="fig7",
    title="Sensitivity of a layer-5 feature and of the classifier to occlusion",
    claim="Covering the object lowers the class's logit, covering people's faces beside an Afghan hound raises it, and the "
    "strongest layer-5 map need not be the dog.",
    inputs=("model", "images", "top"),
    seed=7,
    budget=100,
    config={"size": 48, "stride": 8, "fill": 0.0},
)
BOXES = Path(__file__).with_name("fig7_boxes.yaml")
OBJECTS = ("dog", "wheel", "cup", "eyes", "nose", "rocket", "helmet")  # "face" is a person's: a distractor


def compute(ctx) -> Result:
    rows = yaml.safe_load(BOXES.read_text())["samples" if ctx.corpus == "samples" else "imagenet"]
    classes = ctx.model.classes
    arrays: dict[str, np.ndarray] = {"classes": np.array(classes)}
    measured: dict = {}
    chosen = [pick for row in rows if (pick := choose(ctx, row)) is not None]
    for number, (name, x, target, boxes) in enumerate(chosen):
        o = zfnet.occlude(
            ctx.model, x, target, size=FIGURE.config["size"], stride=FIGURE.config["stride"], progress=ctx.progress
        )
        arrays |= {
            f"{number}.{k}": getattr(o, k).cpu().numpy() for k in ("activation", "probability", "logit", "label", "boxes")
        }
        arrays |= {f"{number}.{k}": v for k, v in projections(ctx, x, int(o.channel)).items()}
        arrays[f"{number}.x"] = x.cpu().numpy()
        arrays[f"{number}.objects"] = np.array([box for kind in boxes.values() for box in kind])
        arrays[f"{number}.kinds"] = np.array([kind for kind, found in boxes.items() for _ in found])
        base = o.baseline
        entry = {
            "class": classes[target], "predicted": classes[int(base.label)], "probability": float(base.probability),
            "logit": float(base.logit), "strongest layer-5 map": int(o.channel),
            "largest drop of the logit, %": 100 * float(1 - o.logit.min() / base.logit),
        }  # fmt: skip
        for kind, inside in {kind: covered(o.boxes, found) for kind, found in boxes.items()}.items():
            entry[f"logit change, {kind} covered"] = float((o.logit - base.logit)[inside].mean())
            entry[f"strongest map's change, {kind} covered, %"] = 100 * float(
                (o.activation / base.activation - 1)[inside].mean()
            )
        nothing = ~torch.stack([covered(o.boxes, found) for found in boxes.values()]).any(0)
        if nothing.any():
            entry["logit change, elsewhere"] = float((o.logit - base.logit)[nothing].mean())
        measured[name] = entry
    return Result(arrays, measured | tests(measured), verdict(measured), n=len(measured), note=note(ctx))


def choose(ctx, row):
    """(name, x, class, boxes) of a row's listed image whose class is most probable, or None where the corpus has none of
    them."""
    places = {name.split("/")[-1]: i for i, name in enumerate(ctx.images.names)}
    best = None
    for name, boxes in row["images"].items():
        if ctx.corpus == "samples":
            x = zfnet.preprocess(zfnet.photograph(name))
        elif name in places:
            x = ctx.images.batch([places[name]])
        else:
            continue
        x = x.to(ctx.device)
        with torch.no_grad():
            probability = ctx.model(x).softmax(1)[0]
        known = row["wnid"] in ctx.model.wnids
        target = ctx.model.wnids.index(row["wnid"]) if known else int(probability.argmax())
        if best is None or probability[target] > best[0]:
            best = (float(probability[target]), (name, x, target, boxes))
    return best and best[1]


def covered(occluders: torch.Tensor, boxes: list[list[int]]) -> torch.Tensor:
    """The occluder positions (rows, cols) whose centre lies in one of the boxes."""
    centre = (occluders[..., :2] + occluders[..., 2:]) / 2
    inside = [((centre >= torch.tensor(b[:2])) & (centre < torch.tensor(b[2:]))).all(-1) for b in boxes]
    return torch.stack(inside).any(0)


def projections(ctx, x, channel: int) -> dict[str, np.ndarray]:
    """The strongest map's projection in this image, and the map's three strongest other images with theirs: (4, 3, R, R)."""
    top = ctx.top["conv5"]
    others = top.index[channel][:3]
    batch = torch.cat([x, ctx.images.batch(others[others >= 0]).to(ctx.device)])
    p = zfnet.project(ctx.model, batch, "conv5", torch.full((len(batch),), channel))
    field = zfnet.receptive_field(zfnet.trace(ctx.model, x).steps, "conv5").size
    corner = p.corner.clamp(0, x.shape[-1] - field)  # at the border, the patch that lies inside the image
    return {name: cut(values, corner, field).cpu().numpy() for name, values in (("projections", p.pixels), ("patches", batch))}


def tests(measured) -> dict:
    """The claims as yes or no: for each kind of box, does covering it lower the logit?"""
    lowers, raises = [], []
    for entry in measured.values():
        lowers += [entry[f"logit change, {kind} covered"] < 0 for kind in OBJECTS if f"logit change, {kind} covered" in entry]
        if "logit change, face covered" in entry and "logit change, dog covered" in entry:
            raises.append(entry["logit change, face covered"] > 0)
    claims = {"covering the object lowers the logit": f"{sum(lowers)} of {len(lowers)}"} if lowers else {}
    if raises:
        claims["covering the faces raises the dog's logit"] = f"{sum(raises)} of {len(raises)}"
    return {"claims": claims}


def verdict(measured) -> str:
    if not any("logit change, dog covered" in entry for entry in measured.values()):
        return "not comparable"
    counts = [tuple(map(int, text.split(" of "))) for text in tests(measured)["claims"].values()]
    passed, total = (sum(column) for column in zip(*counts, strict=True))
    return "reproduced" if passed == total else "partial" if passed else "differs"


def note(ctx) -> str:
    size, stride = FIGURE.config["size"], FIGURE.config["stride"]
    text = f"An occluder of {size} pixels in steps of {stride}; of the listed images the one whose class is most probable."
    return text + (" The sample photographs hold no Afghan hound." if ctx.corpus == "samples" else "")


def draw(result: Result):
    count = sum(name.endswith(".x") for name in result.arrays)
    figure = new_figure(14.5, 2.5 * count)
    grid = figure.subplots(count, 6, squeeze=False, width_ratios=(1, 1.15, 1.9, 1.15, 1.15, 1))
    size = FIGURE.config["size"]
    names = [name for name in result.measured if name != "claims"]
    for number, (axes, name) in enumerate(zip(grid, names, strict=True)):
        a = {key.split(".", 1)[1]: value for key, value in result.arrays.items() if key.startswith(f"{number}.")}
        entry = result.measured[name]
        right = entry["predicted"] == entry["class"]
        show(axes[0], photograph(a["x"])[0], f"(a) {entry['class']}" + ("" if right else f"\n(taken for {entry['predicted']})"))
        axes[0].add_patch(
            shapes.Rectangle((0, 0), size, size, facecolor=(0.485, 0.456, 0.406), edgecolor="white", linewidth=0.6)
        )
        for kind, box in zip(a["kinds"], a["objects"], strict=True):
            rectangle(axes[0], box, "yellow" if kind == "face" else "cyan", linewidth=1.1)
        heat(axes[1], a["activation"], f"(b) strongest layer-5 map\n(number {entry['strongest layer-5 map']}), total")
        pairs = mosaic(
            np.concatenate([framed(projection_image(a["projections"])), photograph(a["patches"])]), len(a["patches"]), gap=4
        )
        show(axes[2], pairs, "(c) its projection: here (black frame),\nand in its strongest other images")
        heat(axes[3], a["probability"], f"(d) probability of\n{entry['class']}", limits=(0, float(a["probability"].max())))
        drop = entry["largest drop of the logit, %"]
        heat(axes[4], a["logit"], f"logit of {entry['class']}\n{entry['logit']:.1f} uncovered, falls by up to {drop:.0f} %")
        label_map(axes[5], a["label"], result.arrays["classes"], "(e) most probable class")
    return {"fig7.jpg": figure}


def framed(tiles: np.ndarray, width: int = 5) -> np.ndarray:
    """A black frame around the first tile."""
    tiles = tiles.copy()
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        tiles[0][edge] = 0
    return tiles
