"""Sprites: the patches of every feature's strongest images and their projections, a few dozen features to a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import zfnet
from zfnet.data import no_progress
from zfnet.data.cache import Images
from zfnet.model import Network, device_of
from zfnet.plot import GRAY, enlarge, filter_image, mosaic, photograph, projection_image
from zfnet.projection import patches_inside
from zfnet.ranking import Top, TopActivations
from zfnet.receptive_field import cut

LARGEST, SMALLEST = (
    90,
    48,
)  # pixels of a tile; the patches of low layers are enlarged, for the compression blurs by pixels
COLUMNS = 9  # tiles of a feature: its strongest images
ROWS = 32  # features of a sheet
TOGETHER = 4  # sheets whose features are projected together
COVERS = 16  # features in a row of the sheet from which the grid of a layer is drawn
KINDS = ("patches", "projections")
QUALITY = 60  # of WebP: all 1,376 features on the sample photographs stay below 20 MB


def tile_side(field: int) -> int:
    """The side at which patches of a receptive field are kept: the field's, but from 48 to 90 pixels."""
    return min(LARGEST, field if field >= SMALLEST else field * -(-SMALLEST // field))


def write_picture(
    path: Path, image: np.ndarray, quality: int = QUALITY, lossless: bool = False
) -> None:
    """Write an image (H, W, 3) in [0, 1] as WebP, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    picture.save(partial, "WEBP", quality=quality, method=4, lossless=lossless)
    os.replace(partial, path)


def read_tiles(path: Path, side: int) -> np.ndarray:
    """The tiles of a sheet (rows, columns, side, side, 3) in [0, 1]."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    return sheet.reshape(rows, side, columns, side, 3).swapaxes(1, 2)


def seen(
    model: Network, x: Tensor, layer: str, channel: Tensor, position: Tensor
) -> dict[str, np.ndarray]:
    """What units saw, and its projection, as tiles (M, side, side, 3): of images x (M, 3, H, W) at position (M, 2).

    At the border the patch is the one that lies inside the image.
    """
    p = zfnet.project(model, x, layer, channel, position)
    field = zfnet.trace(model, x[:1], until=layer).receptive_field(layer).size
    projections, patches = patches_inside(p, x, field)
    shown = (photograph(patches.cpu()), projection_image(projections.cpu()))
    return {
        kind: enlarge(tiles, tile_side(field)) for kind, tiles in zip(KINDS, shown, strict=True)
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
    """Write a layer's missing sheets: one feature per row, ROWS per sheet; then the sheet of covers.

    Where no image excites a feature its tiles are gray.
    """
    field = (
        zfnet.trace(model, images.batch([0]).to(device_of(model)), until=layer)
        .receptive_field(layer)
        .size
    )
    side, starts = tile_side(field), range(0, len(numbers), ROWS)
    groups = [starts[i : i + TOGETHER] for i in range(0, len(starts), TOGETHER)]
    for group in progress(groups, total=len(groups), desc=layer):
        paths = {
            (start, kind): folder / f"{layer}-{kind}-{start // ROWS}.webp"
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
                write_picture(path, sheet, lossless=side >= 3 * field)  # pixels seen as such
    for kind in KINDS:
        path = folder / f"{layer}-covers-{kind}.webp"
        if not path.exists():
            tiles = np.concatenate(
                [
                    read_tiles(folder / f"{layer}-{kind}-{start // ROWS}.webp", side)
                    for start in starts
                ]
            )
            write_picture(path, covers(tiles))


def layer_tiles(
    model: Network, images: Images, layer: str, top: Top, numbers: Sequence[int], field: int
) -> dict[str, np.ndarray]:
    """What features saw in their strongest images, and the projections: tiles (features x COLUMNS, side, side, 3) by kind.

    `project_top` projects all of them together, and computes what they share of an image once.
    """
    side = tile_side(field)
    row = torch.full((len(top.index),), -1)
    row[list(numbers)] = torch.arange(len(numbers))
    excited = (row[:, None] >= 0) & (top.value > 0)
    chosen = replace(top, index=torch.where(excited, top.index, -1))
    tiles = {
        kind: np.full((len(numbers) * COLUMNS, side, side, 3), GRAY, dtype=np.float32)
        for kind in KINDS
    }
    for _, rank, p in zfnet.project_top(
        model, images, TopActivations({layer: chosen}, len(images)), layer
    ):
        channel, rank, corner = p.channel.cpu(), rank.cpu(), p.corner.cpu()
        x = images.batch(top.index[channel, rank])
        inside = corner.clamp(
            0, x.shape[-1] - field
        )  # at the border, the nearest patch inside the image
        projections = cut(p.pixels.cpu(), inside - corner, field)
        places = (row[channel] * COLUMNS + rank).numpy()
        tiles[KINDS[0]][places] = enlarge(photograph(cut(x, inside, field)), side)
        tiles[KINDS[1]][places] = enlarge(projection_image(projections), side)
    return tiles


def covers(tiles: np.ndarray) -> np.ndarray:
    """One tile a feature, of its nine: (features, 9, side, side, 3) to an image of COVERS tiles of 90 pixels per row."""
    third = LARGEST // 3
    blocks = [mosaic(enlarge(nine, third), 3, gap=0) for nine in tiles]
    return mosaic(np.stack(blocks), COVERS, gap=0, background=GRAY)


def write_filters(weight: Tensor, numbers: Sequence[int], path: Path) -> None:
    """The filters of a first layer, COVERS a row, each enlarged to a tile, exactly: their pixels can be counted."""
    tiles = filter_image(weight[list(numbers)].detach().cpu())
    write_picture(
        path,
        mosaic(enlarge(tiles, tile_side(tiles.shape[1])), COVERS, gap=0, background=GRAY),
        lossless=True,
    )
