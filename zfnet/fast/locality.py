"""Which operations keep a change of the image local, and the modules that compute them.

A convolution or pooling spreads a change by its kernel. A cellwise step, such as a ReLU, an
addition or a 1 x 1 convolution, does not spread it. Any other step, such as a flattening or a gate,
may spread it to all positions.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zfnet.graph import (
    IDENTITIES,
    Add,
    Call,
    Concat,
    Step,
    UnsupportedNetwork,
    Windowed,
    geometry,
    meta_shapes,
    with_inputs,
)
from zfnet.normalization import PaperInput
from zfnet.receptive_field import is_cellwise

IN_PLACE = (nn.ReLU, nn.ReLU6)
ALLOCATING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d, Add, Concat)


def prepare(steps: Sequence[Step], x: Tensor) -> list[Step]:
    """Return the steps with their inputs and shapes for images like x, and with faster modules.

    Filters are copied channels last, which is faster on CPUs. BatchNorm is folded into the
    convolution below, if nothing else reads that. An adaptive pooling that keeps the size becomes
    an identity.
    """
    shaped = meta_shapes(steps, x[:1])
    steps = [replace(step, inputs=inputs) for step, inputs in with_inputs(shaped)]
    readers = Counter(name for step in steps for name in step.inputs or ())
    modules: dict[str, nn.Module] = {}
    for step in steps:
        module, source = step.module, inputs_of(step)[0]
        below = modules.get(source)
        if isinstance(module, nn.Conv2d):
            module = copy.deepcopy(module).to(memory_format=torch.channels_last)  # pyright: ignore
        elif isinstance(module, Call) and module.expression.target == "view":
            module = _reshaping(module)
        elif isinstance(module, nn.AdaptiveAvgPool2d) and step.shape == step.input_shapes[0]:
            module = nn.Identity()
        elif (
            isinstance(module, nn.BatchNorm2d)
            and isinstance(below, nn.Conv2d)
            and readers[source] == 1
        ):
            modules[source], module = fuse_conv_bn_eval(below, module), nn.Identity()
        modules[step.name] = module
    return [replace(step, module=modules[step.name]) for step in steps]


def _reshaping(call: Call) -> Call:
    """The same call with `reshape`: channels-last maps cannot always be viewed."""
    expression = replace(call.expression, target="reshape")
    return Call(expression, dict(call.named_buffers(recurse=False)))


def inputs_of(step: Step) -> tuple[str, ...]:
    """The steps that a prepared step reads."""
    assert step.inputs is not None
    return step.inputs


def has_hooks(model: nn.Module) -> bool:
    """Whether a network has forward hooks, which may change what a module reads and returns."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def keeps_maps(step: Step) -> bool:
    """Whether a step turns maps into maps of one size, position by position."""
    shapes = (step.shape or torch.Size(), *step.input_shapes)
    maps = all(len(shape) > 2 for shape in shapes) and len({shape[-2:] for shape in shapes}) == 1
    return maps and is_cellwise(step)


def is_local_cellwise(step: Step) -> bool:
    """Whether each cell of a step depends on the same cell below, and on nothing else.

    Its position must not matter either, so a bias per position and a mean image are excluded.
    """
    module = step.module
    if isinstance(module, nn.Conv2d):
        return is_local_window(step) and geometry(module)[:3] == [[1, 1], [1, 1], [0, 0]]
    if isinstance(module, PaperInput) or not keeps_maps(step):
        return False
    return not isinstance(module, Call) or _follows_size(step)


def is_local_window(step: Step) -> bool:
    """Whether a step computes each cell from a window of plain cells below."""
    module = step.module
    if not isinstance(module, Windowed) or len(step.input_shapes[0]) != 3:
        return False
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return False
    if isinstance(module, nn.AvgPool2d) and _divides_by_position(module):
        return False
    try:
        geometry(module)
    except UnsupportedNetwork:  # pads with something else than zeros
        return False
    return True


def _divides_by_position(module: nn.AvgPool2d) -> bool:
    """Whether an average near a border is over fewer cells than elsewhere."""
    padding = any(geometry(module)[2])
    return module.ceil_mode or (padding and not module.count_include_pad)


def _follows_size(step: Step) -> bool:
    """Whether a call works on maps of any size: sizes and constants may be written in the code.

    It is called on the meta device, with two images that are one row and two columns larger.
    """
    module = step.module
    assert isinstance(module, Call)
    if module.expression.name in ("softmax", "log_softmax"):  # may sum over positions
        return False

    def larger(shape: torch.Size) -> tuple[int, ...]:
        return (2, *shape[:-2], shape[-2] + 1, shape[-1] + 2)

    inputs = [torch.empty(larger(shape), device="meta") for shape in step.input_shapes]
    try:
        output = copy.deepcopy(module).to("meta")(*inputs)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return isinstance(output, Tensor) and tuple(output.shape) == larger(step.shape or torch.Size())


def without_padding(module: nn.Module, *, keep_stride: bool = False) -> nn.Module:
    """The module for patches that hold their own padding; it shares its weights.

    A 1 x 1 convolution gets only the cells that it needs, so it has no stride either, except with
    `keep_stride`.
    """
    assert isinstance(module, Windowed)
    kernel, stride, _, dilation = (tuple(pair) for pair in geometry(module))
    if isinstance(module, nn.MaxPool2d):
        return nn.MaxPool2d(kernel, stride, 0, dilation)  # pyright: ignore[reportArgumentType]
    if isinstance(module, nn.AvgPool2d):
        divisor = module.divisor_override
        return nn.AvgPool2d(kernel, stride, 0, divisor_override=divisor)  # pyright: ignore
    channels = (module.in_channels, module.out_channels)
    options = {"dilation": dilation, "groups": module.groups, "bias": module.bias is not None}
    stride = (1, 1) if kernel == (1, 1) and not keep_stride else stride
    with torch.device("meta"):
        conv = nn.Conv2d(*channels, kernel, stride, **options)  # pyright: ignore
    conv.weight, conv.bias = module.weight, module.bias
    return conv


def overwriting_steps(steps: Sequence[Step], readers: Mapping[str, int]) -> set[str]:
    """The ReLUs of a node that may overwrite what they read, because nothing else reads it.

    What they read is computed by a step of the node, perhaps with an identity in between. `readers`
    counts the steps of the network that read each value.
    """
    by_name = {step.name: step for step in steps}

    def is_fresh(name: str) -> bool:
        step = by_name.get(name)
        if step is None or readers[name] != 1:
            return False
        if isinstance(step.module, IDENTITIES):
            return is_fresh(inputs_of(step)[0])
        return isinstance(step.module, ALLOCATING)

    rectifiers = [step for step in steps if isinstance(step.module, IN_PLACE)]
    return {step.name for step in rectifiers if is_fresh(inputs_of(step)[0])}
