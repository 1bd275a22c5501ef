"""The index of an atlas: the network, its layers and classes, and the script's constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from reproduce.site.atlas import sheets, summary
from reproduce.site.atlas.layout import FULL, Layout, tile_side
from reproduce.site.atlas.tables import BINS, edges
from zfnet.data.cache import DataError
from zfnet.data.labels import ILSVRC_GROUPS, ILSVRC_SYNONYMS, related_classes
from zfnet.graph import chain, conv_layers
from zfnet.model import Network, Row, describe
from zfnet.plot import HEAT, LINES
from zfnet.receptive_field import receptive_field

THUMBNAILS_PER_ROW = 16


def describe_network(
    model: Network, limit: int | None, layout: Layout = FULL
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """What the pages show of a network.

    Args:
        model: The network.
        limit: At most this many features per layer.
        layout: Sizes of the pictures.

    Returns:
        A part of the index, and the features of each layer.

    Raises:
        DataError: Its images are not RGB, or its weights are not finite.
    """
    channels = getattr(model, "options", {"in_channels": 3})["in_channels"]
    if channels != 3:
        raise DataError(f"the pages need RGB images; the network takes {channels} channels")
    if not all(values.isfinite().all() for values in model.state_dict().values()):
        raise DataError("the network has weights that are not finite")
    steps = chain(model)
    rows = named_rows(model, [step.layer for step in steps if step.layer])
    numbers, layers = {}, []
    for layer in conv_layers(steps):
        (row,) = (row for row in rows if row.name == layer)
        maps, field = row.shape[0], receptive_field(steps, layer)
        spread = np.linspace(0, maps - 1, min(maps, limit or maps))
        numbers[layer] = spread.round().astype(int).tolist()
        layers.append({
            "name": layer,
            "maps": maps,
            "numbers": numbers[layer],
            "size": row.shape[1],
            "field": field.size,
            "stride": field.stride,
            "offset": field.offset,
            "side": tile_side(field.size, layout),
        })  # fmt: skip
    return {
        "checkpoint": model.info["sha256"],
        "classes": list(model.classes),
        "groups": class_groups(model.classes),
        "layers": layers,
        "map": [{"name": row.name, "operation": row.operation, "shape": row.shape} for row in rows],
        "side": model.size,
    }, numbers


def named_rows(model: Network, layers: Sequence[str]) -> list[Row]:
    """The rows of `describe`, with the layer names of a chain: conv1 instead of features.0."""
    rows = list(describe(model))
    weighted = [row.name for row in rows if row.operation.startswith(("conv", "fully connected"))]
    names = dict(zip(weighted, layers, strict=True))
    return [replace(row, name=names.get(row.name, row.name)) for row in rows]


def class_groups(classes: Sequence[str]) -> dict[str, list[int]]:
    """The outputs of everyday words, such as every breed for "dog"; empty without such classes."""
    words = [*ILSVRC_GROUPS, *ILSVRC_SYNONYMS]
    related = {word: related_classes(word, classes) for word in words}
    return {
        word: [classes.index(name) for name in names] for word, names in related.items() if names
    }


def constants() -> dict[str, Any]:
    """The numbers that the page's script shares with these sources."""
    heat = colormaps[HEAT](np.linspace(0, 1, 64))
    return {
        "rows": sheets.ROWS,
        "across": sheets.ACROSS,
        "block": sheets.BLOCK,
        "filters": sheets.FILTERS,
        "small": sheets.SMALL,
        "thumbnails": THUMBNAILS_PER_ROW,
        "octave": summary.OCTAVE,
        "one": summary.ONE,
        "edges": edges(),
        "bins": BINS,
        "colors": LINES,
        "heat": [to_hex(color) for color in heat],
    }
