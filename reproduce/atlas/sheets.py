"""Sprites: the patches of every feature's strongest images and their projections, a few dozen features to a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import zfnet
from zfnet.data import silent
from zfnet.data.cache import Images
from zfnet.model import Network, device_of
from zfnet.plot import GREY, enlarge, filter_image, mosaic, photograph, projection_image
from zfnet.projection import patches_inside
from zfnet.ranking import Top

LARGEST, SMALLEST = 96, 48  # pixels of a tile; the patches of low layers are enlarged, for the compression blurs by pixels
COLUMNS = 9  # tiles of a feature: its strongest images
ROWS = 32  # features of a sheet
COVERS = 16  # features in a row of the sheet from which the grid of a layer is drawn
KINDS = ("patches", "projections")
QUALITY = 80  # of WebP


def tile_side(field: int) -> int:
    """The side at which patches of a receptive field are kept: the field's, but from 48 to 96 pixels."""
    return min(LARGEST, field if field >= SMALLEST else field * -(-SMALLEST // field))


def write_picture(path: Path, image: np.ndarray, quality: int = QUALITY, lossless: bool = False) -> None:
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


def seen(model: Network, x: Tensor, layer: str, channel: Tensor, position: Tensor) -> dict[str, np.ndarray]:
    """What units saw, and its projection, as tiles (M, side, side, 3): of images x (M, 3, H, W) at position (M, 2).

    At the border the patch is the one that lies inside the image.
    """
    p = zfnet.project(model, x, layer, channel, position)
    field = zfnet.trace(model, x[:1], until=layer).receptive_field(layer).size
    projections, patches = patches_inside(p, x, field)
    shown = (photograph(patches.cpu()), projection_image(projections.cpu()))
    return {kind: enlarge(tiles, tile_side(field)) for kind, tiles in zip(KINDS, shown, strict=True)}


def write_layer(
    model: Network, images: Images, layer: str, top: Top, numbers: Sequence[int], folder: Path, progress: Callable = silent
) -> None:
    """Write a layer's sheets, those that are not there yet: ROWS features each, one a row; then the sheet of covers.

    Where no image excites a feature its tiles are grey.
    """
    device = device_of(model)
    field = zfnet.trace(model, images.batch([0]).to(device), until=layer).receptive_field(layer).size
    side, starts = tile_side(field), range(0, len(numbers), ROWS)
    for start in progress(starts, total=len(starts), desc=layer):
        paths = {kind: folder / f"{layer}-{kind}-{start // ROWS}.webp" for kind in KINDS}
        if all(path.exists() for path in paths.values()):
            continue
        rows = torch.tensor(numbers[start : start + ROWS])
        sheets = {kind: np.full((len(rows) * COLUMNS, side, side, 3), GREY, dtype=np.float32) for kind in KINDS}
        excited = (top.value[rows] > 0).flatten().nonzero()[:, 0]
        for some in excited.split(64):
            channel, rank = rows[some // COLUMNS], some % COLUMNS
            x = images.batch(top.index[channel, rank]).to(device)
            tiles = seen(model, x, layer, channel.to(device), top.position[channel, rank].long().to(device))
            for kind in KINDS:
                sheets[kind][some.numpy()] = tiles[kind]
        for kind in KINDS:
            write_picture(paths[kind], mosaic(sheets[kind], COLUMNS, gap=0), lossless=side >= 3 * field)  # pixels seen as such
    for kind in KINDS:
        path = folder / f"{layer}-covers-{kind}.webp"
        if not path.exists():
            tiles = np.concatenate([read_tiles(folder / f"{layer}-{kind}-{start // ROWS}.webp", side) for start in starts])
            write_picture(path, covers(tiles))


def covers(tiles: np.ndarray) -> np.ndarray:
    """One tile a feature, of its nine: (features, 9, side, side, 3) to an image of COVERS tiles of 96 pixels a row."""
    third = LARGEST // 3
    blocks = [mosaic(enlarge(nine, third), 3, gap=0) for nine in tiles]
    return mosaic(np.stack(blocks), COVERS, gap=0, background=GREY)


def write_filters(weight: Tensor, numbers: Sequence[int], path: Path) -> None:
    """The filters of a first layer, COVERS a row, each enlarged to a tile, exactly: their pixels can be counted."""
    tiles = filter_image(weight[list(numbers)].detach().cpu())
    write_picture(path, mosaic(enlarge(tiles, tile_side(tiles.shape[1])), COVERS, gap=0, background=GREY), lossless=True)
