"""The atlas: a page for every feature of a network, written from one pass over a corpus; and `look`, one for an image.

    tables -> summary, sheets, demos -> data/*.js, sheets/*.webp, demos/*.webp, beside index.html, atlas.js and atlas.css

The page is static, needs no server, and shows what is there: an interrupted run's atlas can be read, and continued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from reproduce.atlas import demos, sheets, summary
from reproduce.atlas.site import prepare, read, save, shell
from reproduce.atlas.tables import BINS, Table, edges, tabulate
from reproduce.core.context import Context
from reproduce.core.networks import conv_weight
from zfnet.data.cache import DataError, Images, cache_dir, digest
from zfnet.graph import chain, conv_layers
from zfnet.labels import ILSVRC_GROUPS, related_classes
from zfnet.model import Network, device_of
from zfnet.plot import HEAT, LINES, mosaic
from zfnet.ranking import ranking
from zfnet.receptive_field import receptive_field
from zfnet.summary import Row, describe

NINE = 9  # strongest images of a feature, and of a class
THUMBNAIL, ACROSS = (
    96,
    16,
)  # pixels of a whole image on a class's page, and how many of them side by side in a sheet
BUDGET = 60  # seconds that the atlas of the sample photographs may take in `make figures`
# Raise these when what is computed changes: the table of activations (and all below), sheets and demos, the pages' numbers.
TABLE_VERSION, PICTURE_VERSION, SUMMARY_VERSION = 1, 2, 2


def write(context: Context, out: Path, most: int | None = None) -> Path:
    """Write the atlas of a network over a corpus to `out`, or continue it, and return its page.

    `most` limits it to that many features a layer, evenly spread. Nothing is computed twice: what was made of the same
    network and images by the same version stays. Raises DataError where `out` holds something else, or images do not fit.
    """
    model, images = context.model, context.images
    if images.size != model.size:
        raise DataError(
            f"the network takes {model.size} pixels, the images of {context.corpus} are cut to {images.size}"
        )
    parts = digest(model.info["sha256"], images.digest, most, TABLE_VERSION, PICTURE_VERSION)
    key = digest(parts, SUMMARY_VERSION)
    names, outputs, kind = summary.kinds(images)
    index, numbers = describe_network(model, most)
    layers = list(numbers)
    there = prepare(out, parts)
    page = shell(out)
    index |= constants() | {
        "network": context.network_name, "corpus": context.corpus, "data": images.digest, "images": len(images),
        "grouped": images.groups is not None, "kinds": names, "outputs": outputs, "demos": [], "most": most, "parts": parts,
        "key": key,
    }  # fmt: skip
    missing = [*reversed(layers), "classes", "images"]  # the most interesting first
    if there.get("key") == key:
        index = there
        missing = [
            part
            for part in missing
            if part in there["missing"] or damaged(out, part, len(there["demos"]))
        ]
    if not missing:
        return page

    save(out, "index", index | {"missing": missing})
    state = cache_dir() / f"atlas-{digest(model.info['sha256'], images.digest, TABLE_VERSION)[:20]}"
    table = tabulate(model, images, state, progress=context.progress)
    save(
        out,
        "names",
        {
            "name": list(images.names),
            "kind": kind.tolist(),
            "taken": table.logits.argmax(1).tolist(),
        },
    )
    for part in list(missing):
        if part == "classes":
            write_classes(table, images, out)
        elif part == "images":
            index["demos"] = write_demos(context, table, out)
        else:
            top = ranking(
                table.maximum[part], table.position[part].long(), NINE, group_of=groups(images)
            )
            sheets.write_layer(
                model, images, part, top, numbers[part], out / "sheets", context.progress
            )
            if part == layers[0]:
                path = out / "sheets" / f"{part}-covers-filters.webp"
                sheets.write_filters(conv_weight(model, part), numbers[part], path)
            save(out, part, summary.layer_data(table, part, top, numbers[part], kind, len(names)))
        missing.remove(part)
        save(out, "index", index | {"missing": missing})
    return page


def write_sample(context: Context, out: Path) -> Path | None:
    """Write the atlas of the sample photographs. Returns None, and writes nothing, where a reader made another one there."""
    there = read(out, "index")
    if there and (there.get("network"), there.get("corpus")) != (
        context.network_name,
        context.corpus,
    ):
        return None
    return write(context, out)


def damaged(out: Path, part: str, images: int) -> bool:
    """Whether data of a part that was finished cannot be read any more; `images` is the number of demonstration images."""
    data = {"classes": ["classes", "names"], "images": [f"image{i}" for i in range(images)]}
    return any(read(out, name) is None for name in data.get(part, [part]))


def describe_network(model: Network, most: int | None) -> tuple[dict, dict[str, list[int]]]:
    """What the page says of a network, and the numbers of the features that it shows, at most so many a layer, by layer.

    Raises DataError for a network of other than colour images, or with weights that are not finite.
    """
    channels = getattr(model, "options", {"in_channels": 3})["in_channels"]
    if channels != 3:
        raise DataError(
            f"the network takes images of {channels} channels, and the pages show those of 3"
        )
    if not all(values.isfinite().all() for values in model.state_dict().values()):
        raise DataError("the network has weights that are not finite")
    x = torch.zeros(1, 3, model.size, model.size, device=device_of(model))
    steps = chain(model, x)
    rows = named_rows(model, [step.layer for step in steps if step.layer])
    numbers, layers = {}, []
    for layer in conv_layers(steps):
        (row,) = (row for row in rows if row.name == layer)
        maps, field = row.shape[0], receptive_field(steps, layer)
        numbers[layer] = (
            np.linspace(0, maps - 1, min(maps, most or maps)).round().astype(int).tolist()
        )
        layers.append({
            "name": layer, "maps": maps, "numbers": numbers[layer], "size": row.shape[1], "field": field.size,
            "stride": field.stride, "offset": field.offset, "side": sheets.tile_side(field.size),
        })  # fmt: skip
    drawn = [{"name": row.name, "operation": row.operation, "shape": row.shape} for row in rows]
    return {
        "checkpoint": model.info["sha256"], "classes": list(model.classes), "groups": class_groups(model.classes),
        "layers": layers, "map": drawn, "side": model.size,
    }, numbers  # fmt: skip


def named_rows(model: Network, layers: Sequence[str]) -> list[Row]:
    """The rows of `describe`, where convolutions and dense layers have the names of a chain: conv1, not features.0."""
    rows = list(describe(model))
    weighted = [row.name for row in rows if row.operation.startswith(("conv", "fully connected"))]
    names = dict(zip(weighted, layers, strict=True))
    return [replace(row, name=names.get(row.name, row.name)) for row in rows]


def class_groups(classes: Sequence[str]) -> dict[str, list[int]]:
    """The outputs that everyday words stand for, such as all dogs for "dog": for networks of ILSVRC's classes."""
    found = {word: related_classes(word, classes) for word in ILSVRC_GROUPS}
    return {word: [classes.index(name) for name in names] for word, names in found.items() if names}


