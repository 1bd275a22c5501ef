"""Images that are reduced to one cue: their parts, their outline, or their texture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from zfnet.analysis.cues import apply_mask, cover_parts, shuffle_parts, silhouettes, texture_patches

IMAGE, OUTLINE, TEXTURE = "image", "outline only", "texture only"


def variants(
    x: torch.Tensor, masks: torch.Tensor, config: Mapping[str, Any], seed: int
) -> dict[str, torch.Tensor]:
    """Remove cues from images.

    Args:
        x: Images (N, 3, H, W).
        masks: Outlines of their objects (N, H, W) bool.
        config: The grids of shuffled parts ("grids"), the shares of covered parts ("covered") and
            their grid ("covered grid"), and the size of texture patches ("patch").
        seed: Seed of the random order of parts.

    Returns:
        Images like x, by name of the variant.
    """
    rng = torch.Generator().manual_seed(seed)
    kinds = {
        IMAGE: x,
        "object only": apply_mask(x, masks),
        "background only": apply_mask(x, ~masks),
    }
    kinds |= {
        f"parts shuffled, {grid} x {grid}": shuffle_parts(x, grid, rng) for grid in config["grids"]
    }
    kinds |= {
        f"parts covered, {share:.0%}": cover_parts(x, config["covered grid"], share, rng)
        for share in config["covered"]
    }
    return kinds | {
        OUTLINE: silhouettes(masks),
        TEXTURE: texture_patches(x, masks, config["patch"], rng),
    }
