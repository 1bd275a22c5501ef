"""The annotated frontal dogs of Figure 8 and Table 1, from `faces.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

import zfnet
from reproduce.core.annotations import find_annotated
from reproduce.core.context import Context
from reproduce.core.figure import SAMPLES
from zfnet.data.samples import photograph

FACES = Path(__file__).with_name("faces.yaml")
PARTS = ("right eye", "left eye", "nose")
MASK, FILL = 37, 0.0  # side of a mask, a sixth of the view; mean gray


class Faces(NamedTuple):
    """Annotated images of frontal dogs.

    Attributes:
        names: (N,) names of the images.
        x: (N, 3, 224, 224), the network's inputs.
        points: (N, 3, 2), (row, column) of the middle of each of PARTS.
        heads: (N, 4), boxes of the heads.
        missing: A sentence on the annotated images that the corpus lacks.
    """

    names: list[str]
    x: Tensor
    points: Tensor
    heads: Tensor
    missing: str


def load_faces(ctx: Context) -> Faces:
    """Load the annotated images of the corpus; without any, empty tensors."""
    samples = ctx.corpus == SAMPLES
    annotations = yaml.safe_load(FACES.read_text())["samples" if samples else "imagenet"]
    if samples:
        missing, inputs = "", {name: _crop(name) for name in annotations}
    else:
        hashes = {name: of_image["sha256"] for name, of_image in annotations.items()}
        indices, missing = find_annotated(ctx, hashes)
        inputs = {name: ctx.images.batch([index]) for name, index in indices.items()}
    if not inputs:
        return Faces([], torch.empty(0), torch.empty(0), torch.empty(0), missing)
    points = [[annotations[name][part] for part in PARTS] for name in inputs]
    heads = [annotations[name]["head"] for name in inputs]
    x = torch.cat(list(inputs.values()))
    return Faces(list(inputs), x, torch.tensor(points), torch.tensor(heads), missing)


def _crop(name: str) -> Tensor:
    """The input of a crop of a sample photograph, named "photograph@left,top,right,bottom"."""
    photo, _, box = name.partition("@")
    left, top, right, bottom = (int(edge) for edge in box.split(","))
    return zfnet.preprocess(photograph(photo).crop((left, top, right, bottom)))
