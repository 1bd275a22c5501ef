"""The steps of a network for images of a given shape."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zfnet.graph.build import graph_steps, is_chain
from zfnet.graph.channels_last import channels_first
from zfnet.graph.layers import steps_until
from zfnet.graph.operations import Call, UnsupportedNetwork
from zfnet.graph.shapes import with_shapes
from zfnet.graph.steps import Step


def network_steps(model: nn.Module, like: Tensor, *until: str) -> list[Step]:
    """Return the steps of a network for images of a given shape, up to the named layers or steps.

    Args:
        model: The network, in evaluation mode.
        like: A batch (N, C, H, W) of the images' shape and type. Only these are read.
        until: Names of layers or steps; none takes all.

    Returns:
        The steps. Maps with channels last are transposed to (N, C, H, W) for their readers.

    Raises:
        UnsupportedNetwork: If the network cannot be traced, normalizes by the batch, or without
            `until` does not return one tensor.
        UnknownLayer: If a name is neither a layer nor a step.
        ValueError: If such images do not fit the network.
    """
    steps = graph_steps(model, to_result=not until)
    steps = steps_until(steps, *until) if until else steps
    for step in steps:
        if uses_batch_statistics(step.module):
            raise UnsupportedNetwork(
                f"{step.name} normalizes by the batch even in evaluation mode; it needs running "
                "statistics"
            )
    steps = with_shapes(steps, like)
    if is_chain(steps):
        return steps
    steps = channels_first(steps)
    return steps_until(steps, *until) if until else steps


def uses_batch_statistics(module: nn.Module) -> bool:
    """Whether an operation normalizes by the batch, even in evaluation mode."""
    if isinstance(module, Call):
        expression = module.expression
        calls = expression.target is F.batch_norm
        return calls and batch_norm_is_training(*expression.args, **expression.kwargs)
    return isinstance(module, _BatchNorm) and module.running_mean is None


def batch_norm_is_training(
    x: object, mean: object, variance: object, weight=None, bias=None, training=False, *_, **__
) -> bool:
    """Whether a call of `F.batch_norm` normalizes by the statistics of its input."""
    return bool(training)
