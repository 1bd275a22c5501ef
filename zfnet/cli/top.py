"""`zfnet top`: find and show the strongest activations of a channel over a set of images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from zfnet import plot
from zfnet.cli.common import (
    UserError,
    check_channel,
    check_picture,
    choose_layer,
    count_channels,
    decoded_side,
    load_model,
    load_tree,
    progress_bar,
    refuse,
    usage_errors,
    write_picture,
)
from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.data.samples import load_samples
from zfnet.layer_list import list_layers
from zfnet.model import device_of
from zfnet.projection import project
from zfnet.ranking import Top, TopActivations
from zfnet.receptive_field import cut
from zfnet.top import top_activations
from zfnet.training.distributed import join

TABLE = ".safetensors"
CLONE = Path(__file__).resolve().parents[2]  # where figures/ is, in a clone


def run(options: argparse.Namespace) -> None:
    table = options.out.suffix == TABLE
    _check_arguments(options, table)
    channel = options.channel or 0
    with join(options.device) as (distributed, device):
        model = load_model(options, device)
        layer = choose_layer(model, options.layer)
        check_channel(layer, channel, count_channels(model, layer))
        if not table:
            _check_projection(model, layer)
            if not options.data and _show_atlas(options, model, layer, channel):
                return
        images = _images(options, model)
        bar = progress_bar if distributed.is_main else no_progress
        with usage_errors():
            result = top_activations(
                model,
                images,
                (layer,),
                options.k,
                groups=images.groups,
                distributed=distributed,
                progress=bar,
            )
    if not distributed.is_main:
        return
    if table:
        result.save(options.out)
        channels = len(result[layer].value)
        print(f"wrote {options.out}: the top {options.k} of {channels} channels of {layer}")
        return
    write_picture(_picture(model, images, result, layer, channel), options.out)
    index, value = _ranking(result[layer], channel)
    _print_ranking(value.tolist(), [str(images.names[i]) for i in index.tolist()])


def _print_ranking(values: list[float], names: list[str]) -> None:
    for rank, (value, name) in enumerate(zip(values, names, strict=True), 1):
        print(f"{rank}. {value:.3f}  {name}")


def _show_atlas(options: argparse.Namespace, model: Any, layer: str, channel: int) -> bool:
    """Show the pictures of an atlas of this network; return False if it does not have them."""
    from zfnet.explorer.atlas import KINDS, Atlas, find_atlas

    checkpoint = getattr(model, "info", {}).get("sha256", "")
    atlas = Atlas(find_atlas(Path.cwd(), checkpoint) or find_atlas(CLONE, checkpoint), checkpoint)
    if not atlas.index:
        return False
    feature, tiles = atlas.neighbors(layer, channel)
    if len(feature["values"]) < options.k:
        return False
    patches, projections = (tiles[kind][: options.k] / 255 for kind in KINDS)
    title = f"{layer}, channel {channel}: strongest activations in {atlas.status}"
    write_picture(_draw(projections, patches, title), options.out)
    print(f"read from the atlas in {atlas.folder} (search other images with --data PATH)")
    _print_ranking(feature["values"][: options.k], feature["names"][: options.k])
    return True


def _check_arguments(options: argparse.Namespace, table: bool) -> None:
    """Raise UserError for arguments that are wrong or have no effect."""
    if table:
        refuse(options, "channel", f"-o {options.out}, the table of all channels")
    else:
        check_picture(options.out)
    if not options.data:
        refuse(options, "skip-unreadable", "the sample photographs; give --data PATH")
    if options.k < 1:
        raise UserError(f"-k must be at least 1, got {options.k}")


def _check_projection(model: Any, layer: str) -> None:
    """Raise UserError, before the search, if the deconvnet cannot project from a layer."""
    reason = next((row.reason for row in list_layers(model) if row.name == layer), None)
    if reason:
        raise UserError(f"{layer} cannot be projected: {reason}; write a table, -o top{TABLE}")


def _images(options: argparse.Namespace, model: Any) -> Images:
    """Load the images of --data, or crops of the sample photographs."""
    if options.data:
        return load_tree(options.data, model, skip_unreadable=options.skip_unreadable)
    return load_samples(model.size, decoded_side(model))


def _ranking(top: Top, channel: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image numbers and activations of a channel (n,), at most k of them."""
    index = top.index[channel]
    index = index[index >= 0]
    return index, top.value[channel, : len(index)]


def _picture(
    model: Any, images: Images, result: TopActivations, layer: str, channel: int
) -> Figure:
    """Draw the projections of the strongest activations next to their image patches."""
    index, value = _ranking(result[layer], channel)
    x = images.batch(index).to(device_of(model))
    position = result[layer].position[channel, : len(index)]
    p = project(
        model, x, layer, torch.full((len(index),), channel), position, activation=value, crop=True
    )
    patches = cut(x, p.corner, p.pixels.shape[-1])
    title = f"{layer}, channel {channel}: strongest activations in {result.images} images"
    projections = plot.projection_image(p.pixels.cpu())
    return _draw(projections, plot.photograph(patches.cpu()), title)


def _draw(projections: np.ndarray, patches: np.ndarray, title: str) -> Figure:
    """Draw projections next to image patches, each (n, H, W, 3) in [0, 1]."""
    figure = plot.new_figure(8, 4.3)
    axes = figure.subplots(1, 2)
    columns = min(3, len(patches))
    for axis, images, name in zip(
        axes, (projections, patches), ("projections", "image patches"), strict=True
    ):
        plot.show(axis, plot.mosaic(images, columns, gap=2), name)
    figure.suptitle(title)
    return figure
