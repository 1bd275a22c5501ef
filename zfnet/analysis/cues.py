"""Images with a single cue left: the parts of an object, its outline, or its texture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.data.images import standardize


def split_tiles(x: Tensor, grid: int) -> Tensor:
    """Split images into grid x grid tiles, in reading order.

    Args:
        x: Images (N, C, H, W).
        grid: The number of tiles per side; it must divide H and W.

    Returns:
        Tiles (N, grid * grid, C, H / grid, W / grid).

    Raises:
        ValueError: If the grid does not divide the image.

    Example:
        >>> split_tiles(torch.zeros(1, 3, 8, 8), 2).shape
        torch.Size([1, 4, 3, 4, 4])
    """
    n, channels, height, width = x.shape
    if grid < 1 or height % grid or width % grid:
        raise ValueError(
            f"a grid of {grid} x {grid} tiles does not divide an image of {height} x {width} pixels"
        )
    h, w = height // grid, width // grid
    tiles = x.reshape(n, channels, grid, h, grid, w).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(n, grid * grid, channels, h, w)


def join_tiles(tiles: Tensor) -> Tensor:
    """Join tiles into images; the inverse of `split_tiles`.

    Args:
        tiles: Tiles (N, grid * grid, C, h, w), in reading order.

    Returns:
        Images (N, C, grid * h, grid * w).

    Example:
        >>> join_tiles(torch.zeros(1, 4, 3, 4, 4)).shape
        torch.Size([1, 3, 8, 8])
    """
    n, count, channels, height, width = tiles.shape
    grid = round(count**0.5)
    rows = tiles.reshape(n, grid, grid, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(n, channels, grid * height, grid * width)


def shuffle_parts(x: Tensor, grid: int, generator: torch.Generator) -> Tensor:
    """Split each image into grid x grid tiles, and shuffle them.

    Every part remains, but their arrangement is lost. Zhang & Zhu 2019, "Interpreting adversarially
    trained convolutional neural networks" (patch shuffling). Permutations are uniform, and include
    the identity.

    Args:
        x: Images (N, C, H, W).
        grid: The number of tiles per side; it must divide H and W.
        generator: The source of randomness; each image gets its own permutation.

    Returns:
        Images (N, C, H, W).

    Raises:
        ValueError: If the grid does not divide the image.

    Example:
        >>> shuffle_parts(torch.zeros(1, 3, 8, 8), 2, torch.Generator()).shape
        torch.Size([1, 3, 8, 8])
    """
    tiles = split_tiles(x, grid)
    order = _random_order(tiles, generator)
    return join_tiles(tiles[torch.arange(len(x), device=x.device)[:, None], order])


def cover_parts(
    x: Tensor, grid: int, share: float, generator: torch.Generator, fill: float = 0.0
) -> Tensor:
    """Cover a random share of the grid x grid tiles of each image.

    The counterpart of `shuffle_parts`: parts keep their places, but some are missing. Zeiler &
    Fergus, section 4.2, cover one square.

    Args:
        x: Images (N, C, H, W).
        grid: The number of tiles per side; it must divide H and W.
        share: The share of tiles to cover, in [0, 1]; rounded to whole tiles.
        generator: The source of randomness; each image gets its own tiles.
        fill: The value of covered pixels; 0 is the mean gray.

    Returns:
        Images (N, C, H, W).

    Raises:
        ValueError: If the grid does not divide the image, or share is outside [0, 1].

    Example:
        >>> cover_parts(torch.ones(1, 3, 8, 8), 2, 0.5, torch.Generator()).mean()
        tensor(0.5000)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share, of the tiles to cover, must be in [0, 1], got {share}")
    tiles = split_tiles(x, grid)
    rank = _random_order(tiles, generator).argsort(1)
    covered = rank < round(share * grid * grid)  # (N, grid * grid)
    return join_tiles(torch.where(covered[:, :, None, None, None], fill, tiles))


