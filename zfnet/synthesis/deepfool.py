"""DeepFool: adversarial images with a small perturbation in the L2 norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Target, forward, grad_of_sum
from zfnet.data import no_progress
from zfnet.model import evaluating
from zfnet.synthesis.base import clip
from zfnet.synthesis.perturbation import (
    Adversarial,
    check_valid,
    evaluate_attack,
    gray_level,
    resolve_classes,
)
from zfnet.validation import at_least_float32

# DeepFool's steps end this far beyond the decision boundary, as a share of the pixel range. Exactly
# on the boundary, logits can tie.
BOUNDARY_MARGIN = 1e-4


@torch.inference_mode(False)
def deepfool(
    model: nn.Module,
    x: Tensor,
    *,
    label: Target = None,
    candidates: int = 10,
    overshoot: float = 0.02,
    steps: int = 50,
    batch: int = 16,
    progress: Callable = no_progress,
) -> Adversarial:
    r"""Find a small perturbation, in the L2 norm, that crosses the nearest decision boundary.

    DeepFool, Moosavi-Dezfooli, Fawzi & Frossard 2016, algorithm 2. Each step moves to the nearest
    linearized boundary: $r_i = \frac{|f_l|}{\|w_l\|^2} w_l$ with $w_k = \nabla (S_k - S_y)$, $f_k =
    S_k - S_y$ and $l = \arg\min_k |f_k| / \|w_k\|$. Distances are in RGB, not in the network's
    normalized units.

    Args:
        model: Any network that returns logits.
        x: Valid images (N, 3, H, W) in the network's input convention.
        label: The original class: one for all images, one per image, or None for the predicted
            classes.
        candidates: The number of other classes to consider, the most probable ones.
        overshoot: The perturbation is scaled by 1 + overshoot, so that it crosses the boundary.
        steps: The maximal number of steps.
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
        >>> deepfool(zfnet.mnist(), torch.zeros(2, 3, 28, 28), steps=2).norm.shape
        torch.Size([2])
    """
    if candidates < 1 or not 0 <= overshoot < float("inf") or steps < 1 or batch < 1:
        raise ValueError(
            f"candidates, steps and batch must be at least 1, overshoot 0 or more; "
            f"got {candidates}, {steps}, {batch}, {overshoot}"
        )
    check_valid(x)
    x = x.detach()
    label, _ = resolve_classes(model, x, label, None, batch)
    pixels = x.clone()
    batches = torch.arange(len(x), device="cpu").split(batch)
    for rows in progress(batches, total=len(batches), desc="attacking"):
        perturbation, classes = torch.zeros_like(at_least_float32(x[rows])), None
        for _ in range(steps):
            step, classes, active = _boundary_step(
                model, pixels[rows], label[rows], classes, candidates
            )
            if not active.any():
                break
            perturbation = (perturbation + step)[active]
            rows, classes = rows[active.cpu()], classes[active]
            pixels[rows] = clip((x[rows] + (1 + overshoot) * perturbation).to(x))
    return evaluate_attack(model, x, pixels, label, None, batch)


def _boundary_step(
    model: nn.Module, x: Tensor, label: Tensor, classes: Tensor | None, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return DeepFool's step to the nearest linearized decision boundary.

    The boundary is linearized in RGB pixels p. With x = (p - mean) / std, a gradient in x is
    divided by std to get one in p, and a step in p is divided by std to get one in x.

    Args:
        model: Any network that returns logits.
        x: Images (N, 3, H, W).
        label: The original classes (N,).
        classes: The other classes to consider (N, K), or None to select the most probable ones.
        candidates: The number K of classes to select.

    Returns:
        The step (N, 3, H, W), the classes (N, K), and whether the original class is still predicted
        (N,).
    """
    unit = 255 * gray_level(x)  # 1 / std
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        if classes is None:
            others = logits.detach().scatter(1, label[:, None], -torch.inf)
            classes = others.topk(min(candidates, logits.shape[1] - 1), dim=1).indices
        rows = torch.arange(len(x), device=x.device)
        step = torch.zeros_like(at_least_float32(x))
        nearest = torch.full_like(step[:, 0, 0, 0], torch.inf)
        for k in classes.T:
            f = logits[rows, k] - logits[rows, label]
            w = at_least_float32(grad_of_sum(f, leaf, retain_graph=True)) * unit
            w_norm = w.square().sum((1, 2, 3)).clamp_min(1e-30).sqrt()
            distance = at_least_float32(f.detach()).abs() / w_norm
            is_nearer = distance < nearest
            candidate = ((distance + BOUNDARY_MARGIN) / w_norm)[:, None, None, None] * w * unit
            nearest = torch.where(is_nearer, distance, nearest)
            step = torch.where(is_nearer[:, None, None, None], candidate, step)
    return step, classes, logits.detach().argmax(1) == label
