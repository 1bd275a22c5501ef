"""Project units through their receptive fields only.

A unit of layer 3 sees 75 x 75 of 224 x 224 pixels, a unit of layer 5 139 x 139. The receptive
fields of M units are cut out and pass through the network's convolutions and poolings without
padding, up to the single cell of each unit (zfnet/fast/fields.py). The padding depends on where the
fields reach outside the image, so units at similar positions, taken together, cost least. The
result is a `Trace` of patches, with switches inside the patch, through which signals are carried
down as through any other.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet import backprojection
from zfnet.fast import branches
from zfnet.fast.fields import cut_switches, image_size, largest_map, trace_fields, whole_switches
from zfnet.fast.kernels import CHANNELS_LAST, backproject
from zfnet.forward import Trace, layout, run
from zfnet.graph import Step, UnsupportedNetwork, channels_of, is_chain, map_sizes
from zfnet.receptive_field import ReceptiveField, Window, cut
from zfnet.units import Units, as_maps, locate

CHUNK = 8_000_000  # numbers in the largest map at once; larger chunks spill out of cache
FEW_UNITS = 4  # of one image; a pass of the image costs about four fields of layer 5


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
    """Accelerate `backprojection.project_units`: compute only the receptive fields.

    The reference handles dense layers, whose units see the whole image, and layers of networks
    with branches whose units see most of it. It also handles overwriting, which is not local: a
    pooling window outside the receptive field may overwrite one inside.
    """
    if field is None or collision != "sum" or not is_chain(steps):
        if field is not None and collision == "sum" and branches.fits(x, units, field):
            with suppress(UnsupportedNetwork):
                return branches.project_units(steps, x, units, field, crop, batch)
        return backprojection.project_units(
            steps, x, units, field, crop=crop, collision=collision, batch=batch
        )
    steps = channels_last(steps) if layout(x) == CHANNELS_LAST else list(steps)
    few = units.position is not None and len(units.image) <= FEW_UNITS
    shared = run(steps, x, keep=()) if len(x) == 1 and not few else None
    if shared is not None:
        units = replace(units, position=locate(as_maps(shared.output), units, units.image).position)
    order = torch.arange(len(units.image), device=x.device)
    if units.position is not None:
        width = map_sizes(steps, image_size(x))[""][1]
        order = torch.argsort(units.position[:, 0] * width + units.position[:, 1], stable=True)
    parts = []
    for rows in order.split(min(batch, max(1, CHUNK // largest_map(steps)))):
        parts.append(_project_chunk(steps, x, shared, units[rows], field))
    back = torch.argsort(order)
    patches, position, activation = (
        torch.cat(part)[back].contiguous() for part in zip(*parts, strict=True)
    )
    if not crop:  # the image is a window of the plane around the patch
        corner = field.offset + position * field.stride
        patches = cut(patches, -corner, image_size(x))
    return patches, position, activation


def _project_chunk(
    steps: list[Step], x: Tensor, shared: Trace | None, units: Units, field: ReceptiveField
) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (M, 3, R, R), positions and activations of M units."""
    if shared is None and units.position is not None:
        t, window = trace_fields(steps, x, units, only_switches=units.activation is not None)
        if units.activation is None:
            rows = torch.arange(len(units.channel), device=x.device)
            units = replace(units, activation=t.output[rows, units.channel, 0, 0])
    else:
        rows = (
            units.image if shared is not None else torch.arange(len(units.image), device=x.device)
        )
        t = run(steps, x[units.image], keep=()) if shared is None else shared
        units = locate(as_maps(t.output), units, rows)
        t, window = cut_switches(steps, x, whole_switches(t), rows, units.position)
    patches = project_fields(t, window, field, units)
    assert units.position is not None
    assert units.activation is not None
    return patches, units.position, units.activation


def project_fields(t: Trace, window: Window, field: ReceptiveField, units: Units) -> Tensor:
    """Project M units through a trace of their receptive fields: (M, 3, R, R) of the `field`.

    `window` is the part of the field that the trace covers: rows and columns that are outside
    the image for all units are missing.
    """
    assert units.position is not None
    assert units.activation is not None
    count, activation = len(units.channel), units.activation
    signal = activation.new_empty(count, channels_of(t.steps), 1, 1).contiguous(
        memory_format=CHANNELS_LAST
    )
    signal.zero_()[torch.arange(count, device=signal.device), units.channel, 0, 0] = activation
    patch = backproject(t, signal)
    top, left = (window.low - field.offset - units.position * field.stride)[
        0
    ].tolist()  # the same for all
    bottom, right = field.size - top - patch.shape[2], field.size - left - patch.shape[3]
    return F.pad(patch, (left, right, top, bottom))


def channels_last(steps: Sequence[Step]) -> list[Step]:
    """Copy the convolutions with channels-last filters, which CPUs reorder at each call."""
    converted = []
    for step in steps:
        module = step.module
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach().contiguous(memory_format=CHANNELS_LAST)
            module = copy.copy(module)
            module._parameters = module._parameters | {
                "weight": nn.Parameter(weight, requires_grad=False)
            }
        converted.append(replace(step, module=module))
    return converted
