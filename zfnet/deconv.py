"""The explicit deconvnet: from one activation down to pixels, by unpooling, rectifying and filtering (section 2.1).

The way down through one layer of the paper's Fig. 1, in the order of the code below:

    unpool at the switches (summing where windows share one)  ->  rectify  ->  transposed filters, no bias

Contrast normalisation is skipped, and the last filtering, into pixels, is not rectified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.activations import (
    NORMS,
    PASSED,
    ReceptiveField,
    Step,
    Trace,
    UnknownLayer,
    UnsupportedNetwork,
    conv_layers,
    evaluating,
    layout,
    receptive_field,
    record,
    seen,
    sizes,
    steps_until,
)
from zfnet.fields import Border, channels_last, cut_switches, cut_window, largest, trace_fields, whole_switches
from zfnet.model import PaperInput
from zfnet.windows import Window, geometry

LAST = torch.channels_last
CHUNK = 8_000_000  # numbers in a map of all units that are carried at once: more is slower, for it leaves the caches


@dataclass(frozen=True, eq=False)
class Projection:
    """Activations projected to pixels.

    `pixels` (N, 3, H, W) is signed, in units of the activation per unit of input; with `crop` it holds receptive-field patches
    (N, 3, R, R), zero where the field reaches outside the image. `activation` (N,), `position` (N, 2) as (row, column) in the
    map, `channel` (N,), and `box` (N, 4) as (top, left, bottom, right) in input pixels, clipped to the image. `corner`
    (N, 2) is the top left of the unclipped receptive field: `cut(x, p.corner, R)` gives the image patches beside `pixels`.
    """

    pixels: Tensor
    activation: Tensor
    position: Tensor
    channel: Tensor
    box: Tensor
    corner: Tensor


def project(
    model: nn.Module,
    x: Tensor,
    layer: str,
    channel: int | Tensor,
    position: tuple[int, int] | Tensor | None = None,
    *,
    activation: Tensor | None = None,
    crop: bool = False,
    collision: str = "sum",
    batch: int = 64,
) -> Projection:
    """Project one activation of each image in x (N, 3, H, W) to pixels, all others of its layer set to zero.

    `channel` is one feature map or N of them; `position` is (row, column), (N, 2) of them, or None: each map's strongest, the
    first in reading order where several are equal. One image with many channels gives as many projections. `activation` (N,)
    holds the units' activations where a search has found them: what only leads to them is then not computed. `crop` cuts the
    receptive field out (of a dense layer: the whole image). `collision` says what unpooling does where overlapping windows
    share a maximum: "sum", as back-propagation does, or "overwrite", as `max_unpool2d` does: the last window wins, which is
    wrong. At most `batch` projections are carried down at once, through what the units see and no more (zfnet/fields.py).
    Raises UnknownLayer, UnsupportedNetwork, IndexError for a channel or position outside the layer, or ValueError.
    """
    if collision not in ("sum", "overwrite"):
        raise ValueError(f"collision must be 'sum' or 'overwrite', got {collision!r}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    with evaluating(model), torch.no_grad():
        steps = steps_until(model, x, layer)
        if layer not in [step.layer for step in steps if step.layer]:
            names = ", ".join(step.layer for step in steps if step.layer)
            raise UnknownLayer(f"{layer!r} has no features of its own to project; choose one of {names}")
        of_maps = layer in conv_layers(steps)
        size = sizes(steps, (x.shape[2], x.shape[3])) if of_maps else {"": (1, 1)}
        image, channel, position = _select(steps, x, layer, size[""], channel, position)
        activation = None if activation is None else torch.as_tensor(activation, dtype=x.dtype, device=x.device)
        if activation is not None and (position is None or activation.shape != channel.shape):
            raise ValueError(f"activation needs a position, and shape {tuple(channel.shape)}; got {tuple(activation.shape)}")
        field = receptive_field(steps, layer) if of_maps else None
        # Overwriting is not local: a pooling window that the unit does not see may overwrite one that it sees.
        local = of_maps and collision == "sum"
        steps = channels_last(steps) if local and layout(x) == LAST else steps
        # One image with many units is passed whole, once: about the cost of four receptive fields of layer 5.
        once = len(x) == 1 and not (local and position is not None and len(image) <= 4)
        shared = record(steps, x) if once else None
        if shared is not None and position is None:
            position = _strongest(_maps(shared)[image, channel])
        order = torch.arange(len(image), device=x.device)
        if local and position is not None:  # units of like position are carried down together (zfnet/fields.py)
            order = torch.argsort(position[:, 0] * size[""][1] + position[:, 1], stable=True)
        at_once = min(batch, max(1, CHUNK // largest(steps))) if local else batch
        parts = []
        for rows in order.split(at_once):
            here, known = (None if given is None else given[rows] for given in (position, activation))
            units = (image[rows], channel[rows], here, known)
            parts.append(_project(steps, x, shared, units, field if local else None, collision))
    back = torch.argsort(order)
    pixels, strength, position = (torch.cat(part)[back].contiguous() for part in zip(*parts, strict=True))
    if field is None:  # a unit of a dense layer sees the whole image
        box = torch.tensor([0, 0, *x.shape[2:]], device=x.device).expand(len(image), 4)
        return Projection(pixels, strength, position, channel, box, torch.zeros_like(position))
    corner = field.offset + position * field.stride
    if crop and not local:
        pixels = cut(pixels, corner, field.size)
    elif local and not crop:
        pixels = cut(pixels, -corner, (x.shape[2], x.shape[3]))  # the image is a window of the plane around the patch
    return Projection(pixels, strength, position, channel, seen(steps, size, position), corner)


def _project(
    steps: list[Step], x: Tensor, shared: Trace | None, units: tuple, field: ReceptiveField | None, collision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, activations and positions of M units: whole images, or with a `field` patches of its size.

    `units` are their images, channels, and, or None, positions and activations.
    """
    image, channel, position, activation = units
    n = row = torch.arange(len(image), device=x.device)
    if field and position is not None and shared is None:
        t, window = trace_fields(steps, x, image, position, only_switches=activation is not None)
        activation = t[steps[-1].name][n, channel, 0, 0] if activation is None else activation
    else:
        t, row = (shared, image) if shared is not None else (record(steps, x[image]), n)
        maps = _maps(t)
        position = _strongest(maps[row, channel]) if position is None else position
        activation = maps[row, channel, position[:, 0], position[:, 1]] if activation is None else activation
        if field is None:
            signal = torch.zeros_like(maps[:1]).repeat(len(image), 1, 1, 1)
            signal[n, channel, position[:, 0], position[:, 1]] = activation
            signal = signal.reshape(len(image), *t[steps[-1].name].shape[1:])
            return backproject(t, signal, image=row, collision=collision), activation, position
        t, window = cut_switches(steps, x, whole_switches(t), row, position)
    return project_fields(t, window, field, channel, position, activation), activation, position


