"""What a network returns: the logits of images, and the probabilities of classes.

Two questions have their answers here alone: whether the images of a batch influence each other, and
how outputs become probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zfnet.graph import (
    IDENTITIES,
    Call,
    Step,
    UnsupportedNetwork,
    batch_norm_is_training,
    graph_steps,
    unwrap,
    uses_batch_statistics,
    with_inputs,
)
from zfnet.receptive_field import RESHAPES
from zfnet.validation import wrap_shape_errors

PROBABILITIES = (nn.Softmax, nn.Softmax2d, nn.Sigmoid, nn.Hardsigmoid)
PROBABILITY_CALLS = ("softmax", "expit", "special_expit", "special_softmax")
SUM_TOLERANCE = 1e-3  # of a row of probabilities, for half precision


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits (N, classes) of any network, which may overwrite x.

    A network that normalizes by the batch sees the images one by one, so that no image changes the
    logits of another.

    Raises:
        ValueError: If x does not fit the network.
        UnsupportedNetwork: If the network does not return logits, or normalizes by the batch in a
            way that does not allow single images.
    """
    if len(x) > 1 and normalizes_by_batch(model):
        return torch.cat([logits_of(model, image) for image in x.split(1)])
    compiled = unwrap(model) is not model  # a mode would compile it once more
    with wrap_shape_errors(x), nullcontext() if compiled else IndependentImages(model, x):
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        returned = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedNetwork(
            f"{type(model).__name__} must return logits ({len(x)}, classes), got {returned}"
        )
    return logits


def normalizes_by_batch(model: nn.Module) -> bool:
    """Whether activations depend on the other images of the batch, even in evaluation mode."""
    return any(uses_batch_statistics(module) for module in model.modules())


class IndependentImages(TorchFunctionMode):
    """Refuse functions that normalize by the statistics of a batch, during a forward pass.

    Modules that do so are known beforehand, see `normalizes_by_batch`.

    Args:
        model: The network, for the message.
        x: The images that pass through it.

    Raises:
        UnsupportedNetwork: If the network calls `F.batch_norm` with the statistics of several
            images, or of a single image that has one value per channel.
    """

    def __init__(self, model: nn.Module, x: Tensor):
        super().__init__()
        self.name, self.count = type(unwrap(model)).__name__, len(x)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not F.batch_norm or not batch_norm_is_training(*args, **kwargs):
            return function(*args, **kwargs)
        advice = "give its BatchNorm running statistics"
        if self.count > 1:
            raise UnsupportedNetwork(
                f"{self.name} normalizes by the batch, so images would influence each other; "
                f"{advice}, or pass one image at a time"
            )
        try:
            return function(*args, **kwargs)
        except ValueError as error:  # one value per channel
            raise UnsupportedNetwork(
                f"{self.name} normalizes by the batch, which a single image does not allow where "
                f"maps have one position; {advice}"
            ) from error


def probability_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the function from a network's outputs (..., classes) to the classes' probabilities.

    - A network that ends in a softmax or sigmoid returns probabilities already. A network that
      cannot be traced ends in a softmax if its outputs are from 0 to 1 and sum to 1.
    - One logit is that of a binary classifier: its probability is the sigmoid.
    - Other outputs are logits of exclusive classes: their probabilities are the softmax.

    Args:
        model: Any network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> outputs = torch.tensor([[0.0, 0.0]])
        >>> probability_function(nn.Linear(3, 2))(outputs)
        tensor([[0.5000, 0.5000]])
        >>> probability_function(nn.Linear(3, 1))(outputs[:, :1])
        tensor([[0.5000]])
    """
    is_probability = ends_in_probabilities(model)

    def to_probabilities(outputs: Tensor) -> Tensor:
        if is_probability or (is_probability is None and _sum_to_one(outputs)):
            return outputs
        return outputs.sigmoid() if outputs.shape[-1] == 1 else outputs.softmax(-1)

    return to_probabilities


def ends_in_probabilities(model: nn.Module) -> bool | None:
    """Whether a network's last operation is a softmax or sigmoid; None if it cannot be traced."""
    try:
        steps = {
            step.name: (step, inputs)
            for step, inputs in with_inputs(graph_steps(model, to_result=True))
        }
    except UnsupportedNetwork:
        return None
    name = next(reversed(steps), "")
    while name in steps:
        step, inputs = steps[name]
        if not _only_reshapes(step):
            return isinstance(step.module, PROBABILITIES) or _call_name(step) in PROBABILITY_CALLS
        name = inputs[0]
    return False


def check_exclusive_classes(model: nn.Module, logits: Tensor) -> None:
    """Raise UnsupportedNetwork unless outputs (N, classes) are the logits of several classes.

    Cross-entropy needs that: it is constant for one logit, and its gradient vanishes where a
    softmax saturates.
    """
    name = type(unwrap(model)).__name__
    if logits.shape[1] < 2:
        raise UnsupportedNetwork(
            f"{name} returns one logit, so no other class can be predicted; an attack needs a "
            "network of two or more classes"
        )
    is_probability = ends_in_probabilities(model)
    if is_probability or (is_probability is None and _sum_to_one(logits)):
        raise UnsupportedNetwork(
            f"{name} returns probabilities; an attack needs logits: pass the network without its "
            "last softmax or sigmoid"
        )


def _sum_to_one(outputs: Tensor) -> bool:
    """Whether all rows of outputs (..., classes) are probabilities of several classes."""
    total = outputs.detach().sum(-1)
    is_share = bool(((outputs >= 0) & (outputs <= 1)).all())
    return outputs.shape[-1] > 1 and is_share and bool(((total - 1).abs() < SUM_TOLERANCE).all())


def _only_reshapes(step: Step) -> bool:
    """Whether a step moves values without changing them."""
    return isinstance(step.module, (nn.Flatten, *IDENTITIES)) or _call_name(step) in RESHAPES


def _call_name(step: Step) -> str:
    """The name of the function that a step calls; empty for a module."""
    return step.module.expression.name if isinstance(step.module, Call) else ""
