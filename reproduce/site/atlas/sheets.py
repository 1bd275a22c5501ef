"""Sheets of tiles: the patches of each feature's strongest images, and their projections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import zfnet
from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.data.io import atomic_write
from zfnet.model import Network, device_of
from zfnet.plot import GRAY, enlarge, filter_image, mosaic, photograph, projection_image
from zfnet.projection import patches_inside
from zfnet.ranking import Top, TopActivations
from zfnet.receptive_field import cut

MAX_SIDE = 90  # pixels of a tile
MIN_SIDE = 48  # smaller patches are enlarged, since WebP blurs single pixels
COLUMNS = 9  # tiles per feature: its strongest images
ROWS = 32  # features per sheet
SHEETS_PER_PASS = 4  # whose features are projected together
COVERS = 16  # features per row of the sheet of covers
KINDS = ("patches", "projections")
QUALITY = 60  # of WebP: 1,376 features of the sample photographs take less than 20 MB


def tile_side(field: int) -> int:
    """The side of a tile for a receptive field: its own size where that is 48 to 90 pixels."""
    return min(MAX_SIDE, field if field >= MIN_SIDE else field * -(-MIN_SIDE // field))


def write_picture(
    path: Path, image: np.ndarray, quality: int = QUALITY, lossless: bool = False
) -> None:
    """Write an image (H, W, 3) in [0, 1] as WebP, atomically."""
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    with atomic_write(path) as partial:
        picture.save(partial, "WEBP", quality=quality, method=4, lossless=lossless)


def read_tiles(path: Path, side: int) -> np.ndarray:
    """The tiles of a sheet (rows, columns, side, side, 3) in [0, 1]."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    return sheet.reshape(rows, side, columns, side, 3).swapaxes(1, 2)


def unit_tiles(
    model: Network, x: Tensor, layer: str, channel: Tensor, position: Tensor
) -> dict[str, np.ndarray]:
    """The patch in each unit's receptive field, and its projection.

    Args:
        model: The network.
        x: One image per unit (M, 3, H, W).
        layer: The layer of the units.
        channel: Their channels (M,).
        position: Their positions (M, 2).

    Returns:
        Tiles (M, side, side, 3) by kind. At the border, the nearest patch inside the image.
    """
    p = zfnet.project(model, x, layer, channel, position)
    field = zfnet.trace(model, x[:1], until=layer).receptive_field(layer).size
    projections, patches = patches_inside(p, x, field)
    images = (photograph(patches.cpu()), projection_image(projections.cpu()))
    return {
        kind: enlarge(tiles, tile_side(field)) for kind, tiles in zip(KINDS, images, strict=True)
    }


def write_layer(
    model: Network,
    images: Images,
    layer: str,
    top: Top,
    numbers: Sequence[int],
    folder: Path,
    progress: Callable = no_progress,
) -> None:
    """Write the missing sheets of a layer, one feature per row, then its sheets of covers.

    Args:
        model: The network.
        images: The corpus.
        layer: The layer.
        top: The strongest images of all its features.
        numbers: The features of the atlas.
        folder: Where the sheets are.
        progress: Wraps the iterable of groups of sheets.
    """
    x = images.batch([0]).to(device_of(model))
    field = zfnet.trace(model, x, until=layer).receptive_field(layer).size
    side, starts = tile_side(field), range(0, len(numbers), ROWS)
    groups = [starts[i : i + SHEETS_PER_PASS] for i in range(0, len(starts), SHEETS_PER_PASS)]
    for group in progress(groups, total=len(groups), desc=layer):
        paths = {
            (start, kind): sheet_path(folder, layer, kind, start)
            for start in group
            for kind in KINDS
        }
        if all(path.exists() for path in paths.values()):
            continue
        tiles = layer_tiles(model, images, layer, top, numbers[group[0] : group[-1] + ROWS], field)
        for (start, kind), path in paths.items():
            first = (start - group[0]) * COLUMNS
            sheet = mosaic(tiles[kind][first : first + ROWS * COLUMNS], COLUMNS, gap=0)
            if not path.exists():
                write_picture(path, sheet, lossless=side >= 3 * field)  # pixels are visible
    for kind in KINDS:
        path = folder / f"{layer}-covers-{kind}.webp"
        if not path.exists():
            sheets = [read_tiles(sheet_path(folder, layer, kind, start), side) for start in starts]
            write_picture(path, covers(np.concatenate(sheets)))


def sheet_path(folder: Path, layer: str, kind: str, slot: int) -> Path:
    """The sheet with the feature in a slot, its place among the features of the atlas."""
    return folder / f"{layer}-{kind}-{slot // ROWS}.webp"


def layer_tiles(
    model: Network, images: Images, layer: str, top: Top, numbers: Sequence[int], field: int
) -> dict[str, np.ndarray]:
    """The patches and projections of some features of a layer.

    Args:
        model: The network.
        images: The corpus.
        layer: The layer.
        top: The strongest images of all its features.
        numbers: The features.
        field: Size of the layer's receptive field.

    Returns:
        Tiles (features * COLUMNS, side, side, 3) by kind; gray where no image activates a feature.
    """
    side = tile_side(field)
    row = torch.full((len(top.index),), -1)
    row[list(numbers)] = torch.arange(len(numbers))
    active = (row[:, None] >= 0) & (top.value > 0)
    chosen = replace(top, index=torch.where(active, top.index, -1))
    blank = np.full((len(numbers) * COLUMNS, side, side, 3), GRAY, dtype=np.float32)
    tiles = {kind: blank.copy() for kind in KINDS}
    # project_top computes regions that units share in an image once.
    batches = zfnet.project_top(model, images, TopActivations({layer: chosen}, len(images)), layer)
    for _, rank, p in batches:
        channel, rank, corner = p.channel.cpu(), rank.cpu(), p.corner.cpu()
        x = images.batch(top.index[channel, rank])
        inside = corner.clamp(0, x.shape[-1] - field)  # the nearest patch inside the image
        projections = cut(p.pixels.cpu(), inside - corner, field)
        slots = (row[channel] * COLUMNS + rank).numpy()
        tiles["patches"][slots] = enlarge(photograph(cut(x, inside, field)), side)
        tiles["projections"][slots] = enlarge(projection_image(projections), side)
    return tiles


def covers(tiles: np.ndarray) -> np.ndarray:
    """Combine the nine tiles of each feature (features, 9, side, side, 3) into one.

    Returns:
        An image with COVERS tiles of MAX_SIDE pixels per row.
    """
    third = MAX_SIDE // 3
    blocks = [mosaic(enlarge(nine, third), 3, gap=0) for nine in tiles]
    return mosaic(np.stack(blocks), COVERS, gap=0, background=GRAY)


def write_filters(weight: Tensor, numbers: Sequence[int], path: Path) -> None:
    """Write the filters of a first layer, COVERS per row, enlarged by a whole number of pixels."""
    tiles = filter_image(weight[list(numbers)].detach().cpu())
    sheet = mosaic(enlarge(tiles, tile_side(tiles.shape[1])), COVERS, gap=0, background=GRAY)
    write_picture(path, sheet, lossless=True)
