"""The deconvnet's inverse of operations that the paper's network does not have.

An addition sends the signal to both branches, a concatenation splits it, and
an average is spread over its window. All of these are linear in evaluation mode, so they are
inverted by their transpose, as the filters are. ReLU6 and leaky ReLU rectify the signal, as ReLU
does. The normalization across feature maps is skipped, as in the paper.

Operations that are neither linear nor rectifiers have no inverse; `check_invertible` names them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from zfnet.graph import (
    IDENTITIES,
    NORMS,
    RECTIFIERS,
    SIZES,
    Add,
    Call,
    ChannelsFirst,
    Concat,
    Expression,
    Operand,
    Step,
    UnsupportedNetwork,
)
from zfnet.normalization import PaperInput

LINEAR_MODULES = (
    nn.Conv2d, nn.Linear, nn.Flatten, nn.Unflatten, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, Add,
    Concat, PaperInput, nn.ConvTranspose2d, nn.Upsample, nn.PixelShuffle, nn.ChannelShuffle,
    nn.ZeroPad2d, nn.ReflectionPad2d,
    nn.ReplicationPad2d, ChannelsFirst,
)  # fmt: skip
LINEAR_CALLS = {
    torch.reshape, torch.transpose, torch.swapaxes, torch.permute, torch.movedim, torch.squeeze,
    torch.unsqueeze,
    torch.chunk, torch.split, torch.tensor_split, torch.unbind, torch.cat, torch.stack,
    torch.narrow, torch.select,
    torch.index_select, torch.flatten, torch.unflatten, torch.flip, torch.roll, torch.neg,
    torch.mean, torch.sum,
    torch.add, torch.sub, torch.channel_shuffle, F.pixel_shuffle, F.pad, F.interpolate,
    F.avg_pool2d,
    F.adaptive_avg_pool2d, operator.getitem, operator.add, operator.iadd, operator.sub,
    operator.isub, operator.neg,
    "view", "reshape", "transpose", "swapaxes", "permute", "movedim", "squeeze", "unsqueeze",
    "chunk", "split",
    "tensor_split", "unbind", "narrow", "select", "index_select", "flatten", "unflatten", "flip",
    "roll", "neg",
    "mean", "sum", "add", "add_", "sub", "sub_", "expand", "view_as", "reshape_as", "repeat", "t",
    "to", "float", "contiguous",
}  # fmt: skip
DIVISIONS = {operator.truediv, operator.itruediv, torch.div, "div", "div_"}
# Linear where a single factor, or only the dividend, depends on the image.
PRODUCTS = DIVISIONS | {
    operator.mul, operator.imul, operator.matmul, torch.mul, torch.matmul, F.linear, F.conv2d,
    "mul", "mul_", "matmul",
}  # fmt: skip
ATTENTION = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d)
NORMALIZATIONS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


def transpose(step: Step, signal: Tensor, sizes: Any) -> Tensor | tuple[Tensor | None, ...]:
    """Carry a signal down through a step.

    Args:
        step: The step.
        signal: The signal in the shape of the step's output.
        sizes: The shape that entered the step; a tuple of shapes where several did.

    Returns:
        The signal in the shape of the input; a tuple of signals where there are several inputs, of
        which None receives none.

    Raises:
        UnsupportedNetwork: If there is no rule for the step.
    """
    module = step.module
    match module:
        case nn.BatchNorm1d() | nn.BatchNorm2d() if module.running_var is not None:
            # As if folded into the filters below: w' = w gain / sqrt(variance + eps).
            gain = torch.rsqrt(module.running_var + module.eps)
            gain = gain if module.weight is None else gain * module.weight
            return signal * gain.view(-1, *[1] * (signal.ndim - 2))
        case PaperInput():
            return signal * module.scale
        case Add() if all(size[1:] == signal.shape[1:] for size in sizes):
            return signal, signal
        case Concat() if isinstance(sizes, torch.Size):
            return signal
        case Concat() if module.dim % signal.ndim:
            return signal.split([size[module.dim] for size in sizes], module.dim)
    if isinstance(module, (*NORMS, *IDENTITIES)):
        return signal
    if _rectifies(module):
        return F.relu(signal)
    if (reason := why_not_invertible(module)) is not None:
        raise UnsupportedNetwork(_message(step, reason))
    return _pull_back(module, signal, sizes)


def check_invertible(steps: Sequence[Step]) -> None:
    """Raise UnsupportedNetwork, naming the step and the reason, where the deconvnet has no rule."""
    for step in steps:
        if (reason := why_not_invertible(step.module)) is not None:
            raise UnsupportedNetwork(_message(step, reason))


def _message(step: Step, reason: str) -> str:
    module = step.module
    name = module.expression.name if isinstance(module, Call) else type(module).__name__
    return f"{step.name} is a {name}, which the deconvnet cannot invert: {reason}"


def _rectifies(module: nn.Module) -> bool:
    """Whether a module keeps positive values, perhaps up to a bound, and shrinks negative ones."""
    return isinstance(module, RECTIFIERS) or (
        isinstance(module, nn.Hardtanh) and module.min_val == 0
    )


def why_not_invertible(module: nn.Module) -> str | None:
    """Say why the deconvnet has no rule for a module, or None if it has one."""
    if _rectifies(module) or isinstance(module, (*LINEAR_MODULES, *NORMS, *IDENTITIES)):
        return None
    if isinstance(module, (nn.MaxPool2d, nn.AdaptiveMaxPool2d)):
        return "it returns its switches too" if module.return_indices else None
    if isinstance(module, Call):
        return _why_not_linear(module.expression)
    if isinstance(module, ATTENTION):
        return "its weights depend on the image"
    if isinstance(module, NORMALIZATIONS):
        return "it normalizes by statistics of the image, so it is not a fixed filter"
    return "it is neither linear nor a rectifier"


def _why_not_linear(expression: Expression) -> str | None:
    """Say why a call is not linear in the tensors of the network, or None if it is."""
    target = expression.target
    if not _depends(expression):
        return None
    inner = [part for part in _arguments(expression) if isinstance(part, Expression)]
    reason = next(filter(None, map(_why_not_linear, inner)), None)
    if reason is not None:
        return reason
    if target in PRODUCTS:
        factors = [_depends(part) for part in expression.args[:2]]
        if all(factors) or (target in DIVISIONS and factors[1]):
            return "it multiplies values by other values of the same image, as a gate does"
        return None
    if isinstance(target, nn.Module):
        return why_not_invertible(target)
    if target in LINEAR_CALLS:
        return None
    return "it is neither linear nor a rectifier"


def _arguments(expression: Expression) -> list[Any]:
    """The arguments of a call, those in lists included."""
    parts: list[Any] = []
    map_aggregate((expression.args, expression.kwargs), parts.append)  # pyright: ignore
    return parts


def _depends(value: Any) -> bool:
    """Whether an argument holds values of the image, rather than constants and sizes."""
    if isinstance(value, Expression):
        is_size = value.target in SIZES or (value.target is getattr and value.args[1] in SIZES)
        return not is_size and any(map(_depends, _arguments(value)))
    return isinstance(value, Operand)


def _pull_back(module: nn.Module, signal: Tensor, sizes: Any) -> Any:
    """Apply the transpose of a linear module, which is its gradient."""
    single = isinstance(sizes, torch.Size)
    with torch.inference_mode(False), torch.enable_grad():
        below = [
            torch.zeros(size, dtype=signal.dtype, device=signal.device)
            for size in ([sizes] if single else sizes)
        ]
        output = module(*(values.requires_grad_() for values in below))
        grads = torch.autograd.grad(output, below, signal.clone(), allow_unused=True)
    return grads[0] if single else grads
