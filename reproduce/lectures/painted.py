"""Images in which shape and texture are at odds: each of one class, painted in the style of one of another.

Made by our own style transfer, once: they are kept in the cache, chunk by chunk, and an interrupted run continues.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from zfnet.data.cache import cached_array, digest
from zfnet.data.images import standardize, to_pixels
from zfnet.model import Network
from zfnet.synthesis.style import style_transfer

CHUNK = 8  # images in a file of the cache


def partners(target: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For each image, of class target (N,), one of another class whose style it gets: a random permutation (N,) of the images.

    Raises ValueError where a thousand draws do not find one: too many images are of one class.
    """
    for _ in range(1000):
        order = torch.randperm(len(target), generator=generator)
        if (target[order] != target).all():
            return order
    raise ValueError(
        f"{len(target)} images are of too few classes to pair each with one of another class"
    )


def paint(
    model: Network,
    x: torch.Tensor,
    style: torch.Tensor,
    *,
    side: int,
    progress: Callable,
    **options: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images x (N, 3, H, W) in the style of those numbered style (N,), made at `side` pixels and enlarged: like x.

    And how far each is from its content (N,), as `StyleTransfer.content`. `options` are those of
    `zfnet.synthesis.style.style_transfer`.
    """
    small, parts, away = resized(x, side), [], []
    for rows in torch.arange(len(x)).split(CHUNK):

        def fill(array: np.ndarray, rows=rows) -> dict:
            with torch.enable_grad():
                made = style_transfer(
                    model, small[rows], small[style[rows]], progress=progress, **options
                )  # pyright: ignore[reportArgumentType]
            array[:] = bytes_of(made.pixels)
            return {
                "content": made.content.tolist(),
                "style": {name: left.tolist() for name, left in made.style.items()},
            }

        seen = bytes_of(small[torch.cat([rows, style[rows]])]).tobytes()
        key = digest("painted", model.info["sha256"], side, sorted(options.items()), seen)
        pixels, about = cached_array(f"painted-{key[:20]}", (len(rows), side, side, 3), fill)
        parts.append(torch.from_numpy(np.array(pixels)))
        away += about["content"]
    return resized(
        standardize(torch.cat(parts).permute(0, 3, 1, 2)).to(x), x.shape[-1]
    ), torch.tensor(away)


def resized(x: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def bytes_of(x: torch.Tensor) -> np.ndarray:
    """Network inputs (N, 3, H, W) as uint8 (N, H, W, 3)."""
    return (255 * to_pixels(x.cpu())).round().byte().permute(0, 2, 3, 1).numpy()
