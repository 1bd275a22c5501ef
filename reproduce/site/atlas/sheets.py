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
from reproduce.site.atlas.layout import FULL, TOP, Layout, tile_side
from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.data.io import atomic_write
from zfnet.model import Network, device_of
from zfnet.plot import GRAY, enlarge, filter_image, mosaic, photograph, projection_image
from zfnet.projection import patches_inside
from zfnet.ranking import Top, TopActivations
from zfnet.receptive_field import cut

BLOCK = 3  # tiles per side of a feature's block
ROWS = 32  # features per sheet
ACROSS = 8  # features per row of a sheet
SHEETS_PER_PASS = 4  # whose features are projected together
FILTERS = 16  # filters per row of their sheet
SMALL = 16  # smaller receptive fields are shown with sharp pixels, and stored without loss
KINDS = ("patches", "projections")


def write_picture(
    path: Path, image: np.ndarray, quality: int = FULL.quality, lossless: bool = False
) -> None:
    """Write an image (H, W, 3) in [0, 1] as WebP, atomically."""
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    with atomic_write(path) as partial:
        picture.save(partial, "WEBP", quality=quality, method=6, lossless=lossless)


def blocks(tiles: np.ndarray) -> np.ndarray:
    """A sheet of blocks of 3 x 3 tiles, ACROSS features per row.

    Args:
        tiles: The tiles of the features (F, TOP, side, side, 3).
    """
    nines = np.stack([mosaic(nine, BLOCK, gap=0) for nine in tiles])
    return mosaic(nines, ACROSS, gap=0, background=GRAY)


def read_tiles(path: Path, side: int) -> np.ndarray:
    """The tiles of a sheet (features, TOP, side, side, 3) in [0, 1]; the last may be empty."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    rows = sheet.shape[0] // (BLOCK * side)
    tiles = sheet.reshape(rows, BLOCK, side, ACROSS, BLOCK, side, 3)
    # (rows, across, tile row, tile column, side, side, 3)
    return tiles.transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, TOP, side, side, 3)


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
    layout: Layout = FULL,
    progress: Callable = no_progress,
) -> None:
    """Write the missing sheets of a layer, ROWS features per sheet.

    Args:
        model: The network.
        images: The corpus.
        layer: The layer.
        top: The strongest images of all its features.
        numbers: The features of the atlas.
        folder: Where the sheets are.
        layout: Sizes and quality.
        progress: Wraps the iterable of groups of sheets.
    """
    x = images.batch([0]).to(device_of(model))
    field = zfnet.trace(model, x, until=layer).receptive_field(layer).size
    side, starts = tile_side(field, layout), range(0, len(numbers), ROWS)
    groups = [starts[i : i + SHEETS_PER_PASS] for i in range(0, len(starts), SHEETS_PER_PASS)]
    for group in progress(groups, total=len(groups), desc=layer):
        paths = {
            (start, kind): sheet_path(folder, layer, kind, start)
            for start in group
            for kind in KINDS
        }
        if all(path.exists() for path in paths.values()):
            continue
        chosen = numbers[group[0] : group[-1] + ROWS]
        tiles = layer_tiles(model, images, layer, top, chosen, field, side)
        for (start, kind), path in paths.items():
            first = start - group[0]
            sheet = blocks(tiles[kind][first : first + ROWS])
            if not path.exists():
                quality = layout.quality if kind == "patches" else layout.fine_quality
                write_picture(path, sheet, quality, lossless=field < SMALL)


def sheet_path(folder: Path, layer: str, kind: str, slot: int) -> Path:
    """The sheet with the feature in a slot, its place among the features of the atlas."""
    return folder / f"{layer}-{kind}-{slot // ROWS}.webp"


def layer_tiles(
    model: Network,
    images: Images,
    layer: str,
    top: Top,
    numbers: Sequence[int],
    field: int,
    side: int,
) -> dict[str, np.ndarray]:
    """The patches and projections of some features of a layer.

    Args:
        model: The network.
        images: The corpus.
        layer: The layer.
        top: The strongest images of all its features.
        numbers: The features.
        field: Size of the layer's receptive field.
        side: Side of a tile.

    Returns:
        Tiles (features, TOP, side, side, 3) by kind; gray where no image activates a feature.
    """
    row = torch.full((len(top.index),), -1)
    row[list(numbers)] = torch.arange(len(numbers))
    active = (row[:, None] >= 0) & (top.value > 0)
    chosen = replace(top, index=torch.where(active, top.index, -1))
    blank = np.full((len(numbers), TOP, side, side, 3), GRAY, dtype=np.float32)
    tiles = {kind: blank.copy() for kind in KINDS}
    # project_top computes regions that units share in an image once.
    batches = zfnet.project_top(model, images, TopActivations({layer: chosen}, len(images)), layer)
    for _, rank, p in batches:
        channel, rank, corner = p.channel.cpu(), rank.cpu(), p.corner.cpu()
        x = images.batch(top.index[channel, rank])
        inside = corner.clamp(0, x.shape[-1] - field)  # the nearest patch inside the image
        projections = cut(p.pixels.cpu(), inside - corner, field)
        slots = row[channel].numpy(), rank.numpy()
        tiles["patches"][slots] = enlarge(photograph(cut(x, inside, field)), side)
        tiles["projections"][slots] = enlarge(projection_image(projections), side)
    return tiles


def write_filters(weight: Tensor, numbers: Sequence[int], path: Path) -> None:
    """Write the filters of a first layer, FILTERS per row, enlarged by a whole number of pixels."""
    tiles = filter_image(weight[list(numbers)].detach().cpu())
    sheet = mosaic(enlarge(tiles, tile_side(tiles.shape[1])), FILTERS, gap=0, background=GRAY)
    write_picture(path, sheet, lossless=True)
