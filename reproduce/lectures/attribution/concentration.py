"""How much of an attribution map is on the object."""

from __future__ import annotations

import torch

from reproduce.core.annotations import DISTRACTOR


def central_maps(n: int, side: int) -> torch.Tensor:
    """Maps that do not depend on an image: 1 in the center, falling evenly to 0 in the corners.

    Args:
        n: Number of maps.
        side: Their size.

    Returns:
        (n, 1, side, side).
    """
    from_middle = torch.arange(side) - (side - 1) / 2
    distance = (from_middle[:, None] ** 2 + from_middle**2).sqrt()
    return (1 - distance / distance.max()).expand(n, 1, -1, -1)


def object_mask(boxes: dict[str, list[list[int]]], size: torch.Size) -> torch.Tensor:
    """The pixels in a box of the object, (H, W) bool."""
    inside = torch.zeros(size, dtype=torch.bool)
    for top, left, bottom, right in (
        box for kind, relative in boxes.items() if kind != DISTRACTOR for box in relative
    ):
        inside[top:bottom, left:right] = True
    return inside


def concentration(maps: torch.Tensor, inside: torch.Tensor) -> float | None:
    """The share of |map| on the object, divided by the object's share of the image.

    Args:
        maps: (N, 1, H, W).
        inside: Masks of the objects (N, H, W).

    Returns:
        The mean over images with boxes; None without any.
    """
    mass = maps[:, 0].abs()
    share = (mass * inside).sum((1, 2)) / mass.sum((1, 2)).clamp_min(1e-30)
    area = inside.float().mean((1, 2))
    relative = (share / area)[area > 0]
    return float(relative.mean()) if len(relative) else None
