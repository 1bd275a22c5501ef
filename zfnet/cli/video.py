"""`zfnet video`: draw an attribution map or a projection of every frame of an animation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zfnet import plot
from zfnet.attribution.registry import explain
from zfnet.cli.common import (
    UserError,
    check_channel,
    choose_layer,
    count_channels,
    load_model,
    progress_bar,
    refuse,
    target_index,
    usage_errors,
)
from zfnet.cli.image_arguments import PROJECTION
from zfnet.data.frames import load_frames
from zfnet.data.io import expand_path
from zfnet.forward import trace
from zfnet.model import device_of
from zfnet.outputs import probability_function
from zfnet.plot import write_gif
from zfnet.projection import project

BATCH = 16


def run(options: argparse.Namespace) -> None:
    if options.out.suffix.lower() != ".gif":
        raise UserError(f"-o {options.out} must end in .gif")
    if options.out.resolve() == expand_path(options.frames).resolve():
        raise UserError(f"-o {options.out} would overwrite the frames")
    for name in ("target",) if options.method == PROJECTION else ("layer", "channel"):
        refuse(options, name, f"--method {options.method}")
    model = load_model(options)
    frames = load_frames(options.frames, model.size, progress=progress_bar)
    draw = _projections if options.method == PROJECTION else _attributions
    pictures, title = draw(model, frames.x, options)
    write_gif(plot.overlay_frames(frames.x, pictures), options.out, frames.milliseconds)
    print(f"wrote {options.out}: {len(frames.x)} frames, {title}")


def _single(x: Tensor, options: argparse.Namespace) -> Iterable[Tensor]:
    """Iterate over single frames (1, 3, H, W) with a progress bar."""
    return progress_bar(x.split(1), total=len(x), desc=options.method)


def _attributions(model: Any, x: Tensor, options: argparse.Namespace) -> tuple[np.ndarray, str]:
    """Return the colored attribution maps of all frames (N, H, W, 3), and their description."""
    device, maps, states = device_of(model), [], []
    with usage_errors():
        target = target_index(model, options.target)
        if target is None:
            to_probabilities = probability_function(model)
            parts = [to_probabilities(model(p.to(device))).detach().cpu() for p in x.split(BATCH)]
            target = int(torch.cat(parts).mean(0).argmax())
        for frame in _single(x, options):
            a = explain(model, frame.to(device), options.method, target)
            maps.append(a.map.cpu())
            states += a.state
    if failures := [(i, state) for i, state in enumerate(states, 1) if state != "ok"]:
        frame, state = failures[0]
        print(
            f"zfnet video: {len(failures)} of {len(x)} maps do not explain their frame; "
            f"the first, of frame {frame}, is {state}",
            file=sys.stderr,
        )
    pictures, (scale, *_) = plot.attribution_image(torch.cat(maps), shared_scale=True)
    name = model.classes[target]
    return pictures, f"{options.method} for {name}, full color at {scale:.3g} in every frame"


def _projections(model: Any, x: Tensor, options: argparse.Namespace) -> tuple[np.ndarray, str]:
    """Return the projections of one channel in all frames (N, H, W, 3), and their description."""
    layer, device = choose_layer(model, options.layer), device_of(model)
    channel = options.channel
    if channel is None:
        parts = [trace(model, part.to(device), until=layer)[layer].cpu() for part in x.split(BATCH)]
        strongest = [part[:, :, None].flatten(2).amax(2) for part in parts]  # (n, C)
        channel = int(torch.cat(strongest).mean(0).argmax())
    check_channel(layer, channel, count_channels(model, layer))
    pixels = torch.cat(
        [project(model, f.to(device), layer, channel).pixels.cpu() for f in _single(x, options)]
    )
    n, side = len(x), x.shape[-1]
    # One wide image (1, 3, H, N W) gives all frames the same contrast.
    wide = plot.projection_image(pixels.permute(1, 2, 0, 3).flatten(2)[None])[0]
    pictures = wide.reshape(side, n, side, 3).transpose(1, 0, 2, 3)  # (N, H, W, 3)
    return pictures, f"projections of {layer}, channel {channel}"
