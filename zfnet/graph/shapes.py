"""The shapes of a network's maps, by arithmetic or on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.graph.build import is_chain
from zfnet.graph.layers import with_inputs
from zfnet.graph.operations import UnsupportedNetwork
from zfnet.graph.steps import Step
from zfnet.normalization import PaperInput

Size = tuple[int, int]  # height and width
DENSE = (nn.Flatten, nn.Linear, nn.AdaptiveAvgPool2d)  # no map of a chain's arithmetic is above
Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def with_shapes(steps: Sequence[Step], x: Tensor) -> list[Step]:
    """Return the steps with the shapes of their inputs and outputs for images like x (N, C, H, W).

    Chains are checked by arithmetic and do not change.

    Raises:
        ValueError: If x does not fit the network. The message names the step.
    """
    if is_chain(steps):
        check_fits(steps, x)
        return list(steps)
    pairs = (
        pair
        for step, names in with_inputs(steps)
        for pair in zip(names, step.input_shapes, strict=False)
    )
    if {shape for name, shape in pairs if not name} == {x.shape[1:]}:
        return list(steps)  # known for images of this shape
    return meta_shapes(steps, x)


def meta_shapes(steps: Sequence[Step], x: Tensor) -> list[Step]:
    """Return the steps with their shapes, from a pass on the meta device.

    Raises:
        ValueError: If x does not fit the network. The message names the step.
    """
    values: dict[str, Any] = {"": torch.empty_like(x, device="meta")}
    shaped = []
    for step, inputs in with_inputs(steps):
        read = [values[name] for name in inputs]
        try:
            value = values[step.name] = _call_on_meta(step.module, read)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = [value.shape[1:] for value in read if isinstance(value, Tensor)]
            expected = _expected_input(step.module, shapes[0]) if len(shapes) == 1 else None
            reason = (str(error) or type(error).__name__).splitlines()[0]
            reason = f"it expects {expected}" if expected else reason
            raise ValueError(
                f"x {tuple(x.shape)} does not fit the network at {step.name}: {reason}"
            ) from error
        shape, *input_shapes = (
            v.shape[1:] if isinstance(v, Tensor) else torch.Size() for v in (value, *read)
        )
        shaped.append(replace(step, shape=shape, input_shapes=tuple(input_shapes)))
    return shaped


def _call_on_meta(module: nn.Module, inputs: Sequence[Any]) -> Any:
    """Call a module with its weights on the meta device."""
    named = [*module.named_parameters(), *module.named_buffers()]
    weights = {name: tensor.detach().to("meta") for name, tensor in named}
    if not weights:
        return module(*inputs)
    return torch.func.functional_call(module, weights, tuple(inputs))


def spatial_size(shape: Sequence[int]) -> Size:
    """The height and width of maps (C, H, W); 1 x 1 for a vector (C,)."""
    return (shape[-2], shape[-1]) if len(shape) > 2 else (1, 1)


def sizes_of(steps: Sequence[Step], x: Tensor) -> dict[str, Size]:
    """Return the size (h, w) of each step's input, and under "" of the last step's output.

    The steps come from `network_steps`, for images like x.
    """
    if is_chain(steps):
        dense = (i for i, step in enumerate(steps) if isinstance(step.module, DENSE))
        below = next(dense, len(steps))
        sizes = map_sizes(steps[:below], (x.shape[2], x.shape[3]))
        if below == len(steps):
            return sizes
        one = {step.name: (1, 1) for step in steps[below + 1 :]} | {"": (1, 1)}
        return sizes | {steps[below].name: sizes[""]} | one
    sizes = {step.name: spatial_size(step.input_shapes[0]) for step in steps}
    return sizes | {"": spatial_size(steps[-1].shape or ())}


def map_sizes(steps: Sequence[Step], size: Size) -> dict[str, Size]:
    """Return the size (h, w) of each step's input, and under "" of the last step's output.

    Raises:
        ValueError: If the image is too small for the layers.
        UnsupportedNetwork: If an adaptive pooling is among the steps.
    """
    sizes = {}
    for step in steps:
        sizes[step.name] = size
        size = output_size(step.module, size)
        if min(size) < 1:
            image = sizes[steps[0].name]
            raise ValueError(
                f"an image of {image} pixels does not fit the network at {step.name}: it is too "
                "small"
            )
    return sizes | {"": size}


def check_fits(steps: Sequence[Step], x: Tensor) -> None:
    """Raise ValueError, naming the step, where the network cannot take images of this shape."""
    shape = tuple(x.shape[1:])
    for step in steps:
        expected = _expected_input(step.module, shape)
        if expected is None:
            shape = _output_shape(step.module, shape)
            expected = "a larger image" if min(shape) < 1 else None
        if expected:
            raise ValueError(
                f"x {tuple(x.shape)} does not fit the network at {step.name}: it expects {expected}"
            )


def _expected_input(module: nn.Module, shape: tuple[int, ...]) -> str | None:
    """What a module expects where its input's shape (C, H, W) or (F,) is wrong, else None."""
    match module:
        case nn.Conv2d() if len(shape) != 3 or shape[0] != module.in_channels:
            return f"{module.in_channels} channels, not {shape[0]}"
        case nn.Linear() if shape[-1] != module.in_features:
            return f"{module.in_features} features, not {shape[-1]}"
        case nn.BatchNorm1d() | nn.BatchNorm2d() if shape[0] != module.num_features:
            return f"{module.num_features} channels, not {shape[0]}"
        case PaperInput() if any(
            n not in (1, size) for n, size in zip(module.mean.shape, shape, strict=True)
        ):
            return f"images like its mean {tuple(module.mean.shape)}"
    return None


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (C, H, W) or (F,) of a module's output; not positive if the input is too small."""
    match module:
        case nn.Conv2d():
            return (module.out_channels, *output_size(module, (shape[1], shape[2])))
        case nn.MaxPool2d():
            return (shape[0], *output_size(module, (shape[1], shape[2])))
        case nn.Linear():
            return (*shape[:-1], module.out_features)
        case nn.AdaptiveAvgPool2d():
            return tuple(
                F.adaptive_avg_pool2d(
                    torch.empty(1, *shape, device="meta"), module.output_size
                ).shape[1:]
            )
        case nn.Flatten():
            return tuple(
                torch.empty(1, *shape, device="meta")
                .flatten(module.start_dim, module.end_dim)
                .shape[1:]
            )
    return shape


