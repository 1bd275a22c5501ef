"""Demonstration images: the occlusion maps of Fig. 7, and projections, at every position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.core.context import Context
from reproduce.paper.boxed_images import choose_images
from reproduce.paper.fig7_occlusion import FIGURE
from reproduce.site.atlas.layout import FULL, Layout
from reproduce.site.atlas.sheets import write_picture
from reproduce.site.atlas.tables import Table
from zfnet.attribution.registry import spans
from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.graph import conv_layers
from zfnet.model import Network
from zfnet.occlusion import Occlusion
from zfnet.plot import GRAY, enlarge, mosaic, photograph, projection_image

COUNT = 6  # images
MAPS = 4  # strongest maps of the last layer
OCCLUDER = FIGURE.config
OCCLUDER_SIDE = 224  # image size of OCCLUDER, which is scaled for other sizes


def choose(context: Context, table: Table) -> list[tuple[str, Tensor, int]]:
    """Choose the images of Fig. 7, then those with the most probable labels of other classes.

    Returns:
        Up to COUNT of (name, image, class).
    """
    chosen = [(name, x, target) for name, x, target, _ in choose_images(context)]
    images, labels = context.images, context.images.labels
    if (labels < 0).all():
        return chosen[:COUNT]
    used = {target for _, _, target in chosen}
    column = torch.from_numpy(labels).clamp_min(0)[:, None]
    probability = table.logits.softmax(1).gather(1, column)[:, 0]
    for i in probability.argsort(descending=True, stable=True).tolist():
        label = int(labels[i])
        if len(chosen) < COUNT and label >= 0 and label not in used:
            used.add(label)
            x = images.batch([i]).to(context.device)
            chosen.append((str(images.names[i]).split("/")[-1], x, label))
    return chosen[:COUNT]


@torch.no_grad()
def record(
    model: Network,
    x: Tensor,
    target: int | None,
    folder: Path,
    name: str,
    layout: Layout = FULL,
    progress: Callable = no_progress,
) -> dict[str, Any]:
    """Write the pictures of an image, and return its numbers.

    `<name>.webp` is the image. `<name>-map0.webp` and so on hold the projection of every position
    of one of its strongest maps, cropped to the receptive field and laid out as the map is.

    Args:
        model: The network.
        x: The image (1, 3, H, W).
        target: A class, or None for the predicted one.
        folder: Where the pictures go.
        name: How their names begin.
        layout: Sizes and quality of the pictures.
        progress: Wraps iterables.
    """
    size, stride = (max(1, OCCLUDER[key] * x.shape[-1] // OCCLUDER_SIDE) for key in SCALED)
    o = zfnet.occlude(
        model, x, target, size=size, stride=stride, fill=OCCLUDER["fill"], progress=progress
    )
    t = zfnet.trace(model, x)
    layer = conv_layers(t.steps)[-1]
    maps, field = t[layer][0], t.receptive_field(layer)
    write_picture(folder / f"{name}.webp", photograph(x.cpu())[0], quality=88)
    strongest = maps.amax((1, 2)).argsort(descending=True, stable=True)[:MAPS].tolist()
    for number, channel in enumerate(progress(strongest, total=len(strongest), desc="projecting")):
        side = min(layout.max_side, field.size)
        sheet = projection_sheet(model, x, layer, channel, maps[channel], side)
        write_picture(folder / f"{name}-map{number}.webp", sheet, layout.fine_quality)
    return occlusion_data(o) | {
        "size": size,
        "stride": stride,
        "side": x.shape[-1],
        "layer": layer,
        "maps": [{"channel": channel, "values": numbers(maps[channel])} for channel in strongest],
        "field": {"size": field.size, "stride": field.stride, "offset": field.offset},
    }


SCALED = ("size", "stride")


def projection_sheet(
    model: Network, x: Tensor, layer: str, channel: int, values: Tensor, side: int
) -> np.ndarray:
    """The projections of all positions of a map (H, W), as an image; gray where it is silent."""
    tiles = np.full((values.numel(), side, side, 3), GRAY, dtype=np.float32)
    position = (values > 0).nonzero()
    if len(position):
        channels = torch.full((len(position),), channel)
        p = zfnet.project(model, x, layer, channels, position, crop=True)
        slots = (position[:, 0] * values.shape[1] + position[:, 1]).cpu()
        tiles[slots] = enlarge(projection_image(p.pixels.cpu()), side)
    return mosaic(tiles, values.shape[1], gap=0)


def occlusion_data(o: Occlusion) -> dict[str, Any]:
    """The occlusion maps of an image, its values without occluder, and the occluder's spans."""
    assert o.channel is not None
    assert o.activation is not None
    assert o.baseline.activation is not None
    rows, columns = spans(o.boxes)
    return {
        "target": int(o.target),
        "channel": int(o.channel),
        "rows": rows.tolist(),
        "columns": columns.tolist(),
        "activation": numbers(o.activation),
        "logit": numbers(o.logit),
        "probability": numbers(o.probability),
        "label": o.label.tolist(),
        "baseline": {
            "activation": float(o.baseline.activation),
            "logit": float(o.baseline.logit),
            "probability": float(o.baseline.probability),
            "label": int(o.baseline.label),
        },
    }


def numbers(values: Tensor) -> list[Any]:
    """Nested lists with five significant digits, which keeps the data files small."""
    flat = [float(f"{value:.5g}") for value in values.flatten().tolist()]
    return np.array(flat).reshape(values.shape).tolist()


def thumbnails(images: Images, chosen: np.ndarray, side: int) -> np.ndarray:
    """Whole images of a corpus as tiles (M, side, side, 3)."""
    chunks = np.array_split(chosen, max(1, len(chosen) // 64))
    return np.concatenate([enlarge(photograph(images.batch(part)), side) for part in chunks])
