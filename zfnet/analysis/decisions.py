"""Decisions of a network: the probability of a class, and which of two conflicting cues wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.analysis.intervals import wilson
from zfnet.attribution.base import Target, forward
from zfnet.model import evaluating
from zfnet.outputs import probability_function
from zfnet.validation import check_input, resolve_target


@dataclass(frozen=True, eq=False)
class Confidence:
    """The network's output for N images.

    Attributes:
        probability: The probability of each image's target (N,).
        logit: The logit of each image's target (N,).
        logits: All logits (N, classes).
    """

    probability: Tensor
    logit: Tensor
    logits: Tensor

    @property
    def label(self) -> Tensor:
        """The predicted classes (N,)."""
        return self.logits.argmax(1)


def confidence(model: nn.Module, x: Tensor, target: Target, *, batch: int = 50) -> Confidence:
    """Return the logits of images, and the probability of their targets.

    Args:
        model: A network that returns logits.
        x: Images (N, C, H, W).
        target: A class, one class per image, or None for the predicted classes.
        batch: The number of images per forward pass.

    Returns:
        The logits, and each target's logit and probability.

    Raises:
        ValueError: If x, target or batch is wrong.
        UnsupportedNetwork: If the network does not return logits.

    Example:
        >>> import zfnet
        >>> confidence(zfnet.mnist(), torch.zeros(2, 3, 28, 28), 8).probability.shape
        torch.Size([2])
    """
    check_input(model, x)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    with evaluating(model), torch.no_grad():
        logits = torch.cat([forward(model, part)[1] for part in x.split(batch)])
    index = resolve_target(target, logits)[:, None]
    probability = probability_function(model)(logits).gather(1, index)
    logit = logits.gather(1, index)
    return Confidence(probability[:, 0], logit[:, 0], logits)


@dataclass(frozen=True, eq=False)
class CueConflict:
    """The network's decisions on N images whose shape and texture belong to different classes.

    Attributes:
        shape: Whether the image is classified by its shape (N,), bool.
        texture: Whether the image is classified by its texture (N,), bool.
    """

    shape: Tensor
    texture: Tensor

    @property
    def texture_share(self) -> list[float]:
        """[T / (T + S), low, high] with Wilson's 95 % interval; empty if T + S is 0."""
        by_texture, by_either = int(self.texture.sum()), int((self.texture | self.shape).sum())
        if not by_either:
            return []
        return [by_texture / by_either, *wilson(by_texture, by_either)]


def cue_conflict(
    logits: Tensor, shape: Tensor, texture: Tensor, classes: Sequence[int] | Tensor | None = None
) -> CueConflict:
    r"""Tell whether images with conflicting cues are classified by shape or by texture.

    The decision is $\arg\max_k z_k$. Geirhos et al. 2019, "ImageNet-trained CNNs are biased towards
    texture", section 2; their shape bias is 1 minus the texture share.

    Args:
        logits: Logits z (N, K).
        shape: The class of each image's shape (N,).
        texture: The class of each image's texture (N,).
        classes: The classes to decide between; None for all K.

    Returns:
        The decisions.

    Raises:
        ValueError: If both cues of an image belong to one class, or to none of the classes.

    Example:
        >>> logits = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
        >>> cue_conflict(logits, torch.tensor([0, 0]), torch.tensor([1, 1])).shape
        tensor([ True, False])
    """
    if shape.shape != texture.shape or len(shape) != len(logits) or (shape == texture).any():
        raise ValueError("every image needs a class for its shape and another for its texture")
    if classes is not None:
        index = torch.as_tensor(classes, device=logits.device)
        if not (torch.isin(shape, index) & torch.isin(texture, index)).all():
            raise ValueError("the classes of shape and texture must be among `classes`")
        logits = torch.full_like(logits, -torch.inf).index_copy(1, index, logits[:, index])
    label = logits.argmax(1)
    return CueConflict(label == shape, label == texture)
