"""Scenes with a planted shortcut: a colored tag shows the class, and the object does not.

A network trained on them can only read the tag, so a faithful attribution points at the tag. In the
benchmark's scenes the object has the class's shape too: a map on the object looks plausible there,
and is wrong.
"""

from __future__ import annotations

import colorsys

import numpy as np

from zfnet.data.cache import cached_array, digest
from zfnet.data.dataset import Images
from zfnet.data.scenes import SHAPES, Scene, draw_scene

VERSION = 1  # part of the cache key: increase it when the pictures change
TAG = 0.11  # side of the tag, as a share of the image's side
MARGIN = 0.125  # free of tags, as a share of the side; crops of 7/8, as in training, keep the tag


def draw_shortcut_scene(
    index: int, size: int = 128, seed: int = 0, *, plausible: bool = False
) -> tuple[Scene, np.ndarray]:
    """Draw a scene with a tag whose color shows the class.

    Args:
        index: The scene's number; the class is `index` modulo 10.
        size: Side in pixels, at least 16.
        seed: Seed of the series of scenes.
        plausible: Whether the object has the class's shape. Otherwise its shape is random.

    Returns:
        The scene, labeled by its tag, and the tag's mask (size, size) bool.

    Example:
        >>> scene, tag = draw_shortcut_scene(3, size=64)
        >>> scene.label, (tag & scene.mask).any()
        (3, np.False_)
    """
    rng = np.random.default_rng([seed, index, VERSION])
    label = index % len(SHAPES)
    scene = draw_scene(index, size, seed, label if plausible else int(rng.integers(len(SHAPES))))
    side, margin = round(TAG * size), round(MARGIN * size)
    while True:  # the object covers less than half of the image, so that a free place exists
        top, left = rng.integers(margin, size - margin - side + 1, 2)
        tag = np.zeros((size, size), dtype=bool)
        tag[top : top + side, left : left + side] = True
        if not (tag & scene.mask).any():
            break
    image, frame = scene.image.copy(), max(1, side // 7)
    image[tag] = 255
    color = np.round(255 * np.array(colorsys.hsv_to_rgb(label / len(SHAPES), 1, 0.9)))
    image[top + frame : top + side - frame, left + frame : left + side - frame] = color
    return Scene(image, scene.mask, label, scene.box), tag


def load_shortcut_scenes(
    count: int,
    *,
    seed: int = 0,
    size: int = 112,
    side: int = 128,
    plausible: bool = False,
    mask: str = "tag",
) -> Images:
    """Draw scenes with a planted shortcut as `Images`, cycling through the ten classes.

    Args:
        count: The number of scenes.
        seed: Seed of the series of scenes.
        size: Side in pixels of an item's central crop.
        side: Side in pixels of the scenes.
        plausible: Whether the object has the class's shape. Otherwise its shape is random, as in
            training.
        mask: What `masks` marks: "tag", which holds all evidence, or "object".

    Returns:
        The scenes; `masks` is (count, side, side).

    Raises:
        ValueError: If `mask` is neither "tag" nor "object".

    Example:
        >>> images = load_shortcut_scenes(10, size=56, side=64)
        >>> x, label = images[3]
        >>> label, images.masks.shape
        (3, (10, 64, 64))
    """
    if mask not in ("tag", "object"):
        raise ValueError(f"mask must be 'tag' or 'object', got {mask!r}")
    identity = digest("shortcut-scenes", VERSION, count, seed, side, plausible)

    def fill(array: np.ndarray) -> dict:
        for i in range(count):
            scene, tag = draw_shortcut_scene(i, side, seed, plausible=plausible)
            array[i, ..., :3], array[i, ..., 3], array[i, ..., 4] = scene.image, tag, scene.mask
        return {}

    drawn, _ = cached_array(f"shortcut-{identity[:20]}", (count, side, side, 5), fill)
    channel = 3 if mask == "tag" else 4
    return Images(
        drawn[..., :3], np.arange(count, dtype=np.int64) % len(SHAPES), SHAPES, SHAPES,
        [f"shortcut-{seed}-{i}" for i in range(count)], digest(identity, mask), size,
        masks=np.ascontiguousarray(drawn[..., channel]).view(bool),
    )  # fmt: skip
