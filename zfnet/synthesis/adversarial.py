"""Adversarial images: FGSM, PGD, and fooling images from noise.

Perturbations are measured in gray levels, 1 / 255 of the pixel range. Images are valid: RGB in
[0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.attribution.base import Target
from zfnet.data import no_progress
from zfnet.model import evaluating
from zfnet.outputs import logits_of
from zfnet.synthesis.base import clip, descend, pixel_range
from zfnet.synthesis.perturbation import (
    Adversarial,
    check_valid,
    evaluate_attack,
    gray_level,
    loss_direction,
    resolve_classes,
)


def fgsm(
    model: nn.Module,
    x: Tensor,
    *,
    epsilon: float,
    label: Target = None,
    target: Target = None,
    batch: int = 32,
) -> Adversarial:
    r"""Perturb images by the fast gradient sign method.

    $x' = x + \epsilon \, \mathrm{sign} \, \partial L(x, y) / \partial x$, where L is the
    cross-entropy of the original class y. Goodfellow, Shlens & Szegedy 2015, section 4. With a
    target class g, the step decreases its loss: $x' = x - \epsilon \, \mathrm{sign} \, \partial
    L(x, g) / \partial x$ (Kurakin et al. 2017, section 2).

    Args:
        model: Any network that returns logits.
        x: Valid images (N, 3, H, W) in the network's input convention.
        epsilon: The change of each pixel, 0 to 255 gray levels.
        label: The original class: one for all images, one per image, or None for the predicted
            classes.
        target: The target class, one for all images or one per image; None for an untargeted
            attack.
        batch: The number of images per forward pass.

    Returns:
        The perturbed images and their predictions.

    Raises:
        ValueError: If an argument is wrong, or x has pixels outside [black, white].
        UnsupportedNetwork: If the network returns one logit or probabilities, or if no gradient
            reaches x.

    Example:
        >>> import torch, zfnet
        >>> a = fgsm(zfnet.mnist(), torch.zeros(2, 3, 28, 28), epsilon=4.0)
        >>> a.pixels.shape, a.success.shape
        (torch.Size([2, 3, 28, 28]), torch.Size([2]))
    """
    return pgd(
        model, x, epsilon=epsilon, steps=1, size=epsilon, label=label, target=target, batch=batch
    )


@torch.inference_mode(False)  # even inside a caller's inference mode
def pgd(
    model: nn.Module,
    x: Tensor,
    *,
    epsilon: float,
    steps: int = 10,
    size: float | None = None,
    label: Target = None,
    target: Target = None,
    generator: torch.Generator | None = None,
    batch: int = 32,
    progress: Callable = no_progress,
) -> Adversarial:
    r"""Perturb images by projected gradient descent.

    $x_{t+1} = \Pi(x_t + a \, \mathrm{sign} \, \partial L(x_t, y) / \partial x)$, where $\Pi$
    projects onto the valid images within `epsilon` of x. Kurakin, Goodfellow & Bengio 2017, section
    2.2; with a random start, Madry et al. 2018, section 2.1. An image stops at its first success.

    Args:
        model: Any network that returns logits.
        x: Valid images (N, 3, H, W) in the network's input convention.
        epsilon: The largest change of a pixel, 0 to 255 gray levels.
        steps: The number of steps.
        size: The step size a, in gray levels; None for the larger of epsilon / 4 and epsilon /
            steps.
        label: The original class: one for all images, one per image, or None for the predicted
            classes.
        target: The target class, one for all images or one per image; None for an untargeted
            attack.
        generator: The source of a random start within epsilon; None to start at x.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The perturbed images and their predictions.

    Raises:
        ValueError: If an argument is wrong, or x has pixels outside [black, white].
        UnsupportedNetwork: If the network returns one logit or probabilities, or if no gradient
            reaches x.

    Example:
        >>> import torch, zfnet
        >>> a = pgd(zfnet.mnist(), torch.zeros(2, 3, 28, 28), epsilon=4.0, steps=2)
        >>> bool((a.linf <= 4.001).all())
        True
    """
    if not 0 <= epsilon <= 255 or steps < 1 or batch < 1:
        raise ValueError(
            f"epsilon must be 0 to 255 gray levels, steps and batch at least 1; "
            f"got {epsilon}, {steps}, {batch}"
        )
    size = max(epsilon / 4, epsilon / steps) if size is None else size
    if not 0 <= size < float("inf"):
        raise ValueError(f"size must be 0 or more gray levels, got {size}")
    check_valid(x)
    x = x.detach()
    label, target = resolve_classes(model, x, label, target, batch)
    unit = gray_level(x)
    low, high = clip(x - epsilon * unit), clip(x + epsilon * unit)
    pixels = x.clone()
    if generator is not None:
        noise = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        pixels = low + (high - low) * noise.to(x.device)
    loss_class, sign = (label, 1.0) if target is None else (target, -1.0)
    batches = torch.arange(len(x), device="cpu").split(batch)
    for rows in progress(batches, total=len(batches), desc="attacking"):
        for _ in range(steps):
            g, logits = loss_direction(model, pixels[rows], loss_class[rows])
            predicted = logits.argmax(1)
            active = (predicted == label[rows]) if target is None else (predicted != target[rows])
            if not active.any():
                break
            stepped = pixels[rows] + sign * size * unit * g.sign()
            stepped = torch.minimum(torch.maximum(stepped, low[rows]), high[rows])
            pixels[rows] = torch.where(active[:, None, None, None], stepped, pixels[rows])
            rows = rows[active.cpu()]
    return evaluate_attack(model, x, pixels, label, target, batch)


def rubbish(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    steps: int = 100,
    rate: float = 0.02,
    batch: int = 16,
    progress: Callable = no_progress,
) -> Adversarial:
    r"""Optimize noise until it is classified with high confidence: $\max_x \log p(g | x)$.

    Nguyen, Yosinski & Clune 2015, section 4 (gradient ascent), without L2 decay and with Adam.
    Goodfellow et al. 2015 call such images rubbish class examples.

    Args:
        model: Any network that returns logits.
        x: The initial images (N, 3, H, W), such as noise.
        target: The class g, one for all images or one per image.
        steps: The number of steps.
        rate: The initial learning rate, in units of input.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Valid images and their predictions.

    Raises:
        ValueError: If an argument is wrong.
        UnsupportedNetwork: If the network returns one logit or probabilities, or if no gradient
            reaches x.

    Example:
        >>> import torch, zfnet
        >>> rubbish(zfnet.mnist(), torch.zeros(2, 3, 28, 28), 8, steps=2).target
        tensor([8, 8])
    """
    if target is None or batch < 1:
        raise ValueError(
            f"rubbish needs a target class, and batch at least 1; got {target} and {batch}"
        )
    pixel_range(x)
    label, targets = resolve_classes(model, x, None, target, batch)
    assert targets is not None

    def optimize(rows: Tensor) -> Tensor:
        def loss(point: Tensor, step: int) -> Tensor:
            with evaluating(model):
                logits = logits_of(model, point.clone())
                return F.cross_entropy(logits, targets[rows], reduction="none")

        def after(point: Tensor, step: int) -> Tensor:
            return clip(point)

        start = clip(x[rows])
        return descend(loss, start, steps=steps, rate=rate, after=after, progress=progress)[0]

    pixels = torch.cat([optimize(rows) for rows in torch.arange(len(x), device="cpu").split(batch)])
    return evaluate_attack(model, x.detach(), pixels, label, targets, batch)
