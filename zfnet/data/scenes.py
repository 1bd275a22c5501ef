"""Synthetic scenes with ground truth: a textured object of one of ten shapes, and distractors.

A small ZFNet learns them in a minute on a CPU, so they serve end-to-end tests. Only the shape
predicts the class; color, texture, position, size and distractors do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zfnet.data.cache import cached_array, digest
from zfnet.data.dataset import Images

SHAPES = ("disc", "square", "triangle", "star", "ring", "cross", "crescent", "heart", "bar", "arch")
VERSION = 1  # part of the cache key; increase it when the images change


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        image: (size, size, 3) uint8.
        mask: (size, size) bool, the object's pixels.
        label: The index of the object's shape in `SHAPES`.
        box: The object's box (top, left, bottom, right) in pixels.
    """

    image: np.ndarray
    mask: np.ndarray
    label: int
    box: tuple[int, int, int, int]


def draw_scene(index: int, size: int = 128, seed: int = 0, label: int | None = None) -> Scene:
    """Draw one scene; it is the same on every machine.

    Args:
        index: The scene's number.
        size: Side in pixels, at least 16.
        seed: Seed of the series of scenes.
        label: The shape, 0 to 9; None for `index` modulo 10.

    Returns:
        The scene.

    Raises:
        ValueError: `size` is below 16 or `label` is outside 0 to 9.

    Example:
        >>> scene = draw_scene(3, size=64)
        >>> scene.image.shape, SHAPES[scene.label]
        ((64, 64, 3), 'star')
    """
    label = index % len(SHAPES) if label is None else label
    if size < 16 or not 0 <= label < len(SHAPES):
        raise ValueError(
            f"size must be at least 16 and label 0 to {len(SHAPES) - 1}, got {size} and {label}"
        )
    rng = np.random.default_rng([seed, index])
    fine, coarse = _grid(2 * size), _grid(size)  # 2 x supersampling antialiases the edges
    background, background2, paint, paint2 = _colors(rng)
    image = _texture(rng, *coarse, background, background2)
    for _ in range(rng.integers(3, 7)):  # distractors: short sticks behind the object
        (cx, cy), angle = rng.uniform(0.05, 0.95, 2), rng.uniform(0, np.pi)
        length = rng.uniform(0.03, 0.08)
        u, v = _rotate(coarse[0] - cx, coarse[1] - cy, angle)
        image[(abs(u) < length) & (abs(v) < 0.012)] = rng.uniform(0, 1, 3)
    radius = rng.uniform(0.17, 0.27)
    cx, cy = rng.uniform(radius + 0.08, 0.92 - radius, 2)
    u, v = _rotate((fine[0] - cx) / radius, (fine[1] - cy) / radius, rng.uniform(-0.35, 0.35))
    inside = _inside(SHAPES[label], u, v).reshape(size, 2, size, 2)
    coverage = inside.mean((1, 3), dtype=np.float32)[..., None]  # (size, size, 1)
    image = image * (1 - coverage) + _texture(rng, *coarse, paint, paint2) * coverage
    image += rng.normal(0, 0.02, (size, size, 1)).astype(np.float32)
    image = (image.clip(0, 1) * 255).round().astype(np.uint8)
    mask = coverage[..., 0] >= 0.5
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Scene(image, mask, label, box)


def load_scenes(count: int, *, seed: int = 0, size: int = 112, side: int = 128) -> Images:
    """Draw scenes as `Images`, cycling through the ten classes.

    Args:
        count: The number of scenes.
        seed: Seed of the series of scenes.
        size: Side in pixels of an item's central crop.
        side: Side in pixels of the scenes.

    Returns:
        The scenes; `masks` (count, side, side) marks the objects.

    Example:
        >>> x, label = load_scenes(10, size=56, side=64)[3]
        >>> x.shape
        torch.Size([3, 56, 56])
    """
    identity = digest("scenes", VERSION, count, seed, side)

    def fill(array: np.ndarray) -> dict:
        for i in range(count):
            scene = draw_scene(i, side, seed)
            array[i, ..., :3], array[i, ..., 3] = scene.image, scene.mask
        return {}

    pixels, _ = cached_array(f"scenes-{identity[:20]}", (count, side, side, 4), fill)
    names = [f"scene-{seed}-{i}" for i in range(count)]
    labels = np.arange(count, dtype=np.int64) % len(SHAPES)
    return Images(
        pixels[..., :3],
        labels,
        SHAPES,
        SHAPES,
        names,
        identity,
        size,
        masks=pixels[..., 3].view(bool),
    )


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of pixel centers in [0, 1]: x (1, size) and y (size, 1)."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return axis[None, :], axis[:, None]


def _rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in a rotated frame."""
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def _colors(rng: np.random.Generator) -> list[np.ndarray]:
    """Draw two similar colors for the background, and two contrasting ones for the object."""
    background = rng.uniform(0.1, 0.9, 3)
    paint = rng.uniform(0, 1, 3)
    while np.abs(paint - background).max() < 0.45:
        paint = rng.uniform(0, 1, 3)
    colors = [
        c
        for base in (background, paint)
        for c in (base, (base + rng.uniform(-0.18, 0.18, 3)).clip(0, 1))
    ]
    return [c.astype(np.float32) for c in colors]


def _texture(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, one: np.ndarray, two: np.ndarray
) -> np.ndarray:
    """Return stripes, checks, dots or blotches in two colors: (size, size, 3) in [0, 1]."""
    u, v = _rotate(x, y, rng.uniform(0, np.pi))
    frequency = np.float32(2 * np.pi * rng.uniform(6, 16))
    match rng.integers(4):
        case 0:
            wave = np.sin(u * frequency)
        case 1:
            wave = np.sign(np.sin(u * frequency) * np.sin(v * frequency))
        case 2:
            wave = np.cos(u * frequency) + np.cos(v * frequency) - 0.6
        case _:
            mix = rng.uniform(-1, 1, (3, 2)).astype(np.float32) * frequency
            wave = sum(np.sin(a * u + b * v) for a, b in mix)
    mixture = np.clip(0.5 + 0.5 * wave, 0, 1)[..., None]
    return one * mixture + two * (1 - mixture)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return whether points are inside a shape of about unit radius; v points down."""
    r = np.hypot(u, v)
    match shape:
        case "disc":
            return r < 0.9
        case "square":
            return np.maximum(abs(u), abs(v)) < 0.8
        case "triangle":
            return (v < 0.7) & (2 * abs(u) - v < 1.1)
        case "star":
            # The angle from the nearest tip: 0 at a tip, pi / 5 in a notch.
            fold = abs((np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
            a, b = r * np.cos(fold), r * np.sin(fold)
            notch = 0.42 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
            return (a - 1) * notch[1] - b * (notch[0] - 1) < 0
        case "ring":
            return (r < 0.95) & (r > 0.55)
        case "cross":
            return (np.minimum(abs(u), abs(v)) < 0.28) & (r < 1)
        case "crescent":
            return (r < 1) & (np.hypot(u - 0.5, v) > 0.8)
        case "heart":
            a, b = 1.2 * u, -1.2 * v + 0.15
            return (a * a + b * b - 1) ** 3 - a * a * b**3 < 0
        case "bar":
            return (abs(u) < 1) & (abs(v) < 0.28)
        case "arch":
            return (r < 1) & (r > 0.5) & (v < 0.15)
    raise ValueError(f"{shape!r} is not a shape; available: {', '.join(SHAPES)}")
