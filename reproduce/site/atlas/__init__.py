"""The atlas: one page per feature of a network, from one pass over a corpus.

    tables -> summary, sheets, demos -> data/*.js, sheets/*.webp, demos/*.webp

The pages are static and need no server. An interrupted run leaves a readable atlas, and the same
command continues it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reproduce.core.context import Context
from reproduce.core.networks import conv_weight
from reproduce.site.atlas import demos, sheets, summary
from reproduce.site.atlas.files import prepare, read, save, write_page
from reproduce.site.atlas.index import THUMBNAILS_PER_ROW, constants, describe_network
from reproduce.site.atlas.layout import FULL, Layout
from reproduce.site.atlas.tables import Table, tabulate
from zfnet.data.cache import DataError, cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.plot import mosaic
from zfnet.ranking import Top, ranking

TIME_BUDGET = 60  # seconds of the atlas of the sample photographs in `make figures`
# Raise a version when what it covers changes: the table of activations and all that follows from
# it; sheets and demonstrations; the numbers on the pages.
TABLE_VERSION, PICTURE_VERSION, SUMMARY_VERSION = 1, 3, 4


def write(context: Context, out: Path, limit: int | None = None, layout: Layout = FULL) -> Path:
    """Write the atlas of a network over a corpus, or continue it.

    Files of the same version, network and images are reused.

    Args:
        context: The network and the corpus.
        out: The folder of the atlas.
        limit: At most this many features per layer, evenly spread. Default: all.
        layout: Sizes and quality of the pictures.

    Returns:
        The page.

    Raises:
        DataError: `out` has other files, or the images do not fit the network.
    """
    model, images = context.model, context.images
    if images.size != model.size:
        raise DataError(
            f"the network needs images of {model.size} pixels; {context.corpus} has {images.size}"
        )
    versions = TABLE_VERSION, PICTURE_VERSION
    parts = digest(model.info["sha256"], images.digest, limit, str(layout), *versions)
    key = digest(parts, SUMMARY_VERSION)
    index, numbers = describe_network(model, limit, layout)
    earlier = prepare(out, parts)
    page = write_page(out)
    names, outputs, kind = summary.kinds(images)
    index |= constants() | {
        "network": context.network_name,
        "corpus": context.corpus,
        "data": images.digest,
        "images": len(images),
        "grouped": images.groups is not None,
        "kinds": names,
        "outputs": outputs,
        "demos": [],
        "most": limit,
        "parts": parts,
        "key": key,
    }
    missing = [*reversed(numbers), "classes", "images"]  # the highest layer first
    if earlier.get("key") == key:
        index = earlier
        n = len(index["demos"])
        missing = [part for part in missing if part in index["missing"] or damaged(out, part, n)]
    if not missing:
        return page
    save(out, "index", index | {"missing": missing})
    table = read_table(context)
    predicted = table.logits.argmax(1).tolist()
    stems = [str(name).split("/")[-1] for name in images.names]
    save(out, "names", {"name": stems, "kind": kind.tolist(), "predicted": predicted})
    for part in list(missing):
        if part == "classes":
            write_classes(table, images, out, layout)
        elif part == "images":
            index["demos"] = write_demos(context, table, out, layout)
        else:
            maximum, position = table.maximum[part], table.position[part].long()
            top = ranking(maximum, position, sheets.TOP, group_of=groups(images))
            is_first = part == next(iter(numbers))
            write_sheets(context, part, top, numbers[part], out, layout, filters=is_first)
            data = summary.layer_data(table, part, top, numbers[part], kind, len(names))
            save(out, part, data)
        missing.remove(part)
        save(out, "index", index | {"missing": missing})
    return page


def write_sample(context: Context, out: Path) -> Path | None:
    """Write the atlas of the sample photographs; None if `out` has another atlas."""
    index = read(out, "index")
    if index:
        origin = (index.get("network"), index.get("corpus"))
        if origin != (context.network_name, context.corpus):
            return None
    return write(context, out)


def damaged(out: Path, part: str, images: int) -> bool:
    """Whether data of a finished part cannot be read.

    Args:
        out: The folder of the atlas.
        part: A layer, "classes" or "images".
        images: The number of demonstration images.
    """
    data = {"classes": ["classes", "names"], "images": [f"image{i}" for i in range(images)]}
    return any(read(out, name) is None for name in data.get(part, [part]))


def read_table(context: Context) -> Table:
    """The responses to all images, from the cache or from one pass."""
    model, images = context.model, context.images
    name = digest(model.info["sha256"], images.digest, TABLE_VERSION)[:20]
    return tabulate(model, images, cache_dir() / f"atlas-{name}", progress=context.progress)


def write_sheets(
    context: Context,
    layer: str,
    top: Top,
    numbers: Sequence[int],
    out: Path,
    layout: Layout,
    filters: bool,
) -> None:
    """Write the sheets of a layer, and with `filters` those of a first layer."""
    model, folder = context.model, out / "sheets"
    sheets.write_layer(model, context.images, layer, top, numbers, folder, layout, context.progress)
    if filters:
        path = folder / f"{layer}-filters.webp"
        sheets.write_filters(conv_weight(model, layer), numbers, path)


def write_classes(table: Table, images: Images, out: Path, layout: Layout) -> None:
    """Write the data of the classes, and the sheets of the images on their pages."""
    no_position = torch.zeros(*table.logits.shape, 2, dtype=torch.int64)
    top = ranking(table.logits, no_position, layout.images, group_of=groups(images))
    shown = np.unique(top.index[top.index >= 0].numpy())
    per_sheet = THUMBNAILS_PER_ROW**2
    for number, start in enumerate(range(0, len(shown), per_sheet)):
        tiles = demos.thumbnails(images, shown[start : start + per_sheet], layout.thumbnail)
        path = out / "sheets" / f"images-{number}.webp"
        sheets.write_picture(path, mosaic(tiles, THUMBNAILS_PER_ROW, gap=0), layout.quality)
    data = {"classes": summary.class_data(table, images, top), "shown": shown.tolist()}
    save(out, "classes", data)


def write_demos(context: Context, table: Table, out: Path, layout: Layout) -> list[dict[str, Any]]:
    """Write the missing demonstration images, and return their entries in the index."""
    chosen = demos.choose(context, table)[: layout.demos]
    entries = []
    bar = context.progress(chosen, total=len(chosen), desc="occluding")
    for number, (name, x, target) in enumerate(bar):
        data = read(out, f"image{number}")
        if data is None:
            data = demos.record(context.model, x, target, out / "demos", str(number), layout)
            save(out, f"image{number}", data)
        entries.append({"name": name, "target": target, "label": data["baseline"]["label"]})
    return entries


def groups(images: Images) -> torch.Tensor | None:
    """The photograph of each crop, so that one photograph does not fill a ranking."""
    return None if images.groups is None else torch.from_numpy(images.groups)
