"""Images with conflicting shape and texture: each is painted in the style of another class.

They are made by this project's style transfer and cached in chunks, so an interrupted run
continues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.context import Context
from zfnet.analysis.decisions import CueConflict, confidence, cue_conflict
from zfnet.data.cache import cached_array, digest
from zfnet.data.images import standardize, to_pixels
from zfnet.model import Network
from zfnet.synthesis.style import style_transfer

CHUNK = 8  # images per cache file


class Conflict(NamedTuple):
    """Images that are painted in the style of images of other classes.

    Attributes:
        style: The index of each image's style (N,).
        painted: The painted images, like x.
        logits: Their logits (N, classes).
        distance: Their distances from the content (N,).
        two_choice: CueConflict among the classes of these images.
        open_choice: CueConflict among all outputs.
    """

    style: torch.Tensor
    painted: torch.Tensor
    logits: torch.Tensor
    distance: torch.Tensor
    two_choice: CueConflict
    open_choice: CueConflict


def paint_conflict(
    ctx: Context, x: torch.Tensor, target: torch.Tensor, seed: int, options: dict[str, Any]
) -> Conflict:
    """Paint images in each other's styles, and predict them.

    Args:
        ctx: The network.
        x: Images (N, 3, H, W).
        target: Their classes (N,).
        seed: Seed of the assignment of styles.
        options: Options of `paint`.
    """
    style = partners(target.cpu(), torch.Generator().manual_seed(seed))
    painted, distance = paint(ctx.model, x, style, progress=ctx.progress, **options)
    logits = confidence(ctx.model, painted, target).logits
    two_choice = cue_conflict(logits, target, target[style], target.unique())
    open_choice = cue_conflict(logits, target, target[style])
    return Conflict(style, painted, logits, distance, two_choice, open_choice)


def partners(target: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Assign each image the style of an image of another class, each style once.

    Args:
        target: Classes (N,).
        generator: Draws the permutation.

    Returns:
        A permutation (N,) of the images.

    Raises:
        ValueError: A thousand draws find none, since too many images have the same class.
    """
    for _ in range(1000):
        order = torch.randperm(len(target), generator=generator)
        if (target[order] != target).all():
            return order
    raise ValueError(
        f"{len(target)} images have too few classes to pair each with an image of another class"
    )


def paint(
    model: Network,
    x: torch.Tensor,
    style: torch.Tensor,
    *,
    side: int,
    progress: Callable,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint images in the style of others, or read them from the cache.

    Args:
        model: The network.
        x: Images (N, 3, H, W).
        style: The index of each image's style (N,).
        side: The resolution at which they are painted.
        progress: Wraps iterables.
        options: Options of `zfnet.synthesis.style.style_transfer`.

    Returns:
        The painted images, resized to the size of x, and their distances from the content (N,).
    """
    small, chunks, distances = resize(x, side), [], []
    for rows in torch.arange(len(x)).split(CHUNK):

        def fill(array: np.ndarray, rows=rows) -> dict:
            with torch.enable_grad():
                result = style_transfer(
                    model, small[rows], small[style[rows]], progress=progress, **options
                )
            array[:] = to_uint8(result.pixels)
            assert result.content is not None
            return {
                "content": result.content.tolist(),
                "style": {name: distance.tolist() for name, distance in result.style.items()},
            }

        pixels_of = to_uint8(small[torch.cat([rows, style[rows]])]).tobytes()
        key = digest("painted", model.info["sha256"], side, sorted(options.items()), pixels_of)
        pixels, info = cached_array(f"painted-{key[:20]}", (len(rows), side, side, 3), fill)
        chunks.append(torch.from_numpy(np.array(pixels)))
        distances += info["content"]
    painted = standardize(torch.cat(chunks).permute(0, 3, 1, 2)).to(x)
    return resize(painted, x.shape[-1]), torch.tensor(distances)


def resize(x: torch.Tensor, side: int) -> torch.Tensor:
    """Resize images (N, 3, H, W) to a square."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """Network inputs (N, 3, H, W) as uint8 (N, H, W, 3)."""
    return (255 * to_pixels(x.cpu())).round().byte().permute(0, 2, 3, 1).numpy()