def project_fields(
    t: Trace, window: Window, field: ReceptiveField, channel: Tensor, position: Tensor, activation: Tensor
) -> Tensor:
    """Carry M units down through a trace of what they see, `window` of the pixels: patches (M, 3, R, R) of the `field`."""
    signal = torch.empty(
        len(channel), channels_of(t.steps), 1, 1, dtype=activation.dtype, device=activation.device, memory_format=LAST
    )
    signal.zero_()[torch.arange(len(channel), device=signal.device), channel, 0, 0] = activation
    patch = backproject(t, signal)
    top, left = (window.low - field.offset - position * field.stride)[0].tolist()  # the same for all
    bottom, right = field.size - top - patch.shape[2], field.size - left - patch.shape[3]
    return F.pad(patch, (left, right, top, bottom))


def _maps(t: Trace) -> Tensor:
    """The last layer's maps (N, C, H, W); a dense layer's are 1 x 1."""
    maps = t[t.steps[-1].name]
    return maps if maps.ndim == 4 else maps[:, :, None, None]


def _strongest(maps: Tensor) -> Tensor:
    """Where each of M maps (M, H, W) is strongest, the first in reading order: (M, 2)."""
    best = maps.flatten(1).argmax(1)
    return torch.stack([best // maps.shape[2], best % maps.shape[2]], 1)


def channels_of(steps: Sequence[Step]) -> int:
    """The number of features of the last layer of the steps."""
    weighted = [step.module for step in steps if isinstance(step.module, (nn.Conv2d, nn.Linear))]
    return weighted[-1].weight.shape[0]


@torch.no_grad()
def backproject(
    t: Trace, signal: Tensor, *, image: Tensor | None = None, collision: str = "sum", until: str | None = None
) -> Tensor:
    """Carry a signal in the trace's last layer down to pixels: (M, C, H, W) or (M, C) -> (M, 3, H, W), signed.

    `image` (M,) says which traced image each row of the signal belongs to; by default they are the same in number and
    order. `until` stops above a step: "pool1" gives the signal that is about to be unpooled there. This is the deconvnet
    itself; `project` seeds it with single activations.
    """
    given = signal
    for step in reversed(t.steps):
        if step.name == until:
            break
        if isinstance(step.module, (nn.ReLU, Border)) and signal.data_ptr() == given.data_ptr():
            signal = signal.clone()  # the caller's is not overwritten
        signal = _down(step, signal, t, image, collision)
    return signal


def _down(step: Step, signal: Tensor, t: Trace, image: Tensor | None, collision: str) -> Tensor:
    """Invert one step: (M, ...) of its output's shape to (M, ...) of its input's. ReLU and Border overwrite the signal."""
    module, size = step.module, t.inputs[step.name]
    match module:
        case nn.MaxPool2d():
            switches = t.switches[step.name] if image is None else t.switches[step.name][image]
            return unpool(signal, switches, size[-2:], module, collision)
        case nn.ReLU():
            return signal.relu_()
        case nn.Conv2d():
            return filter_down(module, signal, size[-2:])
        case nn.Linear():
            return signal @ module.weight
        case nn.Flatten():
            return signal.reshape(len(signal), *size[1:])
        case nn.BatchNorm1d() | nn.BatchNorm2d() if module.running_var is not None:
            # Part of the filter, as if folded into it: w' = w g / sqrt(v + eps).
            gain = torch.rsqrt(module.running_var + module.eps)
            gain = gain if module.weight is None else gain * module.weight
            return signal * gain.view(-1, *[1] * (signal.ndim - 2))
        case PaperInput():
            return signal * module.scale
        case Border():
            return module.down(signal)
        case nn.AdaptiveAvgPool2d():
            if signal.shape[-2:] == size[-2:]:
                return signal
            with torch.enable_grad():
                below = torch.zeros(len(signal), *size[1:], dtype=signal.dtype, device=signal.device, requires_grad=True)
                return torch.autograd.grad(module(below), below, signal)[0]  # linear: its transpose
    if isinstance(module, (*NORMS, *PASSED)):
        return signal  # normalisation is skipped on the way down
    raise UnsupportedNetwork(f"{step.name} is a {type(module).__name__}, which the deconvnet cannot invert")


def filter_down(conv: nn.Conv2d, signal: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Filter with the transposed filters, without bias: (M, C, h, w) -> (M, C', H, W), with `size` (H, W) as traced.

    The output padding is what makes the transpose land on the traced size: conv1 maps 224 to 110, whose plain transpose
    would be 223.
    """
    kernel, stride, padding, dilation = geometry(conv)
    sides = zip(size, signal.shape[-2:], kernel, stride, padding, dilation, strict=True)
    extra = [full - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for full, n, k, s, p, d in sides]
    dense = conv.groups == 1 and conv.dilation == (1, 1)
    if signal.shape[2:] == (1, 1) and dense and not any(padding) and not any(extra) and layout(conv.weight) == LAST:
        return _from_one_cell(conv, signal)
    strided = dense and conv.stride[0] == conv.stride[1] > 1
    if strided and conv.in_channels * conv.stride[0] ** 2 <= 32:  # the filtering into pixels
        return _by_phase(conv, signal, (size[0], size[1]))
    return F.conv_transpose2d(signal, conv.weight, None, stride, padding, extra, conv.groups, dilation)


def _from_one_cell(conv: nn.Conv2d, signal: Tensor) -> Tensor:
    """The same from maps of one cell: a product of matrices. The filters lie channels last."""
    weight = conv.weight.permute(0, 2, 3, 1)  # (C, k, k, C')
    return (signal[:, :, 0, 0] @ weight.flatten(1)).view(-1, *weight.shape[1:]).permute(0, 3, 1, 2)


def _by_phase(conv: nn.Conv2d, signal: Tensor, size: tuple[int, int]) -> Tensor:
    """The same with a stride s, as s x s convolutions at stride 1, one for each phase of the pixels, interleaved.

    With n = s u + i, y[s u + i] = sum over t of signal[u - t] w[i + s t]. Where there are few channels below, CPUs are twice
    as fast at this as at the transposed convolution.
    """
    s, weight = conv.stride[0], conv.weight  # weight (C, C', k, k)
    taps = [-(-k // s) for k in conv.kernel_size]
    (c, c_below), (rows, columns) = weight.shape[:2], taps
    weight = F.pad(weight, (0, columns * s - weight.shape[3], 0, rows * s - weight.shape[2]))
    weight = weight.view(c, c_below, rows, s, columns, s).flip(2, 4).permute(1, 3, 5, 0, 2, 4).reshape(-1, c, rows, columns)
    pixels = F.pixel_shuffle(F.conv2d(signal, weight, None, 1, (rows - 1, columns - 1)), s)
    top, left = geometry(conv)[2]
    pixels = pixels[:, :, top : top + size[0], left : left + size[1]]
    return F.pad(pixels, (0, size[1] - pixels.shape[3], 0, size[0] - pixels.shape[2]))  # cells that no filter reaches


def unpool(
    signal: Tensor, switches: Tensor, size: torch.Size | tuple[int, int], pool: nn.MaxPool2d, collision: str = "sum"
) -> Tensor:
    """Put each pooled value back at its switch: (M, C, h, w) -> (M, C, H, W), with `size` (H, W) and zeros elsewhere.

    3 x 3 windows at stride 2 overlap, so up to four share one maximum: "sum" adds their values, as the transpose of max pooling
    does; "overwrite" keeps the last window's in reading order. Both are deterministic on every device: a CUDA scatter is not,
    so there each cell gathers from the windows that cover it.
    """
    height, width = size
    if collision == "sum" and signal.device.type == "cpu":
        kernel, stride, padding, dilation = geometry(pool)
        order = LAST if switches.is_contiguous(memory_format=LAST) else torch.contiguous_format
        below = torch.empty(*signal.shape[:2], height, width, dtype=signal.dtype, memory_format=order)  # only its form is read
        sum_at = torch.ops.aten.max_pool2d_with_indices_backward
        return sum_at(signal, below, kernel, stride, padding, dilation, pool.ceil_mode, switches)
    return gather_unpool(signal, switches, (height, width), pool, collision)


def gather_unpool(
    signal: Tensor, switches: Tensor, size: tuple[int, int], pool: nn.MaxPool2d, collision: str = "sum"
) -> Tensor:
    """`unpool` without a scatter: visit, for all cells at once, each of the few windows that cover a cell."""
    (height, width), (h, w) = size, signal.shape[-2:]
    both = zip(*geometry(pool), strict=True)
    (reach_r, stride_r, pad_r), (reach_c, stride_c, pad_c) = (
        (-(-(dilation * (kernel - 1) + 1) // stride), stride, padding)  # windows that can cover a cell, along each side
        for kernel, stride, padding, dilation in both
    )
    rows, columns = (torch.arange(n, device=signal.device) for n in size)
    cell = rows[:, None] * width + columns
    result = torch.zeros(*signal.shape[:2], height, width, dtype=signal.dtype, device=signal.device)
    for back_r in reversed(range(reach_r)):  # first to last window in reading order, so the last overwrites
        for back_c in reversed(range(reach_c)):
            r, c = (rows + pad_r) // stride_r - back_r, (columns + pad_c) // stride_c - back_c
            inside = ((r >= 0) & (r < h))[:, None] & ((c >= 0) & (c < w))
            r, c = r.clamp(0, h - 1), c.clamp(0, w - 1)
            hit = inside & (switches[:, :, r][..., c] == cell)
            value = signal[:, :, r][..., c]
            if collision == "sum":
                result += torch.where(hit, value, torch.zeros_like(value))
            else:
                result = torch.where(hit, value, result)
    return result


def cut(pixels: Tensor, corner: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Cut a patch of `size` from each image (N, C, H, W) at corner (N, 2), zero outside: (N, C, size, size)."""
    return cut_window(pixels, Window(corner, corner + corner.new_tensor(size))).contiguous()


def patches_inside(p: Projection, x: Tensor, field: int) -> tuple[Tensor, Tensor]:
    """Projections (M, C, H, W) and their images, cut to receptive fields of `field` pixels: (M, C, field, field) each.

    At the border of the image the patch is the nearest one that lies inside.
    """
    corner = p.corner.clamp(0, x.shape[-1] - field)
    return cut(p.pixels, corner, field), cut(x, corner, field)


def whole_numbers(value, name: str, device: torch.device) -> Tensor:
    """A tensor of int64 from whole numbers. Raises ValueError for others, which would be cut off silently."""
    try:
        value = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be whole numbers, got {value!r}") from None
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name} must be whole numbers, got {value.dtype}")
    return value.to(torch.int64)


def _select(steps: list[Step], x: Tensor, layer: str, size: tuple[int, int], channel, position):
    """Resolve channel and position to (image, channel, position or None) of M projections: (M,), (M,), (M, 2), all int64."""
    n, channels, (height, width) = len(x), channels_of(steps), size
    channel = whole_numbers(channel, "channel", x.device).reshape(-1)
    if position is not None:
        position = whole_numbers(position, "position", x.device)
        if position.shape[-1:] != (2,) or position.ndim > 2:
            raise ValueError(f"position must be (row, column) or (N, 2) of them, got shape {tuple(position.shape)}")
        position = position.reshape(-1, 2)
        if ((position < 0) | (position >= position.new_tensor(size))).any():
            raise IndexError(f"{layer} has positions (0, 0) to ({height - 1}, {width - 1}), got {position.tolist()}")
    lengths = {n, len(channel), 1 if position is None else len(position)}
    count = max(lengths)
    if not lengths <= {1, count}:
        given = f"{len(channel)} channels" + ("" if position is None else f", {len(position)} positions")
        raise ValueError(f"{n} images and {given} do not fit together: give one for all, or one for each")
    if ((channel < 0) | (channel >= channels)).any():
        raise IndexError(f"{layer} has channels 0 to {channels - 1}, got {channel[(channel < 0) | (channel >= channels)][0]}")
    image = torch.arange(n, device=x.device).expand(count)
    return image, channel.expand(count), None if position is None else position.expand(count, 2)