def _random_order(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random permutation of each image's tiles (N, grid * grid)."""
    keys = torch.rand(tiles.shape[:2], generator=generator, device=generator.device)
    return keys.argsort(1).to(tiles.device)


def silhouettes(mask: Tensor) -> Tensor:
    """Draw objects in black on white, so that only their outlines remain.

    Geirhos et al. 2019, "ImageNet-trained CNNs are biased towards texture", section 2.

    Args:
        mask: Objects (N, H, W), bool.

    Returns:
        Network inputs (N, 3, H, W).

    Raises:
        ValueError: If the mask is not bool (N, H, W), or empty in an image.

    Example:
        >>> silhouettes(torch.ones(1, 8, 8, dtype=torch.bool)).shape
        torch.Size([1, 3, 8, 8])
    """
    check_mask(mask)
    return standardize(torch.where(mask, 0, 255).to(torch.uint8)[:, None].expand(-1, 3, -1, -1))


def texture_patches(x: Tensor, mask: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Tile each image with random square patches of its object.

    The object's texture remains; its outline, any arrangement above `side` pixels and the
    background are lost. After Gatys, Ecker & Bethge 2017, "Texture and art with deep neural
    networks", and Brendel & Bethge 2019. Patches are drawn from those that the object covers
    completely, or, if there are none, from those that it covers most.

    Args:
        x: Images (N, 3, H, W).
        mask: Objects (N, H, W), bool.
        side: The side of a patch, in pixels; it must divide H and W.
        generator: The source of randomness.

    Returns:
        Images (N, 3, H, W).

    Raises:
        ValueError: If the mask does not fit the images, or side does not divide them.

    Example:
        >>> x, mask = torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
        >>> texture_patches(x, mask, 4, torch.Generator()).shape
        torch.Size([1, 3, 8, 8])
    """
    check_mask(mask, x)
    n, channels, height, width = x.shape
    if side < 1 or height % side or width % side:
        raise ValueError(
            f"the side of a patch must divide the image: {side} does not divide {height} x {width}"
        )
    rows, columns = height // side, width // side
    corners = _patch_corners(mask, side, rows * columns, generator).to(x.device)  # (N, count, 2)
    offset = torch.arange(side, device=x.device)
    row, column = (corners[:, :, i, None] + offset for i in (0, 1))  # (N, count, side)
    image = torch.arange(n, device=x.device)[:, None, None, None]
    patches = x[image, :, row[..., None], column[:, :, None]]  # (N, count, side, side, C)
    patches = patches.reshape(n, rows, columns, side, side, channels).permute(0, 5, 1, 3, 2, 4)
    return patches.reshape(n, channels, height, width)


def _patch_corners(mask: Tensor, side: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw the top-left corners (N, count, 2) of patches that the object covers most."""
    coverage = F.avg_pool2d(mask[:, None].double(), side, 1)[:, 0]  # (N, H - side + 1, ...)
    columns = coverage.shape[-1]
    coverage = coverage.flatten(1)
    allowed = coverage >= coverage.amax(1, keepdim=True).clamp_max(1) - 1e-9
    weights = allowed.to(generator.device).double()
    index = torch.multinomial(weights, count, replacement=True, generator=generator)  # (N, count)
    return torch.stack([index // columns, index % columns], -1)


def apply_mask(x: Tensor, mask: Tensor, fill: float = 0.0) -> Tensor:
    """Replace the pixels outside a mask.

    Args:
        x: Images (N, C, H, W).
        mask: The pixels to keep (N, H, W), bool.
        fill: The value of the other pixels; 0 is the mean gray.

    Returns:
        Images (N, C, H, W).

    Raises:
        ValueError: If the mask does not fit the images, or is empty in one of them.

    Example:
        >>> apply_mask(torch.ones(1, 1, 2, 2), torch.eye(2, dtype=torch.bool)[None])[0, 0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    check_mask(mask, x)
    return torch.where(mask[:, None], x, fill)


def check_mask(mask: Tensor, x: Tensor | None = None) -> None:
    """Raise ValueError unless a mask is bool (N, H, W), fits the images x, and is never empty."""
    expected = "(N, H, W)" if x is None else str((len(x), *x.shape[2:]))
    fits = mask.ndim == 3 and (x is None or mask.shape == (len(x), *x.shape[2:]))
    if mask.dtype != torch.bool or not fits:
        raise ValueError(f"the mask must be bool {expected}, got {mask.dtype} {tuple(mask.shape)}")
    empty = ~mask.flatten(1).any(1)
    if empty.any():
        raise ValueError(f"the mask is empty in image {int(empty.nonzero()[0])}")