def constants() -> dict:
    """Numbers that the page shares with the sources: how sheets are laid out, the histogram's bins, and colours."""
    return {
        "rows": sheets.ROWS, "columns": sheets.COLUMNS, "covers": sheets.COVERS, "thumbnails": ACROSS, "steps": summary.STEPS,
        "edges": edges(), "bins": BINS, "colours": LINES,
        "heat": [mpl.colors.to_hex(c) for c in mpl.colormaps[HEAT](np.linspace(0, 1, 64))],
    }  # fmt: skip


def write_classes(table: Table, images: Images, out: Path) -> None:
    """The classes' data, and a sheet of the images that they show."""
    nowhere = torch.zeros(*table.logits.shape, 2, dtype=torch.int64)
    top = ranking(table.logits, nowhere, NINE, group_of=groups(images))
    shown = np.unique(top.index[top.index >= 0].numpy())
    for number, start in enumerate(range(0, len(shown), ACROSS**2)):
        tiles = demos.thumbnails(images, shown[start : start + ACROSS**2], THUMBNAIL)
        sheets.write_picture(out / "sheets" / f"images-{number}.webp", mosaic(tiles, ACROSS, gap=0))
    save(
        out, "classes", {"classes": summary.class_data(table, images, top), "shown": shown.tolist()}
    )


def write_demos(context: Context, table: Table, out: Path) -> list[dict]:
    """The demonstration images' data and pictures, those that are not there yet; what the index says of them."""
    chosen, listed = demos.choose(context, table), []
    for number, (name, x, target) in enumerate(
        context.progress(chosen, total=len(chosen), desc="occluding")
    ):
        found = read(out, f"image{number}")
        if found is None:
            found = demos.record(context.model, x, target, out / "demos", str(number))
            save(out, f"image{number}", found)
        listed.append({"name": name, "target": target, "label": found["baseline"]["label"]})
    return listed


def groups(images: Images) -> torch.Tensor | None:
    return None if images.groups is None else torch.from_numpy(images.groups)
