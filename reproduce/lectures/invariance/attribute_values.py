"""The attributes of all images of a corpus: of the pixels, of the object, and of the class."""

from __future__ import annotations

import numpy as np

from reproduce.core.annotations import find_annotated
from reproduce.core.context import Context
from reproduce.lectures.outlines import object_annotations
from reproduce.lectures.predictions import training_images
from zfnet.analysis.attributes import ATTRIBUTES
from zfnet.data.images import center_crop

SIZE, TRAINING_IMAGES = "object size", "training images"
NAMES: tuple[str, ...] = (*ATTRIBUTES, SIZE, TRAINING_IMAGES)


def attribute_values(
    ctx: Context, labels: np.ndarray, minimum: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """The attributes of images, by name.

    Args:
        ctx: The corpus.
        labels: Classes (N,).
        minimum: The least number of annotated boxes that are used.

    Returns:
        The values of each attribute, the images that have it, and a sentence on missing boxes.
    """
    values = measure_images(ctx)
    rows_of = {name: np.arange(len(labels)) for name in ATTRIBUTES}
    boxes = object_annotations()["boxes"]
    rows, missing = find_annotated(ctx, {name: boxes[name]["sha256"] for name in sorted(boxes)})
    if len(rows) >= minimum:
        rows_of[SIZE] = np.array(list(rows.values()))
        values[SIZE] = np.array([area(boxes[name]["box"]) for name in rows])
    per_class = training_images(ctx)
    if per_class is not None:
        rows_of[TRAINING_IMAGES] = np.arange(len(labels))
        values[TRAINING_IMAGES] = per_class[labels].astype(float)
    return values, rows_of, missing


def measure_images(ctx: Context) -> dict[str, np.ndarray]:
    """All attributes of all images of the corpus, (N,) each."""
    rows: dict[str, list] = {name: [] for name in ATTRIBUTES}
    for part in ctx.progress(
        np.array_split(np.arange(len(ctx.images)), -(-len(ctx.images) // 100)), desc="measuring"
    ):
        # The pixels of batch() before normalization.
        pixels = (
            center_crop(ctx.images.raw(part).permute(0, 3, 1, 2), ctx.images.size).float() / 255
        )
        for name, attribute in ATTRIBUTES.items():
            rows[name].append(attribute(pixels).numpy())
    return {name: np.concatenate(parts).astype(float) for name, parts in rows.items()}


def area(box: list[int], side: int = 224) -> float:
    """The share of a square view that a box (top, left, bottom, right) covers."""
    return (box[2] - box[0]) * (box[3] - box[1]) / side**2