def geometry(module: Windowed) -> list[list[int]]:
    """Return kernel, stride, padding and dilation, each [rows, columns].

    Raises:
        UnsupportedNetwork: If a convolution does not pad with zeros, or pads unevenly.
    """
    if getattr(module, "padding_mode", "zeros") != "zeros":
        raise UnsupportedNetwork(f"{module}: only padding with zeros is supported")
    names = ("kernel_size", "stride", "padding", "dilation")
    values = [getattr(module, name, 1) for name in names]  # average pooling has no dilation
    kernel, stride, padding, dilation = (
        list(v) if isinstance(v, tuple) else [v, v] for v in values
    )
    if isinstance(module.padding, str):  # "same" (stride 1, by PyTorch's own rule) or "valid"
        total = [
            d * (k - 1) if module.padding == "same" else 0
            for k, d in zip(kernel, dilation, strict=True)
        ]
        if any(n % 2 for n in total):
            raise UnsupportedNetwork(f"{module}: pads one side more than the other")
        padding = [n // 2 for n in total]
    return [kernel, stride, padding, dilation]


def overlap(
    pool: nn.MaxPool2d | nn.AdaptiveMaxPool2d, size: Size, pooled_size: Sequence[int]
) -> Size:
    """How many neighboring windows of a pooling may share a cell, by rows and by columns.

    Args:
        pool: The pooling.
        size: The size (h, w) of its input.
        pooled_size: The size of its output.
    """
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        rows, columns = (1 + -(-m // n) for n, m in zip(size, pooled_size, strict=True))
        return rows, columns
    kernel, stride, _, dilation = geometry(pool)
    sides = zip(kernel, stride, dilation, strict=True)
    rows, columns = (-(-(d * (k - 1) + 1) // s) for k, s, d in sides)
    return rows, columns


def is_windowed(module: nn.Module) -> TypeGuard[Windowed]:
    """Whether each cell is computed from a window. Raises UnsupportedNetwork if it may differ."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        raise UnsupportedNetwork(
            f"{module} is below a convolution: its cells have windows of several sizes"
        )
    return isinstance(module, Windowed)


def output_size(module: nn.Module, size: Size) -> Size:
    """Return the size (h, w) of a module's output; 0 or less if the input is too small.

    Raises UnsupportedNetwork as `is_windowed` does.
    """
    if not is_windowed(module):
        return size
    ceil_mode = not isinstance(module, nn.Conv2d) and module.ceil_mode
    sides = zip(size, *geometry(module), strict=True)
    height, width = (_output_side(*side, ceil_mode=ceil_mode) for side in sides)
    return height, width


def _output_side(
    n: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool
) -> int:
    """PyTorch's rule: in ceil mode the last window begins inside the map or its left padding."""
    span = n + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= n + padding else count
