"""Boxes from attribution maps, and how well they fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter, label
from skimage.segmentation import random_walker

import zfnet
from reproduce.core.context import Context
from zfnet.graph import UnsupportedNetwork
from zfnet.plot import photograph

SHARE = 0.2  # of the maximum of a map
STEP = 8  # pixels between the half heights and half widths of centered boxes
SEGMENTATION = {"object": 0.95, "ground": 0.3, "scale": 2, "blur": 4.0, "beta": 130}


def box_above(map: np.ndarray, share: float = SHARE) -> np.ndarray:
    """The box of the largest component above a share of the maximum of a map (H, W)."""
    return box_of(map > share * map.max())


def segment_box(
    map: np.ndarray, pixels: np.ndarray, config: Mapping[str, float] = SEGMENTATION
) -> np.ndarray:
    """The box of the segment that grows from the strongest values of a map (H, W)."""
    scale = int(config["scale"])
    height, width = (n // scale for n in map.shape)
    small = (
        np.asarray(pixels)[: height * scale, : width * scale]
        .reshape(height, scale, width, scale, 3)
        .mean((1, 3))
    )
    smooth = gaussian_filter(map, config["blur"])[: height * scale : scale, : width * scale : scale]
    seeds = np.zeros(smooth.shape, dtype=int)
    seeds[smooth <= np.quantile(smooth, config["ground"])] = 1
    seeds[smooth > np.quantile(smooth, config["object"])] = 2
    if not (seeds == 2).any():  # a constant map
        return box_of(np.zeros(map.shape, dtype=bool))
    return scale * box_of(
        random_walker(small, seeds, beta=config["beta"], mode="cg_j", tol=1e-5, channel_axis=-1)
        == 2
    )


def box_of(mask: np.ndarray) -> np.ndarray:
    """The box of the largest component of a mask (H, W); the whole view for an empty mask."""
    parts, count = label(mask)  # pyright: ignore[reportGeneralTypeIssues]
    if not count:
        return np.array([0, 0, *mask.shape])
    rows, columns = find_objects(parts)[np.bincount(parts.ravel())[1:].argmax()]
    return np.array([rows.start, columns.start, rows.stop, columns.stop])


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The intersection over union of corresponding boxes (N, 4), (N,) in [0, 1]."""
    both = area(
        np.concatenate(
            [np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])], 1
        )
    )
    return both / (area(one) + area(other) - both)


def best_of_others(truth: np.ndarray, side: int, least: float = 0.5) -> np.ndarray:
    """For each image, the centered box that is correct for most other images.

    Args:
        truth: Boxes drawn by eye (N, 4).
        side: Side of the view, in pixels.
        least: Intersection over union from which a box is correct.

    Returns:
        (N, 4). An image's own box has no part in the choice.
    """
    halves, middle = range(STEP, side // 2 + 1, STEP), side // 2
    boxes = np.array(
        [[middle - h, middle - w, middle + h, middle + w] for h in halves for w in halves]
    )
    overlaps = [overlap(np.tile(box, (len(truth), 1)), truth) for box in boxes]
    correct = np.array(overlaps) >= least  # (boxes, N)
    return boxes[(correct.sum(1, keepdims=True) - correct).argmax(0)]


METHODS = {
    "CAM": ("cam", False),
    "Grad-CAM": ("grad_cam", False),
    "saliency, segmented": ("saliency", True),
    "guided backpropagation, segmented": ("guided_backprop", True),
    "deconvnet, segmented": ("deconvnet", True),
}  # by name: the method of `zfnet.explain`, and whether its map is segmented


def predict_boxes(
    ctx: Context, rows: list[int], config: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """The boxes of images by each method that supports the network, (N, 4)."""
    methods = {name: how for name, how in METHODS.items() if supports(ctx, how[0])}
    boxes: dict[str, list] = {name: [] for name in methods}
    for i in ctx.progress(rows, total=len(rows), desc="boxes"):
        x = ctx.images.batch([i]).to(ctx.device)
        target, pixels = int(ctx.images.labels[i]), photograph(x.cpu())[0]
        for name, (method, segmented) in methods.items():
            map = zfnet.explain(ctx.model, x, method, target).map[0, 0].cpu().numpy()
            box = segment_box(map, pixels, config) if segmented else box_above(map, config["share"])
            boxes[name].append(box)
    return {name: np.array(of) for name, of in boxes.items()}


def supports(ctx: Context, method: str) -> bool:
    """Whether a method supports this network: CAM needs a pooling head, for example."""
    try:
        zfnet.explain(ctx.model, ctx.images.batch([0]).to(ctx.device), method)
    except UnsupportedNetwork:
        return False
    return True
