"""`zfnet project`: project one activation of an image to pixels."""

from __future__ import annotations

import argparse

from zfnet import plot
from zfnet.cli.common import (
    UserError,
    check_channel,
    check_picture,
    choose_layer,
    load_model,
    load_photograph,
    write_picture,
)
from zfnet.forward import trace
from zfnet.projection import project


def run(options: argparse.Namespace) -> None:
    check_picture(options.out, options.image)
    model = load_model(options)
    x = load_photograph(options.image, model)
    layer, channel = choose_layer(model, options.layer), options.channel
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
