"""The annotated photographs of the occlusion figures, from `fig7_boxes.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml

import zfnet
from reproduce.core.annotations import DISTRACTOR, Boxes, find_annotated, position_groups
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES
from zfnet.occlusion import occluder_boxes

BOXES = Path(__file__).with_name("fig7_boxes.yaml")
# The occluder of Fig. 7, and how many of its positions a mean must have to be reported: half of
# the 36 positions in which an occluder of 48 pixels, in steps of 8, moves by its own size.
SIZE, STRIDE, MIN_POSITIONS = 48, 8, 18
HOUND = "n02088094"  # the class whose picture the claims about faces are about
SEARCHED = 300  # images of a corpus without annotated ones


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
    """Choose one annotated photograph per class; in a corpus without any, the three surest images.

    Of a class, the image is chosen on which the claims can be tested (enough occluder positions
    for each kind of box), and on which the network is surest of the class.
    """
    annotations = yaml.safe_load(BOXES.read_text())
    indices = find_annotated(ctx, annotations["sha256"])[0] if ctx.corpus != SAMPLES else {}
    chosen = []
    for row in annotations["samples" if ctx.corpus == SAMPLES else "imagenet"]:
        best = None
        for name, boxes in row["images"].items():
            if ctx.corpus == SAMPLES:
                x = zfnet.preprocess(zfnet.photograph(name)).to(ctx.device)
            elif name in indices:
                x = ctx.images.batch([indices[name]]).to(ctx.device)
            else:
                continue
            probability = ctx.model(x).softmax(1)[0]
            target = _output(ctx, row["wnid"], probability)
            required = {"elsewhere", *boxes} - (set() if row["wnid"] == HOUND else {DISTRACTOR})
            testable = required <= _testable_kinds(x, boxes, size, stride)
            score = (testable, float(probability[target]))
            if best is None or score > best[0]:
                best = (score, BoxedImage(name, x, target, boxes))
        if best:
            chosen.append(best[1])
    return chosen or _surest_images(ctx)


def _output(ctx: Context, wnid: str, probability: torch.Tensor) -> int:
    """The output of a class, or the strongest output of a network without that class."""
    has_class = wnid in ctx.model.wnids
    return ctx.model.wnids.index(wnid) if has_class else int(probability.argmax())


def _testable_kinds(x: torch.Tensor, boxes: Boxes, size: int, stride: int) -> set[str]:
    """The kinds of boxes that enough positions of the occluder cover."""
    groups = position_groups(occluder_boxes(x.shape[-2], x.shape[-1], size, stride), boxes)
    return {kind for kind, mask in groups.items() if int(mask.sum()) >= MIN_POSITIONS}


def _surest_images(ctx: Context, count: int = 3) -> list[BoxedImage]:
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
        if len(chosen) < count and label not in chosen:
            name = str(images.names[int(rows[i])]).split("/")[-1]
            chosen[label] = BoxedImage(name, x[i : i + 1], label, {})
    return list(chosen.values())
