"""The deconvnet: project an activation to pixels (Zeiler & Fergus, section 2.1 and Fig. 1).

To examine one activation, set all other activations of its layer to zero. Then invert the layers
below it, from top to bottom, each in three steps:

    1. unpool    place each value at the switch that the forward pass recorded
    2. rectify   max(0, signal)
    3. filter    convolve with the transposed filters, without bias

Contrast normalization is skipped in the backward pass. The last filtering, into pixels, is not
rectified, so pixels are signed. The result differs from the gradient in step 2 only: a gradient
passes a ReLU where the forward signal was positive, the deconvnet where the backward signal
is. Where the network branches, the signals of its branches are added (zfnet/transpose.py).

Example:
    Project the strongest activation of conv2's map 17 with the three steps alone.

    >>> import torch, zfnet
    >>> from zfnet.deconv import filter_transposed, rectify, unpool
    >>> model = zfnet.load("imagenet65k")
    >>> x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    >>> t = zfnet.trace(model, x, until="conv2")
    >>> maps = t["conv2"]                                                # (1, 256, 26, 26)
    >>> r, c = divmod(int(maps[0, 17].argmax()), maps.shape[3])
    >>> signal = torch.zeros_like(maps)
    >>> signal[0, 17, r, c] = maps[0, 17, r, c]
    >>> with torch.no_grad():
    ...     signal = filter_transposed(model.conv2, rectify(signal), (55, 55))  # (1, 96, 55, 55)
    ...     signal = unpool(signal, t.switches["pool1"], (110, 110), model.pool1)
    ...     pixels = filter_transposed(model.conv1, rectify(signal), (224, 224))  # (1, 3, 224, 224)
    >>> torch.testing.assert_close(pixels, zfnet.project(model, x, "conv2", 17).pixels)
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.forward import Trace
from zfnet.graph import Size, Step, geometry, overlap, with_inputs
from zfnet.transpose import transpose


@torch.no_grad()
def backproject(
    t: Trace, signal: Tensor, *, collision: str = "sum", until: str | None = None, rule=None
) -> Tensor:
    """Propagate a signal in the last layer of a trace to pixels.

    Args:
        t: The forward pass of N images.
        signal: The signal, in the shape of the last layer: (N, C, H, W) or (N, C).
        collision: What `unpool` does where windows share a switch.
        until: Stop above this step; "pool1" returns the signal before it is unpooled there.
        rule: Replaces `invert`.

    Returns:
        Pixels (N, 3, H, W), signed.
    """
    signals = {t.steps[-1].name: signal}  # of each step's output; "" is the pixels
    for step, inputs in reversed(list(with_inputs(t.steps))):
        if step.name == until or step.name not in signals:
            continue
        below = (rule or invert)(step, signals.pop(step.name), t, collision)
        for name, part in zip(inputs, below if len(inputs) > 1 else [below], strict=True):
            if part is not None:
                signals[name] = signals[name] + part if name in signals else part  # pyright: ignore
    return signals[until or ""]


def invert(step: Step, signal: Tensor, t: Trace, collision: str = "sum") -> Tensor | tuple:
    """Propagate a signal through one step: from the shape of its output to that of its input."""
    module, size = step.module, t.inputs[step.name]
    match module:
        case nn.MaxPool2d() | nn.AdaptiveMaxPool2d():
            return unpool(signal, t.switches[step.name], (size[-2], size[-1]), module, collision)
        case nn.ReLU():
            return rectify(signal)
        case nn.Conv2d():
            return filter_transposed(module, signal, (size[-2], size[-1]))
        case nn.Linear():
            return signal @ module.weight  # (N, F) -> (N, F')
        case nn.Flatten():
            return signal.reshape(len(signal), *size[1:])  # (N, C H W) -> (N, C, H, W)
    return transpose(step, signal, size)


def unpool(
    signal: Tensor,
    switches: Tensor,
    size: Size,
    pool: nn.MaxPool2d | nn.AdaptiveMaxPool2d,
    collision: str = "sum",
) -> Tensor:
    """Place each pooled value at its switch, with zeros elsewhere.

    3 x 3 windows at stride 2 overlap, so up to four windows share one maximum. Their values must be
    added, as in back-propagation through max pooling. `torch.nn.MaxUnpool2d` keeps one of them.

    Args:
        signal: Pooled values (N, C, h, w).
        switches: Flat indices (N, C, h, w) into the H x W map below.
        size: (H, W).
        pool: The pooling that recorded the switches.
        collision: "sum", or "overwrite": the last window in reading order wins.

    Returns:
        The unpooled signal (N, C, H, W).
    """
    below = signal.new_zeros(*signal.shape[:2], size[0] * size[1])  # (N, C, H W)
    if collision == "overwrite":
        signal = _keep_last(signal, switches, size[0] * size[1])
    # Windows this far apart do not overlap. Without repeated indices, a scatter is deterministic.
    rows, columns = overlap(pool, size, signal.shape[-2:])
    for r, c in itertools.product(range(rows), range(columns)):
        index = switches[:, :, r::rows, c::columns].flatten(2)
        below.scatter_add_(2, index, signal[:, :, r::rows, c::columns].flatten(2))
    return below.unflatten(2, size)


def _keep_last(signal: Tensor, switches: Tensor, cells: int) -> Tensor:
    """Set values (N, C, h, w) to zero where a later window has the same switch."""
    index = switches.flatten(2)  # (N, C, h w)
    window = torch.arange(index.shape[2], device=index.device).expand_as(index)
    last = window.new_full((*index.shape[:2], cells), -1).scatter_reduce(2, index, window, "amax")
    return torch.where(last.gather(2, index) == window, signal.flatten(2), 0).view_as(signal)


def rectify(signal: Tensor) -> Tensor:
    """Set the negative values of the backward signal to zero."""
    return F.relu(signal)


def filter_transposed(conv: nn.Conv2d, signal: Tensor, size: Size) -> Tensor:
    """Convolve with the transposed filters, without bias: (N, C, h, w) -> (N, C', H, W).

    Several input sizes give the same output size: conv1 maps 224 and 223 pixels to 110. The output
    padding selects the size (H, W) of the forward pass.
    """
    kernel, stride, padding, dilation = geometry(conv)
    sides = zip(size, signal.shape[-2:], kernel, stride, padding, dilation, strict=True)
    output_padding = [
        full - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for full, n, k, s, p, d in sides
    ]
    return F.conv_transpose2d(
        signal, conv.weight, None, stride, padding, output_padding, conv.groups, dilation
    )
