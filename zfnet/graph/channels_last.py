"""Maps with channels last, (N, H, W, C), as Swin and ConvNeXt compute them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from zfnet.graph.layers import with_inputs
from zfnet.graph.operations import Call, ChannelsFirst
from zfnet.graph.steps import Step

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def channels_last_steps(steps: Sequence[Step]) -> set[str]:
    """Return the names of the steps whose outputs are maps (N, H, W, C).

    Such maps come from a permutation of maps (N, C, H, W), and stay so until they are permuted
    back. The steps have shapes, from `with_shapes`.
    """
    last: set[str] = set()
    for step, inputs in with_inputs(steps):
        if step.shape is None or len(step.shape) != 3:
            continue
        is_last = any(name in last for name in inputs)
        order = _permutation(step.module)
        if order is not None:
            is_last = (order == TO_LAST and not is_last) or (is_last and order != TO_FIRST)
        if is_last:
            last.add(step.name)
    return last


def channels_first(steps: Sequence[Step]) -> list[Step]:
    """Let layers whose maps are channels last return (N, C, H, W), for their readers only."""
    last, result = channels_last_steps(steps), []
    for step in steps:
        if step.name not in last or not step.paths:
            result.append(step)
            continue
        shape = step.shape or torch.Size()
        height, width, channels = shape
        maps = Step(
            f"{step.name} with channels first", ChannelsFirst(), None, (step.name,), step.paths,
            torch.Size((channels, height, width)), (shape,),
        )  # fmt: skip
        result += [replace(step, paths=()), maps]
    return result


def _permutation(module: nn.Module) -> tuple[int, ...] | None:
    """The order of a permutation's dimensions; None for another module."""
    if not isinstance(module, Call) or module.expression.name != "permute":
        return None
    expression = module.expression
    order = expression.kwargs.get("dims", expression.args[1:])
    order = order[0] if len(order) == 1 and isinstance(order[0], (tuple, list)) else order
    return tuple(dim % len(order) for dim in order)
