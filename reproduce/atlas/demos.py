"""Demonstration images: the maps of Fig. 7, recorded at every position of the occluder, and projections at every position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.atlas.sheets import LARGEST, write_picture
from reproduce.atlas.tables import Table
from reproduce.core.context import Context
from reproduce.paper import fig7_occlusion
from reproduce.paper.boxed_images import choose_images
from zfnet.attribution.registry import spans
from zfnet.data import no_progress
from zfnet.data.cache import Images
from zfnet.graph import conv_layers
from zfnet.model import Network
from zfnet.plot import GRAY, enlarge, mosaic, photograph, projection_image

COUNT = 6
MAPS = 4  # strongest maps of the last layer
OCCLUDER = fig7_occlusion.FIGURE.config
SIDE = 224  # pixels of the images that OCCLUDER is for; on others it is as large a part


def choose(context: Context, table: Table) -> list[tuple[str, Tensor, int]]:
    """(name, image, class): those of Figure 7, then the best recognised of other classes, up to COUNT of both."""
    found = [(name, x, target) for name, x, target, _ in choose_images(context)]
    images, taken = context.images, {target for _, _, target in found}
    labels = images.labels
    if (labels < 0).all():
        return found[:COUNT]
    probability = table.logits.softmax(1).gather(1, torch.from_numpy(labels).clamp_min(0)[:, None])[
        :, 0
    ]
    for i in probability.argsort(descending=True, stable=True).tolist():
        if len(found) < COUNT and labels[i] >= 0 and labels[i] not in taken:
            taken.add(int(labels[i]))
            found.append(
                (
                    images.names[i].split("/")[-1],
                    images.batch([i]).to(context.device),
                    int(labels[i]),
                )
            )
    return found[:COUNT]


@torch.no_grad()
def record(
    model: Network,
    x: Tensor,
    target: int | None,
    folder: Path,
    name: str,
    progress: Callable = no_progress,
) -> dict[str, Any]:
    """Write an image's pictures into `folder`, and return its numbers for the page.

    `name`.webp is the image (1, 3, H, W); `name`-map0.webp ... hold the projection of every position of its strongest last
    maps, laid out as the map is, cut to the receptive field. Grey is where a map is silent.
    """
    size, stride = (max(1, OCCLUDER[name] * x.shape[-1] // SIDE) for name in ("size", "stride"))
    o = zfnet.occlude(
        model, x, target, size=size, stride=stride, fill=OCCLUDER["fill"], progress=progress
    )
    t = zfnet.trace(model, x)
    layer = conv_layers(t.steps)[-1]
    maps, field = t[layer][0], t.receptive_field(layer)
    write_picture(folder / f"{name}.webp", photograph(x.cpu())[0], quality=88)
    strongest = maps.amax((1, 2)).argsort(descending=True, stable=True)[:MAPS].tolist()
    for number, channel in enumerate(progress(strongest, total=len(strongest), desc="projecting")):
        values = maps[channel]
        side = min(LARGEST, field.size)
        tiles = np.full((values.numel(), side, side, 3), GRAY, dtype=np.float32)
        position = (values > 0).nonzero()
        if len(position):
            pixels = zfnet.project(
                model, x, layer, torch.full((len(position),), channel), position, crop=True
            ).pixels
            tiles[(position[:, 0] * values.shape[1] + position[:, 1]).cpu()] = enlarge(
                projection_image(pixels.cpu()), side
            )
        write_picture(folder / f"{name}-map{number}.webp", mosaic(tiles, values.shape[1], gap=0))
    assert o.channel is not None
    assert o.activation is not None
    assert o.baseline.activation is not None
    rows, columns = spans(o.boxes)
    return {
        "target": int(o.target), "size": size, "stride": stride, "side": x.shape[-1], "layer": layer,
        "channel": int(o.channel),
        "rows": rows.tolist(), "columns": columns.tolist(),
        "activation": numbers(o.activation), "logit": numbers(o.logit), "probability": numbers(o.probability),
        "label": o.label.tolist(),
        "baseline": {
            "activation": float(o.baseline.activation), "logit": float(o.baseline.logit),
            "probability": float(o.baseline.probability), "label": int(o.baseline.label),
        },
        "maps": [{"channel": channel, "values": numbers(maps[channel])} for channel in strongest],
        "field": {"size": field.size, "stride": field.stride, "offset": field.offset},
    }  # fmt: skip


def numbers(values: Tensor) -> list:
    """Nested lists with five significant digits: what a page shows, and small."""
    flat = [float(f"{v:.5g}") for v in values.flatten().tolist()]
    return np.array(flat).reshape(values.shape).tolist()


def thumbnails(images: Images, chosen: np.ndarray, side: int) -> np.ndarray:
    """Whole network inputs as small tiles (M, side, side, 3)."""
    parts = [
        enlarge(photograph(images.batch(some)), side)
        for some in np.array_split(chosen, max(1, len(chosen) // 64))
    ]
    return np.concatenate(parts)
