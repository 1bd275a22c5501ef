"""Perturbations of images: their unit, their validity, and their effect on the prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Target, forward, grad_of_sum
from zfnet.data.images import STD
from zfnet.model import evaluating
from zfnet.outputs import check_exclusive_classes
from zfnet.synthesis.base import clip, pixel_range
from zfnet.validation import at_least_float32, check_input, resolve_target


@dataclass(frozen=True, eq=False)
class Adversarial:
    """N perturbed images, and the network's predictions for them.

    Attributes:
        pixels: Valid images (N, 3, H, W) in the network's input convention.
        label: The original classes (N,).
        target: The target classes (N,), or None for an untargeted attack.
        predicted: The predicted classes (N,).
        probability: The probabilities (N,) of the predicted classes.
        success: Whether the target class is predicted, or, without a target, any class but the
            original one (N,), bool.
        linf: The largest change of a pixel (N,), in gray levels.
        norm: The L2 norm of the change (N,), in gray levels.
    """

    pixels: Tensor
    label: Tensor
    target: Tensor | None
    predicted: Tensor
    probability: Tensor
    success: Tensor
    linf: Tensor
    norm: Tensor


def gray_level(like: Tensor) -> Tensor:
    """Return one gray level, 1 / 255 of the pixel range, in the network's input convention.

    Args:
        like: Images (N, 3, H, W); the result has their device and dtype.

    Returns:
        The size of a gray level in each channel (1, 3, 1, 1).

    Raises:
        ValueError: If `like` is not RGB.

    Example:
        >>> gray_level(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 3, 1, 1])
    """
    pixel_range(like)
    return 1 / (255 * torch.tensor(STD, device=like.device, dtype=like.dtype).view(1, 3, 1, 1))


def check_valid(x: Tensor) -> None:
    """Raise ValueError unless x is RGB between black and white, within half a gray level."""
    if ((x - clip(x)).abs() > 0.5 * gray_level(x)).any():
        raise ValueError(
            "x has pixels outside [black, white]; zfnet.synthesis.base.clip(x) returns the nearest "
            "valid image"
        )


def resolve_classes(
    model: nn.Module, x: Tensor, label: Target, target: Target, batch: int
) -> tuple[Tensor, Tensor | None]:
    """Return the original classes (N,), predicted ones for None, and the target classes, if any.

    Args:
        model: The network.
        x: Images (N, C, H, W).
        label: The original classes, or None for the predicted ones.
        target: The classes to reach, or None.
        batch: The number of images per forward pass.

    Raises:
        ValueError: If x, label or target is wrong.
        UnsupportedNetwork: If the network returns one logit, or probabilities.
    """
    check_input(model, x)
    logits = compute_logits(model, x, batch)
    check_exclusive_classes(model, logits)
    return resolve_target(label, logits), None if target is None else resolve_target(target, logits)


def compute_logits(model: nn.Module, x: Tensor, batch: int) -> Tensor:
    """Return the logits (N, classes) of images, computed in batches."""
    with evaluating(model), torch.no_grad():
        return torch.cat([forward(model, part)[1] for part in x.split(batch)])


def evaluate_attack(
    model: nn.Module, x: Tensor, pixels: Tensor, label: Tensor, target: Tensor | None, batch: int
) -> Adversarial:
    """Classify perturbed images, and measure their distances from the original images x."""
    probability, predicted = compute_logits(model, pixels, batch).softmax(1).max(1)
    change = at_least_float32((pixels - x) / gray_level(x)).flatten(1)
    success = predicted != label if target is None else predicted == target
    linf, norm = change.abs().amax(1), change.norm(dim=1)
    return Adversarial(pixels, label, target, predicted, probability, success, linf, norm)


def loss_gradient(model: nn.Module, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of each image's cross-entropy, and the predicted classes.

    It vanishes where the softmax saturates; `loss_direction` does not.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W).
        label: The class of each image (N,).

    Returns:
        Gradients (N, C, H, W) and classes (N,).

    Example:
        >>> import zfnet
        >>> x, label = torch.zeros(1, 3, 28, 28), torch.tensor([8])
        >>> g, predicted = loss_gradient(zfnet.mnist(), x, label)
        >>> g.shape, predicted.shape
        (torch.Size([1, 3, 28, 28]), torch.Size([1]))
    """
    direction, logits = loss_direction(model, x, label)
    margin = _margin(logits, label)[:, None, None, None]
    return (direction * margin.sigmoid()).to(x), logits.argmax(1)


def loss_direction(model: nn.Module, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return a positive multiple of the cross-entropy's gradient, and the logits.

    The cross-entropy is $\log(1 + e^m)$ with $m = \log \sum_{k \ne y} e^{S_k} - S_y$. Its gradient
    is that of m times the probability of the other classes, which a saturated softmax rounds to 0.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W).
        label: The class y of each image (N,).

    Returns:
        The gradient of m (N, C, H, W), and the logits S (N, classes).

    Example:
        >>> import zfnet
        >>> x, label = torch.zeros(1, 3, 28, 28), torch.tensor([8])
        >>> g, logits = loss_direction(zfnet.mnist(), x, label)
        >>> g.shape, logits.shape
        (torch.Size([1, 3, 28, 28]), torch.Size([1, 10]))
    """
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        return grad_of_sum(_margin(logits, label), leaf), logits.detach()


def _margin(logits: Tensor, label: Tensor) -> Tensor:
    """Return how far the other classes are ahead of each image's class, in logits (N,)."""
    logits, column = at_least_float32(logits), label[:, None]
    return logits.scatter(1, column, -torch.inf).logsumexp(1) - logits.gather(1, column)[:, 0]
