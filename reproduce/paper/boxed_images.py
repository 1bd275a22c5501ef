"""The annotated photographs of the occlusion figures, from `fig7_boxes.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.patches as shapes
import numpy as np
import torch
import yaml
from matplotlib.axes import Axes

import zfnet
from reproduce.core.annotations import DISTRACTOR, Boxes, find_annotated, position_groups
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES
from zfnet.occlusion import occluder_boxes
from zfnet.plot import align_occlusion_map, heat_map, photograph, rectangle

BOXES = Path(__file__).with_name("fig7_boxes.yaml")
# The occluder of Fig. 7, and how many of its positions a mean must have to be reported. An occluder
# of 48 pixels moves by its own size in 36 positions, in steps of 8: a quarter of these on a box,
# which may be small, and twice as many beside all boxes.
SIZE, STRIDE, MIN_POSITIONS, MIN_ELSEWHERE = 48, 8, 9, 72
SEARCHED = 300  # images of a corpus without annotated ones
SUREST = 3  # images shown of such a corpus


class BoxedImage(NamedTuple):
    """A photograph, its class, and annotated boxes.

    Attributes:
        name: File name, or name of the sample photograph.
        x: (1, 3, 224, 224), the network's input.
        target: Output of the true class, or the predicted one where the network lacks it.
        boxes: Boxes by kind; empty for an image that is not annotated.
    """

    name: str
    x: torch.Tensor
    target: int
    boxes: Boxes


def choose_images(ctx: Context, size: int = SIZE, stride: int = STRIDE) -> list[BoxedImage]:
    """Choose one annotated photograph per row; in a corpus without any, the three surest images.

    Of a row, an image on which the claims can be tested (enough occluder positions for each kind of
    box, and elsewhere) comes before others; of these, one that the network recognizes; of these,
    the one whose class it is surest of.
    """
    annotations = yaml.safe_load(BOXES.read_text())
    indices = find_annotated(ctx, annotations["sha256"])[0] if ctx.corpus != SAMPLES else {}
    chosen = []
    for row in annotations["samples" if ctx.corpus == SAMPLES else "imagenet"]:
        best = None
        for name, boxes in row["images"].items():
            if ctx.corpus == SAMPLES:
                x = zfnet.preprocess(zfnet.photograph(name)).to(ctx.device)
                wnid = row.get("wnid", "")
            elif name in indices:
                x = ctx.images.batch([indices[name]]).to(ctx.device)
                wnid = name.split("_")[0]
            else:
                continue
            probability = ctx.model(x).softmax(1)[0]
            target = _output(ctx, wnid, probability)
            recognized = target == int(probability.argmax())
            score = (_is_testable(x, boxes, size, stride), recognized, float(probability[target]))
            if best is None or score > best[0]:
                best = (score, BoxedImage(name, x, target, boxes))
        if best:
            chosen.append(best[1])
    return chosen or _surest_images(ctx)


def row_title(ctx: Context, image: BoxedImage) -> str:
    """The title of an image's row, such as "car wheel"; the class of one without annotations."""
    rows = yaml.safe_load(BOXES.read_text())["samples" if ctx.corpus == SAMPLES else "imagenet"]
    titles = {name: row["row"] for row in rows for name in row["images"]}
    return titles.get(image.name, ctx.model.classes[image.target])


def _output(ctx: Context, wnid: str, probability: torch.Tensor) -> int:
    """The output of a class, or the strongest output of a network without that class."""
    has_class = wnid in ctx.model.wnids
    return ctx.model.wnids.index(wnid) if has_class else int(probability.argmax())


def _is_testable(x: torch.Tensor, boxes: Boxes, size: int, stride: int) -> bool:
    """Whether enough positions of the occluder cover each kind of box, and enough cover none."""
    kinds = measurable_kinds(
        position_groups(occluder_boxes(x.shape[-2], x.shape[-1], size, stride), boxes), stride
    )
    return {"elsewhere", *boxes} <= kinds


def measurable_kinds(groups: dict[str, torch.Tensor], stride: int) -> set[str]:
    """The kinds of boxes, and "elsewhere", of which enough positions are left for a mean."""
    share = (STRIDE / stride) ** 2  # a coarser stride has fewer positions
    return {
        kind
        for kind, mask in groups.items()
        if int(mask.sum()) >= share * (MIN_ELSEWHERE if kind == "elsewhere" else MIN_POSITIONS)
    }


def _surest_images(ctx: Context) -> list[BoxedImage]:
    """The images of different classes whose true class the network is surest of."""
    images = ctx.images
    rows = np.linspace(0, len(images) - 1, min(len(images), SEARCHED)).astype(int)
    x = images.batch(rows).to(ctx.device)
    target = torch.from_numpy(images.labels[rows]).to(ctx.device)
    probability = torch.cat([ctx.model(part) for part in x.split(50)]).softmax(1)
    probability = probability.gather(1, target[:, None])[:, 0]  # of the true class: (N,)
    chosen: dict[int, BoxedImage] = {}
    for i in probability.argsort(descending=True).tolist():
        label = int(target[i])
        if len(chosen) < SUREST and label not in chosen:
            name = str(images.names[int(rows[i])]).split("/")[-1]
            chosen[label] = BoxedImage(name, x[i : i + 1], label, {})
    return list(chosen.values())


def box_arrays(image: BoxedImage) -> dict[str, np.ndarray]:
    """What `show_boxes` draws: the boxes (B, 4) and the kind of each."""
    boxes = [box for of_kind in image.boxes.values() for box in of_kind]
    kinds = [kind for kind, of_kind in image.boxes.items() for _ in of_kind]
    return {"objects": np.array(boxes).reshape(-1, 4), "kinds": np.array(kinds)}


def show_boxes(axes: Axes, arrays: dict[str, np.ndarray], size: int, fill: float) -> None:
    """Draw boxes over a photograph (cyan: the object, yellow: faces), and the occluder."""
    gray = photograph(np.full((1, 3, 1, 1), fill))[0, 0, 0]
    style: dict[str, Any] = {"facecolor": gray, "edgecolor": "white", "linewidth": 0.6}
    axes.add_patch(shapes.Rectangle((0, 0), size, size, **style))
    for kind, box in zip(arrays["kinds"], arrays["objects"], strict=True):
        rectangle(axes, box, "yellow" if kind == DISTRACTOR else "cyan", linewidth=1.1)


def show_occlusion_map(
    axes: Axes,
    values: np.ndarray,
    title: str,
    size: int,
    stride: int,
    side: int,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw a map over the occluder's positions, aligned with an image of `side` pixels."""
    heat_map(axes, values, title, limits=limits)
    align_occlusion_map(axes, size, stride, side)
