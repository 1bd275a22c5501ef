"""Project units of networks with branches through their receptive fields only.

Several steps can read the output of one step. Its window is the smallest that contains what all of
them read. From the unit down, a cellwise step keeps its window, and a convolution or pooling widens
it. All units of a chunk have windows of the same size, so the network runs on patches. Each step
crops its input to the window that it reads. Convolutions run without padding, with a `PaddingMask`
where a window reaches outside the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.fast.fields import image_size, padding_mask
from zfnet.fast.kernels import backproject
from zfnet.fast.locality import is_local_cellwise, is_local_window, without_padding
from zfnet.fast.padding import Crop
from zfnet.forward import layout, run
from zfnet.graph import Step, UnsupportedNetwork, spatial_size, with_inputs
from zfnet.receptive_field import ReceptiveField, Window, cut, cut_windows
from zfnet.units import Units

CHUNK = 8_000_000  # elements of the largest batch of patches
SHARE = 0.5  # larger receptive fields, as a share of the image, cost more than whole maps


def fits(x: Tensor, units: Units, field: ReceptiveField) -> bool:
    """Whether receptive fields are worth it: the units are known, and see a part of the image."""
    height, width = image_size(x)
    return units.position is not None and field.size**2 <= SHARE * height * width


def project_units(
    steps: Sequence[Step], x: Tensor, units: Units, field: ReceptiveField, crop: bool, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Accelerate `backprojection.project_units` for units of known positions.

    Raises:
        UnsupportedNetwork: If a step is neither cellwise nor a window.
    """
    position = units.position
    assert position is not None
    height, width = image_size(x)
    parts = []
    # Units at similar positions reach outside the image on the same sides.
    order = torch.argsort(position[:, 0] * width + position[:, 1], stable=True)
    count = max(1, CHUNK // _largest_patch(steps, position[:1]))
    for rows in order.split(min(batch, count)):
        parts.append(_project_chunk(steps, x, units[rows], field))
    back = torch.argsort(order)
    patches, activation = (torch.cat(part)[back] for part in zip(*parts, strict=True))
    if not crop:  # the image is a window of the plane around the patch
        patches = cut(patches, -(field.offset + position * field.stride), (height, width))
    return patches, position, activation


def _project_chunk(
    steps: Sequence[Step], x: Tensor, units: Units, field: ReceptiveField
) -> tuple[Tensor, Tensor]:
    """The patches (M, 3, R, R) and activations of M units."""
    assert units.position is not None
    patch_steps, window = steps_on_patches(steps, units.position)
    patches = cut_windows(x, window, units.image).contiguous(memory_format=layout(x))
    t = run(patch_steps, patches, keep=())  # its output is (M, C, 1, 1)
    at = (torch.arange(len(units.channel), device=x.device), units.channel, 0, 0)
    activation = t.output[at] if units.activation is None else units.activation
    signal = torch.zeros_like(t.output)
    signal[at] = activation
    pixels = backproject(t, signal)
    top, left = (window.low - field.offset - units.position * field.stride)[0].tolist()
    bottom, right = field.size - top - pixels.shape[2], field.size - left - pixels.shape[3]
    return F.pad(pixels, (left, right, top, bottom)), activation


def needed_windows(
    steps: Sequence[Step], position: Tensor
) -> tuple[dict[str, Window], dict[str, Window]]:
    """What units (M, 2) of the last step need: by value, and by step that reads.

    A convolution or pooling reads up to the always padded sides, which are not computed.
    """
    needed = {steps[-1].name: Window(position, position + 1)}
    read: dict[str, Window] = {}
    for step, inputs in reversed(list(with_inputs(steps))):
        window = needed[step.name]
        if is_local_cellwise(step):
            read[step.name] = window
        elif is_local_window(step):
            below, size = window.below(step.module), spatial_size(step.input_shapes[0])  # pyright: ignore
            read[step.name] = padding_mask(step.module, below, size)[1]
        else:
            raise UnsupportedNetwork(f"{step.name} reads more than a window")
        for name in inputs:
            window = read[step.name]
            needed[name] = needed[name].union(window) if name in needed else window
    return needed, read


def steps_on_patches(steps: Sequence[Step], position: Tensor) -> tuple[list[Step], Window]:
    """The steps for patches around what units (M, 2) see, and the windows of pixels that enter."""
    needed, read = needed_windows(steps, position)
    result: list[Step] = []
    for step, inputs in with_inputs(steps):
        names = []
        for name in inputs:
            names.append(_crop(result, step, name, read[step.name], needed[name]))
        module = step.module
        if not is_local_cellwise(step):
            below = needed[step.name].below(module)  # pyright: ignore[reportArgumentType]
            mask, _ = padding_mask(module, below, spatial_size(step.input_shapes[0]))
            padded = f"padding of {step.name}"
            result.append(Step(padded, mask, None, (names[0],)))
            names, module = [padded], without_padding(module, keep_stride=True)
        result.append(Step(step.name, module, None, tuple(names)))
    return result, needed[""]


def _crop(result: list[Step], step: Step, name: str, read: Window, whole: Window) -> str:
    """Let a step read the window `read` of a value that is computed on the window `whole`."""
    offset = read.low - whole.low
    if (offset != offset[0]).any():
        raise UnsupportedNetwork(f"units of several positions read {name} at several strides")
    first, size = offset[0].tolist(), read.size[0].tolist()
    if size == whole.size[0].tolist():
        return name
    crop = f"crop of {name or 'the image'} for {step.name}"
    result.append(Step(crop, Crop((first[0], first[1]), (size[0], size[1])), None, (name,)))
    return crop


def _largest_patch(steps: Sequence[Step], position: Tensor) -> int:
    """The numbers in the largest patch of one unit."""
    needed, _ = needed_windows(steps, position)
    columns = {step.name: (step.shape or torch.Size((1,)))[:-2].numel() for step in steps}
    return max(int(w.size.prod()) * columns.get(name, 3) for name, w in needed.items())
