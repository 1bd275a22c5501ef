"""A look inside, for one image of the reader's: the atlas's kind of page, with neighbours from an atlas where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.atlas import constants, demos, describe_network
from reproduce.atlas.sheets import COLUMNS, KINDS, QUALITY, ROWS, read_tiles, seen, write_picture
from reproduce.atlas.site import prepare, read, save, shell
from zfnet.attribution.registry import METHODS
from zfnet.data import no_progress
from zfnet.data.images import read_image
from zfnet.model import Network, device_of
from zfnet.plot import GRAY, attribution_image, mosaic

FEATURES = 6  # of each layer
LABELS = 5
ATTRIBUTIONS = ("grad_cam", "saliency")  # of zfnet.METHODS, those that the page shows


def look(
    model: Network, name: str, image: Path, out: Path, atlas: Path, progress: Callable = no_progress
) -> Path:
    """Write the page of one image to `out`, and return it. `name` is the network's, `atlas` the folder of an atlas.

    Neighbours are shown where that is an atlas of the same network; else the page says why not.
    Raises ImageError for an image that cannot be read, DataError as `describe_network`, and where `out` holds something else.
    """
    x = zfnet.preprocess(read_image(image), model.size).to(device_of(model))
    layers, numbers = describe_network(model, None)
    prepare(out, "", look=True)  # an earlier one is replaced
    page = shell(out)
    there, reason = neighbourhood(atlas, model)
    t = zfnet.trace(model, x)
    probability = t.logits[0].softmax(0)
    best = probability.argsort(descending=True, stable=True)[:LABELS].tolist()
    for layer in progress(list(numbers), total=len(numbers), desc="layers"):
        save(out, layer, {"features": strongest(model, x, t[layer][0], layer, out, atlas, there)})
    save(
        out,
        "image",
        demos.record(model, x, None, out / "demos", "image", progress) | {"name": image.name},
    )
    save(out, "index", layers | constants() | {
        "missing": [], "network": name, "data": "", "look": {
            "name": image.name, "prediction": [[c, float(probability[c]), float(t.logits[0, c])] for c in best],
            "attributions": attributions(model, x, best[0], out),
            "atlas": f"{there['images']:,} images ({there['corpus']})" if there else "", "why": reason,
        },
    })  # fmt: skip
    return page


def neighbourhood(atlas: Path, model: Network) -> tuple[dict, str]:
    """The index of an atlas of this network, or an empty one and what is to be said instead."""
    index = read(atlas, "index")
    if index is None or "layers" not in index:
        return {}, "There is no atlas to take neighbours from: python -m reproduce atlas makes one."
    if index["checkpoint"] != model.info["sha256"]:
        return (
            {},
            "The atlas there is of another network, so that its features are no neighbours of these.",
        )
    return index, ""


def strongest(
    model: Network, x: Tensor, maps: Tensor, layer: str, out: Path, atlas: Path, there: dict
) -> list[dict]:
    """The features of a layer that the image excites most, with their pictures: its own, and its neighbours' in the atlas."""
    value, place = maps.flatten(1).max(1)  # (C,)
    chosen = value.argsort(descending=True, stable=True)[:FEATURES]
    chosen = chosen[value[chosen] > 0]
    position = torch.stack([place // maps.shape[2], place % maps.shape[2]], 1)[chosen]
    if not len(chosen):
        return []
    own = seen(model, x.expand(len(chosen), -1, -1, -1), layer, chosen, position)
    pairs = np.stack([own[kind] for kind in KINDS], 1)  # (F, 2, side, side, 3)
    write_picture(
        out / "sheets" / f"{layer}-own.webp",
        mosaic(pairs.reshape(-1, *pairs.shape[2:]), len(KINDS), gap=0),
    )
    listed = next(
        (
            item
            for item in there.get("layers", [])
            if item["name"] == layer and layer not in there["missing"]
        ),
        None,
    )
    data = read(atlas, layer) if listed else None
    features = []
    rows = {
        kind: np.full((len(chosen), COLUMNS, *pairs.shape[2:]), GRAY, dtype=np.float32)
        for kind in KINDS
    }
    for f, number in enumerate(chosen.tolist()):
        found = 0
        if listed and data and number in listed["numbers"]:
            slot = listed["numbers"].index(number)
            with contextlib.suppress(
                OSError
            ):  # a sheet that is missing or damaged has no neighbours to show
                for kind in KINDS:
                    tiles = read_tiles(
                        atlas / "sheets" / f"{layer}-{kind}-{slot // ROWS}.webp", listed["side"]
                    )
                    rows[kind][f] = tiles[slot % ROWS]
                found = len(data["features"][slot]["value"])
        features.append({
            "number": number, "value": float(value[number]), "position": position[f].tolist(), "neighbours": found,
        })  # fmt: skip
    if any(feature["neighbours"] for feature in features):
        for kind in KINDS:
            tiles = rows[kind].reshape(-1, *pairs.shape[2:])
            write_picture(out / "sheets" / f"{layer}-{kind}.webp", mosaic(tiles, COLUMNS, gap=0))
    return features


def attributions(model: Network, x: Tensor, target: int, out: Path) -> list[dict]:
    """Maps of what speaks for a class, as pictures, and what is to be said of each."""
    shown = []
    for name in ATTRIBUTIONS:
        a = METHODS[name](model, x, target)
        picture, top = attribution_image(a.map.cpu())
        write_picture(out / "demos" / f"{name}.webp", picture[0], quality=QUALITY)
        (state,) = a.state
        said = (
            f"brightest from {top[0]:.3g}"
            if state == "ok"
            else f"the map is {state}: it says nothing of this image"
        )
        shown.append({"name": name, "file": f"demos/{name}.webp", "said": said})
    return shown
