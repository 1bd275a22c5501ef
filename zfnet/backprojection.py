"""Project units of a layer: forward pass, one activation per image, and the deconvnet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zfnet.acceleration import accelerate
from zfnet.deconv import backproject
from zfnet.forward import run
from zfnet.graph import Step
from zfnet.receptive_field import ReceptiveField, cut
from zfnet.units import Units, as_maps, locate, one_hot


def project_units(
    steps: Sequence[Step],
    x: Tensor,
    units: Units,
    field: ReceptiveField | None,
    *,
    crop: bool,
    collision: str,
    batch: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Project M units of the last step, `batch` at a time.

    Args:
        steps: The steps of the network, up to the layer of the units.
        x: Images (N, 3, H, W).
        units: Which units of which images.
        field: The receptive field of the layer, or None where its units see the whole image.
        crop: Whether to cut the pixels to the receptive fields, R x R.
        collision: What `unpool` does where windows share a switch.
        batch: The number of projections to compute at once.

    Returns:
        Pixels (M, 3, H, W), or patches (M, 3, R, R) with `crop`; positions (M, 2); and
        activations (M,).
    """
    shared = run(steps, x, keep=()) if len(x) == 1 else None  # many units of one image: one pass
    if shared is not None and not shared.can_repeat():
        shared = None
    pixels, positions, activations = [], [], []
    for rows in torch.arange(len(units.image), device=x.device).split(batch):
        part = units[rows]
        if shared is None:
            t, image = run(steps, x[part.image], keep=()), torch.arange(len(rows), device=x.device)
        else:
            t, image = shared.select(part.image), part.image
        maps = as_maps(t.output)  # (N, C, h, w)
        part = locate(maps, part, image)
        signal = one_hot(maps, part).view(len(rows), *t.output.shape[1:])  # (M, C, h, w) or (M, C)
        pixels.append(accelerate(backproject)(t, signal, collision=collision))
        positions.append(part.position)
        activations.append(part.activation)
    images, position = torch.cat(pixels), torch.cat(positions)
    if crop and field:
        images = cut(images, field.offset + position * field.stride, field.size)
    return images, position, torch.cat(activations)
