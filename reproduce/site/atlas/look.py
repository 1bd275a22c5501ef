"""The page of one image, with the strongest images of its features from an atlas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.site.atlas import demos
from reproduce.site.atlas.files import prepare, read, save, write_page
from reproduce.site.atlas.index import constants, describe_network
from reproduce.site.atlas.sheets import (
    KINDS,
    ROWS,
    TOP,
    blocks,
    read_tiles,
    sheet_path,
    unit_tiles,
    write_picture,
)
from zfnet.attribution.registry import METHODS
from zfnet.data import no_progress
from zfnet.data.formats import read_image
from zfnet.model import Network, device_of
from zfnet.plot import GRAY, attribution_image, mosaic

FEATURES = 6  # per layer
LABELS = 5
ATTRIBUTIONS = ("grad_cam", "saliency")


@dataclass(frozen=True)
class Atlas:
    """An atlas of the same network, or the reason why there is none.

    Attributes:
        folder: Its folder.
        index: Its index, empty without an atlas.
        reason: Empty with an atlas.
    """

    folder: Path
    index: dict[str, Any]
    reason: str = ""

    def layer(self, name: str) -> dict[str, Any] | None:
        """The index of a layer; None if it is missing or not finished."""
        if not self.index or name in self.index["missing"]:
            return None
        return next((layer for layer in self.index["layers"] if layer["name"] == name), None)


def look(
    model: Network, name: str, image: Path, out: Path, atlas: Path, progress: Callable = no_progress
) -> Path:
    """Write the page of one image, and return it.

    Args:
        model: The network.
        name: Its name.
        image: An image file.
        out: The folder of the page. An earlier page of an image is replaced.
        atlas: The folder of an atlas. Its pictures are used if it shows the same network.
        progress: Wraps iterables.

    Raises:
        ImageError: The image cannot be read.
        DataError: As `describe_network`, or if `out` has other files.
    """
    x = zfnet.preprocess(read_image(image), model.size).to(device_of(model))
    layers, numbers = describe_network(model, None)
    prepare(out, "", look=True)
    page = write_page(out)
    neighbors = open_atlas(atlas, model)
    t = zfnet.trace(model, x)
    assert t.logits is not None
    for layer in progress(list(numbers), total=len(numbers), desc="layers"):
        save(out, layer, {"features": strongest(model, x, t[layer][0], layer, out, neighbors)})
    data = demos.record(model, x, None, out / "demos", "image", progress=progress)
    save(out, "image", data | {"name": image.name})

    probability = t.logits[0].softmax(0)
    best = probability.argsort(descending=True, stable=True)[:LABELS].tolist()
    index = neighbors.index
    about = {
        "name": image.name,
        "prediction": [[c, float(probability[c]), float(t.logits[0, c])] for c in best],
        "attributions": attributions(model, x, best[0], out),
        "atlas": f"{index['images']:,} images ({index['corpus']})" if index else "",
        "reason": neighbors.reason,
    }
    shared = {"missing": [], "network": name, "data": "", "look": about}
    save(out, "index", layers | constants() | shared)
    return page


def open_atlas(folder: Path, model: Network) -> Atlas:
    """Open the atlas of a network."""
    index = read(folder, "index")
    if index is None or "layers" not in index:
        reason = "There is no atlas with similar images; python -m reproduce atlas writes one."
        return Atlas(folder, {}, reason)
    if index["checkpoint"] != model.info["sha256"]:
        reason = "The atlas is of another network; python -m reproduce atlas writes one."
        return Atlas(folder, {}, reason)
    return Atlas(folder, index)


def strongest(
    model: Network, x: Tensor, maps: Tensor, layer: str, out: Path, atlas: Atlas
) -> list[dict[str, Any]]:
    """Write the pictures of the features of a layer that respond most to an image.

    Args:
        model: The network.
        x: The image (1, 3, H, W).
        maps: The layer's maps of the image (C, H, W).
        layer: The layer.
        out: The folder of the page.
        atlas: The folder to copy the features' strongest images from.

    Returns:
        Number, value, position and number of neighbors of each feature.
    """
    value, place = maps.flatten(1).max(1)  # (C,)
    chosen = value.argsort(descending=True, stable=True)[:FEATURES]
    chosen = chosen[value[chosen] > 0]
    if not len(chosen):
        return []
    position = torch.stack([place // maps.shape[2], place % maps.shape[2]], 1)[chosen]
    tiles = unit_tiles(model, x.expand(len(chosen), -1, -1, -1), layer, chosen, position)
    pairs = np.stack([tiles[kind] for kind in KINDS], 1)  # (F, 2, side, side, 3)
    sheet = mosaic(pairs.reshape(-1, *pairs.shape[2:]), len(KINDS), gap=0)
    write_picture(out / "sheets" / f"{layer}-own.webp", sheet)
    neighbors = copy_neighbors(atlas, layer, chosen.tolist(), out)
    return [
        {
            "number": number,
            "value": float(value[number]),
            "position": position[f].tolist(),
            "neighbors": neighbors[f],
        }
        for f, number in enumerate(chosen.tolist())
    ]


def copy_neighbors(atlas: Atlas, layer: str, features: list[int], out: Path) -> list[int]:
    """Copy the tiles of features from the sheets of an atlas into a sheet of the page.

    Returns:
        How many images each feature has; 0 if its sheets are missing or damaged.
    """
    listed = atlas.layer(layer)
    data = read(atlas.folder, layer) if listed else None
    counts = [0] * len(features)
    side = listed["side"] if listed else 1
    blank = np.full((len(features), TOP, side, side, 3), GRAY, dtype=np.float32)
    tiles = {kind: blank.copy() for kind in KINDS}
    for f, number in enumerate(features):
        if not (listed and data and number in listed["numbers"]):
            continue
        slot = listed["numbers"].index(number)
        with contextlib.suppress(OSError, ValueError):
            for kind in KINDS:
                path = sheet_path(atlas.folder / "sheets", layer, kind, slot)
                tiles[kind][f] = read_tiles(path, side)[slot % ROWS]
            counts[f] = len(data["features"][slot]["value"])
    if any(counts):
        for kind in KINDS:
            write_picture(out / "sheets" / f"{layer}-{kind}.webp", blocks(tiles[kind]))
    return counts


def attributions(model: Network, x: Tensor, target: int, out: Path) -> list[dict[str, str]]:
    """Write the attribution maps of a class as pictures, and return their captions."""
    shown = []
    for name in ATTRIBUTIONS:
        a = METHODS[name](model, x, target)
        picture, top = attribution_image(a.map.cpu())
        write_picture(out / "demos" / f"{name}.webp", picture[0])
        (state,) = a.state
        caption = f"brightest at {top[0]:.3g}" if state == "ok" else f"no evidence: map {state}"
        shown.append({"name": name, "file": f"demos/{name}.webp", "caption": caption})
    return shown
