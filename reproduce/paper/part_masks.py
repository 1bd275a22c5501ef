"""The masks of Table 1: parts, random parts, and places where another image has the part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reproduce.paper.dog_faces import PARTS, Faces
from zfnet.analysis.correspondence import part_boxes, random_points

RANDOM = "random"
CONTROL = {part: f"where another dog has its {part}" for part in PARTS}


def draw_masks(faces: Faces, config: dict, seed: int) -> dict[str, Tensor]:
    """Middles of the masks (repetitions, N, 2) by name: parts, random parts, and the control.

    Args:
        faces: The annotated images.
        config: "size" of a mask, number of "random parts" and of "shifts".
        seed: Seed of the random parts.
    """
    n, generator = len(faces.names), torch.Generator().manual_seed(seed)
    count = config["random parts"]
    random = random_points(faces.heads, faces.points, config["size"], count, generator)
    shifts = np.unique(np.linspace(1, n - 1, config["shifts"]).round().astype(int)).tolist()
    parts = dict(zip(PARTS, faces.points.transpose(0, 1), strict=True))  # (N, 2) each
    # Image i gets the position of image i - shift.
    control = {
        CONTROL[name]: torch.stack([middles.roll(shift, 0) for shift in shifts])
        for name, middles in parts.items()
    }
    return {name: middles[None] for name, middles in parts.items()} | {RANDOM: random} | control


def covered_parts(faces: Faces, masks: dict[str, Tensor], size: int) -> dict[str, float]:
    """The percentage of the control's masks that cover the part of the image itself."""
    shares = {}
    view = (faces.x.shape[-2], faces.x.shape[-1])
    for points, name in zip(faces.points.transpose(0, 1), CONTROL.values(), strict=True):
        boxes = part_boxes(masks[name], size, *view)  # (shifts, N, 4)
        covers = ((points >= boxes[..., :2]) & (points < boxes[..., 2:])).all(-1)
        shares[name] = 100 * float(covers.float().mean())
    return shares


def mean_distance(points: Tensor) -> float:
    """The mean distance in pixels between the positions (N, K, 2) of one mask in two images."""
    positions, n = points.transpose(0, 1).double(), len(points)
    return float(torch.cdist(positions, positions).sum((1, 2)).mean() / (n * (n - 1)))
