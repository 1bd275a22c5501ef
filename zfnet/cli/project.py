"""`zfnet project`: project one activation of an image to pixels."""

from __future__ import annotations

import argparse

from zfnet import plot
from zfnet.cli.common import (
    DEFAULT_LAYER,
    UserError,
    add_model,
    add_picture,
    check_channel,
    check_picture,
    load_model,
    load_photograph,
    write_picture,
)
from zfnet.forward import trace
from zfnet.projection import project

NAME = "project"
HELP = "project an activation of an image to pixels"
DESCRIPTION = (
    "Project one activation of an image to pixels with the deconvnet, and show what caused it."
)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("image", help="the path of an image")
    sub.add_argument(
        "--layer", default=DEFAULT_LAYER, help="the layer of the activation (default: %(default)s)"
    )
    sub.add_argument(
        "--channel",
        type=int,
        metavar="N",
        help="the channel, from 0 (default: the one with the strongest activation)",
    )
    sub.add_argument(
        "--position",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="the position in the feature map, from 0 (default: the strongest)",
    )
    add_picture(sub, "project.png")
    add_model(sub)


def run(options: argparse.Namespace) -> None:
    check_picture(options.out, options.image)
    model = load_model(options)
    x = load_photograph(options.image, model)
    layer, channel = options.layer, options.channel
    maps = trace(model, x, until=layer)[layer]
    if maps.ndim == 2:
        maps = maps[:, :, None, None]  # dense layer: (1, C, 1, 1)
    if channel is None:
        channel = int(maps[0].amax((1, 2)).argmax())
    check_channel(layer, channel, maps.shape[1])
    if options.position:
        _check_position(layer, options.position, maps.shape[2:])
    position = tuple(options.position) if options.position else None
    projection = project(model, x, layer, channel, position)
    patch = project(model, x, layer, channel, position, crop=True)
    (row, column), value = projection.position[0].tolist(), float(projection.activation[0])
    title = f"{layer}, channel {channel}, row {row}, column {column}: activation {value:.3f}"
    box = projection.box[0].tolist()
    print(f"{title}; receptive field {box} (top, left, bottom, right) in pixels")
    images = (x.cpu(), patch.pixels.cpu(), projection.pixels.cpu())
    write_picture(plot.projection_figure(*images, box, title), options.out)


def _check_position(layer: str, position: list[int], size: tuple[int, ...]) -> None:
    """Raise UserError if --position is outside the feature map."""
    if not all(0 <= p < n for p, n in zip(position, size, strict=True)):
        rows, columns = size
        raise UserError(
            f"{layer} has rows 0 to {rows - 1} and columns 0 to {columns - 1}, "
            f"got --position {position}"
        )
