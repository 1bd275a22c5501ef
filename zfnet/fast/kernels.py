"""Faster computations of single steps: unpooling, filtering, rectifying, and the maxima of maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet import deconv, occlusion
from zfnet.fast.padding import Crop, PaddingMask
from zfnet.forward import Trace, layout, run
from zfnet.graph import Size, Step, geometry, step_layers
from zfnet.units import as_maps

CHANNELS_LAST = torch.channels_last
FEW_CHANNELS = 32  # channels times phases, up to which filtering by phase pays


@torch.no_grad()
def backproject(
    t: Trace, signal: Tensor, *, collision: str = "sum", until: str | None = None, rule=None
) -> Tensor:
    """Accelerate `deconv.backproject` with the kernels below, unless there is another rule."""
    # In a network with branches, two of them may hold the same signal.
    in_place = all(step.inputs is None for step in t.steps)

    def invert(step: Step, values: Tensor, t: Trace, collision: str) -> Any:
        size = t.inputs[step.name]
        match step.module:
            case nn.MaxPool2d() if collision == "sum":
                return unpool(values, t.switches[step.name], (size[-2], size[-1]), step.module)
            case nn.ReLU() if in_place and values.data_ptr() != signal.data_ptr():
                return values.relu_()  # the caller's is not overwritten
            case nn.Conv2d():
                return filter_transposed(step.module, values, (size[-2], size[-1]))
            case PaddingMask():
                return step.module.down(values)
            case Crop():
                return step.module.down(values, size)
        return deconv.invert(step, values, t, collision)

    return deconv.backproject(t, signal, collision=collision, until=until, rule=rule or invert)


def unpool(signal: Tensor, switches: Tensor, size: Size, pool: nn.MaxPool2d) -> Tensor:
    """Accelerate `deconv.unpool` on a CPU, by PyTorch's backward pass of max pooling."""
    if signal.device.type != "cpu":  # not deterministic there
        return deconv.unpool(signal, switches, size, pool)
    kernel, stride, padding, dilation = geometry(pool)
    memory_format = (
        CHANNELS_LAST
        if switches.is_contiguous(memory_format=CHANNELS_LAST)
        else torch.contiguous_format
    )
    below = torch.empty(
        *signal.shape[:2],
        *size,
        dtype=signal.dtype,
        device=signal.device,
        memory_format=memory_format,
    )
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return backward(signal, below, kernel, stride, padding, dilation, pool.ceil_mode, switches)


def filter_transposed(conv: nn.Conv2d, signal: Tensor, size: Size) -> Tensor:
    """Accelerate `deconv.filter_transposed` for maps of one cell, and into pixels."""
    kernel, stride, padding, dilation = geometry(conv)
    dense = conv.groups == 1 and dilation == [1, 1]
    one_cell = signal.shape[2:] == (1, 1) and padding == [0, 0] and list(size) == kernel
    if one_cell and dense and layout(conv.weight) == CHANNELS_LAST:
        return _from_one_cell(conv, signal)
    strided = dense and stride[0] == stride[1] > 1
    if strided and conv.in_channels * stride[0] ** 2 <= FEW_CHANNELS:
        return _by_phase(conv, signal, size)
    return deconv.filter_transposed(conv, signal, size)


def _from_one_cell(conv: nn.Conv2d, signal: Tensor) -> Tensor:
    """Filter maps (M, C, 1, 1) by a matrix product: (M, C', k, k). Filters are channels last."""
    weight = conv.weight.permute(0, 2, 3, 1)  # (C, k, k, C')
    return (signal[:, :, 0, 0] @ weight.flatten(1)).view(-1, *weight.shape[1:]).permute(0, 3, 1, 2)


def _by_phase(conv: nn.Conv2d, signal: Tensor, size: Size) -> Tensor:
    """Filter with stride s by s x s convolutions with stride 1, one per phase, interleaved.

    With n = s u + i, y[s u + i] = sum over t of signal[u - t] w[i + s t]. With few channels below,
    CPUs are twice as fast at this as at the transposed convolution.
    """
    s, weight = conv.stride[0], conv.weight  # weight (C, C', k, k)
    rows, columns = (-(-k // s) for k in conv.kernel_size)  # taps per phase
    channels, channels_below = weight.shape[:2]
    weight = F.pad(weight, (0, columns * s - weight.shape[3], 0, rows * s - weight.shape[2]))
    weight = weight.view(channels, channels_below, rows, s, columns, s).flip(2, 4)
    weight = weight.permute(1, 3, 5, 0, 2, 4).reshape(
        -1, channels, rows, columns
    )  # (C' s s, C, rows, columns)
    pixels = F.pixel_shuffle(F.conv2d(signal, weight, None, 1, (rows - 1, columns - 1)), s)
    top, left = geometry(conv)[2]
    pixels = pixels[:, :, top : top + size[0], left : left + size[1]]
    return F.pad(
        pixels, (0, size[1] - pixels.shape[3], 0, size[0] - pixels.shape[2])
    )  # cells that no filter reaches


def pass_images(model: nn.Module, steps: Sequence[Step], x: Tensor) -> tuple[Tensor, Tensor]:
    """Accelerate `occlusion.pass_images`: convolutions on CPUs are faster on channels-last maps.

    A network that calls `view` on its maps may work in the given memory format only.
    """
    converted = x.contiguous(memory_format=CHANNELS_LAST)
    if not steps and converted is not x:
        with suppress(ValueError):
            return occlusion.pass_images(model, steps, converted)
        return occlusion.pass_images(model, steps, x)
    return occlusion.pass_images(model, steps, converted)


def strongest_positions(
    steps: Sequence[Step], layers: Sequence[str], x: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Accelerate `top.strongest_positions`: channels last, each map dropped once it is read."""
    maxima = {}

    def read(step: Step, output: Tensor) -> None:
        for layer in step_layers(step):
            if layer in layers:
                maxima[layer] = _first_maxima(as_maps(output))

    run(steps, x.contiguous(memory_format=CHANNELS_LAST), keep=(), switches=False, visit=read)
    return maxima


def _first_maxima(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima (B, C) of maps (B, C, H, W), and their first positions (B, C, 2) in reading order.

    The maxima of the rows, and then of one row per map, read channels-last memory in order.
    """
    maps = maps.permute(0, 2, 3, 1)  # (B, H, W, C)
    value, row = maps.amax(2).max(1)  # (B, C); max returns the first
    line = maps.gather(1, row[:, None, None].expand(-1, 1, maps.shape[2], -1))[:, 0]  # (B, W, C)
    return value, torch.stack([row, line.max(1).indices], -1)
