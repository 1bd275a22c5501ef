"""Adversarial images: FGSM, PGD, DeepFool, and rubbish class examples.

Sizes are in gray levels, 1 / 255 of the pixel range. Images are valid: RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.attribution.base import Target, forward, slope
from zfnet.data import no_progress
from zfnet.data.images import STD
from zfnet.forward import evaluating
from zfnet.synthesis.base import clip, descend, pixel_range
from zfnet.validation import check_input, resolve_target

BEYOND = 1e-4  # how far DeepFool steps over a plane, as a share of the pixel range; a step onto it can tie


@dataclass(frozen=True, eq=False)
class Adversarial:
    """N changed images, and the network's predictions for them.

    Attributes:
        pixels: Valid images (N, 3, H, W) in the network's input convention.
        label: The classes (N,) to leave.
        target: The classes (N,) to reach, or None.
        predicted: The predicted classes (N,).
        probability: The probabilities (N,) of the predicted classes.
        success: Whether (N,) the target is reached, or without a target the label is left.
        linf: The largest change (N,) of a pixel, in gray levels.
        norm: The L2 norm (N,) of the change over all pixels, in gray levels.
    """

    pixels: Tensor
    label: Tensor
    target: Tensor | None
    predicted: Tensor
    probability: Tensor
    success: Tensor
    linf: Tensor
    norm: Tensor


def fgsm(
    model: nn.Module,
    x: Tensor,
    *,
    epsilon: float,
    label: Target = None,
    target: Target = None,
    batch: int = 32,
) -> Adversarial:
    r"""Take one step along the sign of the loss's gradient.

    $x' = x + \epsilon \, \mathrm{sign} \, \partial L(x, y) / \partial x$: Goodfellow, Shlens &
    Szegedy 2015, section 4. L is the cross-entropy of the `label` y. With a
    `target` g the step decreases its loss instead: $x' = x - \epsilon \, \mathrm{sign} \,
    \partial L(x, g) / \partial x$ (Kurakin et al. 2017, section 2).

    Args:
        model: Any network that returns logits.
        x: Valid images (N, 3, H, W) in the network's input convention.
        epsilon: The size of the step, 0 to 255 gray levels.
        label: The class to leave: one for all, one per image, or None for the predicted classes.
        target: The class to reach, one for all or one per image; None leaves `label`.
        batch: The number of images per forward pass.

    Returns:
        The changed images and their predictions.

    Raises:
        ValueError: If an argument is wrong, or x has pixels outside [black, white].
        UnsupportedNetwork: If no gradient reaches x.

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
    r"""Take projected steps along the sign of the gradient.

    $x_{t+1} = \Pi(x_t + a \, \mathrm{sign} \, \partial L(x_t, y) / \partial x)$. $\Pi$ projects to
    the nearest valid image within `epsilon` of x. Kurakin, Goodfellow & Bengio 2017, section 2.2;
    with a `generator`, Madry et al. 2018, section 2.1. An image stops at its first success.

    Args:
        model: Any network that returns logits.
        x: Valid images (N, 3, H, W) in the network's input convention.
        epsilon: The largest change of a pixel, 0 to 255 gray levels.
        steps: The number of steps.
        size: The size a of a step in gray levels; None takes the larger of epsilon / 4 and
            epsilon / steps.
        label: The class to leave: one for all, one per image, or None for the predicted classes.
        target: The class to reach, one for all or one per image; None leaves `label`.
        generator: The source of a random start within epsilon; None starts at x.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The changed images and their predictions.

    Raises:
        ValueError: If an argument is wrong, or x has pixels outside [black, white].
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import torch, zfnet
        >>> a = pgd(zfnet.mnist(), torch.zeros(2, 3, 28, 28), epsilon=4.0, steps=2)
        >>> bool((a.linf <= 4.001).all())
        True
    """
    if not 0 <= epsilon <= 255 or steps < 1 or batch < 1:
        raise ValueError(
            f"epsilon must be 0 to 255 gray levels, steps and batch at least 1; got {epsilon}, {steps}, {batch}"
        )
    size = max(epsilon / 4, epsilon / steps) if size is None else size
    if not 0 <= size < float("inf"):
        raise ValueError(f"size must be 0 or more gray levels, got {size}")
    x = valid(x)
    label, target = classes(model, x, label, target, batch)
    unit = gray_level(x)
    low, high = clip(x - epsilon * unit), clip(x + epsilon * unit)
    pixels = x.clone()
    if generator is not None:
        noise = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(
            x.device
        )
        pixels = low + (high - low) * noise
    towards, sign = (label, 1.0) if target is None else (target, -1.0)
    for rows in progress(
        list(torch.arange(len(x)).split(batch)), total=-(-len(x) // batch), desc="fooling"
    ):
        for _ in range(steps):
            g, predicted = loss_gradient(model, pixels[rows], towards[rows])
            left = (predicted == label[rows]) if target is None else (predicted != target[rows])
            if not left.any():
                break
            moved = pixels[rows] + sign * size * unit * g.sign()
            moved = torch.minimum(torch.maximum(moved, low[rows]), high[rows])
            pixels[rows] = torch.where(left[:, None, None, None], moved, pixels[rows])
            rows = rows[left.cpu()]
    return evaluate(model, x, pixels, label, target, batch)


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
    r"""Find a short change in the L2 norm that crosses the nearest decision boundary.

    DeepFool, Moosavi-Dezfooli, Fawzi & Frossard 2016, algorithm 2. A step leads to the nearest
    linearized boundary: $r_i = \frac{|f_l|}{\|w_l\|^2} w_l$ with $w_k = \nabla (S_k - S_y)$,
    $f_k = S_k - S_y$ and $l = \arg\min_k |f_k| / \|w_k\|$. Distances are in RGB, not in the
    network's normalized units.

    Args:
        model: Any network that returns logits.
        x: Valid images (N, 3, H, W) in the network's input convention.
        label: The class to leave: one for all, one per image, or None for the predicted classes.
        candidates: The number of most probable other classes to consider.
        overshoot: The share by which the sum of the steps is stretched, so that it crosses.
        steps: The largest number of steps.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The changed images and their predictions.

    Raises:
        ValueError: If an argument is wrong, or x has pixels outside [black, white].
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import torch, zfnet
        >>> deepfool(zfnet.mnist(), torch.zeros(2, 3, 28, 28), steps=2).norm.shape
        torch.Size([2])
    """
    if candidates < 1 or not 0 <= overshoot < float("inf") or steps < 1 or batch < 1:
        raise ValueError(
            f"candidates, steps and batch must be at least 1, overshoot 0 or more: {candidates}, {steps}, {batch}, {overshoot}"
        )
    x = valid(x)
    label, _ = classes(model, x, label, None, batch)
    pixels = x.clone()
    for rows in progress(
        list(torch.arange(len(x)).split(batch)), total=-(-len(x) // batch), desc="fooling"
    ):
        total, others = torch.zeros_like(x[rows]), None
        for _ in range(steps):
            step, others, left = nearest_plane(model, pixels[rows], label[rows], others, candidates)
            if not left.any():
                break
            total = (total + step)[left]
            rows, others = rows[left.cpu()], others[left]
            pixels[rows] = clip(x[rows] + (1 + overshoot) * total)
    return evaluate(model, x, pixels, label, None, batch)


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
    r"""Climb from noise to images that have a class with confidence: $\max_x \log p(g | x)$ by Adam.

    Nguyen, Yosinski & Clune 2015, section 4 (gradient ascent), without their L2 decay. Goodfellow
    et al. 2015 call them rubbish class examples.

    Args:
        model: Any network that returns logits.
        x: The start (N, 3, H, W), such as noise.
        target: The class g, one for all or one per image.
        steps: The number of steps.
        rate: The initial step, in units of input.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Valid images and their predictions.

    Raises:
        ValueError: If an argument is wrong.
        UnsupportedNetwork: If no gradient reaches x.

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
    label, targets = classes(model, x, None, target, batch)
    assert targets is not None

    def climb(rows: Tensor) -> Tensor:
        def loss(point: Tensor, step: int) -> Tensor:
            with evaluating(model):
                return F.cross_entropy(model(point.clone()), targets[rows], reduction="none")

        return descend(
            loss,
            clip(x[rows]),
            steps=steps,
            rate=rate,
            after=lambda point, step: clip(point),
            progress=progress,
        )[0]

    pixels = torch.cat([climb(rows) for rows in torch.arange(len(x)).split(batch)])
    return evaluate(model, x.detach(), pixels, label, targets, batch)


def gray_level(like: Tensor) -> Tensor:
    """Return one gray level of 255 in the network's input convention: (1, 3, 1, 1).

    Raises:
        ValueError: If `like` is not RGB.
    """
    pixel_range(like)
    return 1 / (255 * torch.tensor(STD, device=like.device, dtype=like.dtype).view(1, 3, 1, 1))


def valid(x: Tensor) -> Tensor:
    """Return the images without their graph.

    Raises:
        ValueError: If a pixel is more than half a gray level outside [black, white], or not RGB.
    """
    if ((x - clip(x)).abs() > 0.5 * gray_level(x)).any():
        raise ValueError(
            "x has pixels outside [black, white]; zfnet.synthesis.base.clip(x) returns the nearest valid image"
        )
    return x.detach()


def classes(
    model: nn.Module, x: Tensor, label: Target, target: Target, batch: int
) -> tuple[Tensor, Tensor | None]:
    """Return the classes (N,) to leave, None meaning the predicted ones, and the targets, if any."""
    check_input(model, x)
    logits = predicted_logits(model, x, batch)
    return resolve_target(label, logits), None if target is None else resolve_target(target, logits)


def predicted_logits(model: nn.Module, x: Tensor, batch: int) -> Tensor:
    """Return the logits (N, classes) of images, `batch` per pass."""
    with evaluating(model), torch.no_grad():
        return torch.cat([forward(model, part)[1] for part in x.split(batch)])


def evaluate(
    model: nn.Module, x: Tensor, pixels: Tensor, label: Tensor, target: Tensor | None, batch: int
) -> Adversarial:
    """Return the result: the predictions for the changed images, and their distances from x."""
    probability, predicted = predicted_logits(model, pixels, batch).softmax(1).max(1)
    change = ((pixels - x) / gray_level(x)).flatten(1)
    success = predicted != label if target is None else predicted == target
    return Adversarial(
        pixels,
        label,
        target,
        predicted,
        probability,
        success,
        change.abs().amax(1),
        change.norm(dim=1),
    )


def loss_gradient(model: nn.Module, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient (N, C, H, W) of each image's cross-entropy, and the predicted classes (N,)."""
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        loss = F.cross_entropy(logits, label, reduction="none")
        return slope(loss, leaf), logits.argmax(1)


def nearest_plane(
    model: nn.Module, x: Tensor, label: Tensor, others: Tensor | None, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return DeepFool's next step (N, 3, H, W), the candidates (N, K), and which images still need it.

    Planes are in RGB pixels p. With x = (p - mean) / std, a gradient in p is one in x over std, and
    a step in p becomes one in x over std.
    """
    unit = 255 * gray_level(x)  # 1 / std
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        if others is None:
            order = (
                logits.detach()
                .scatter(1, label[:, None], -torch.inf)
                .topk(min(candidates, logits.shape[1] - 1), dim=1)
            )
            others = order.indices
        rows = torch.arange(len(x), device=x.device)
        best, step = torch.full_like(logits[:, 0], torch.inf), torch.zeros_like(x)
        for k in others.T:
            gap = logits[rows, k] - logits[rows, label]
            w = slope(gap, leaf, keep=True) * unit
            square = w.square().sum((1, 2, 3)).clamp_min(1e-30)
            distance = gap.detach().abs() / square.sqrt()
            nearer = distance < best
            candidate = (((distance + BEYOND) / square.sqrt())[:, None, None, None] * w) * unit
            best, step = (
                torch.where(nearer, distance, best),
                torch.where(nearer[:, None, None, None], candidate, step),
            )
    return step, others, logits.detach().argmax(1) == label
