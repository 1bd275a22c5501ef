"""Fooling: small changes of an image that change its class, the smallest such change, and images of nothing with a class.

Sizes are in grey levels: 1 of the 255 of an 8-bit image. Changed images are valid: RGB in [0, 1] in the network's convention.
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

BEYOND = 1e-4  # of the whole range: how far over a plane DeepFool's authors step; a step onto it can end in a tie, for good


@dataclass(frozen=True, eq=False)
class Adversarial:
    """N changed images, and what the network takes them for.

    `pixels` (N, 3, H, W) are valid images in the network's input convention. `label` (N,) is the class to be left, `goal` (N,)
    the one to be reached, or None; `predicted` (N,) the class found, with its `probability`; `fooled` (N,) bool says whether
    the goal is reached, or without one the label left. `largest` (N,) and `norm` (N,) measure the change: its largest pixel and
    its L2 norm over all pixels, in grey levels.
    """

    pixels: Tensor
    label: Tensor
    goal: Tensor | None
    predicted: Tensor
    probability: Tensor
    fooled: Tensor
    largest: Tensor
    norm: Tensor


def fgsm(
    model: nn.Module, x: Tensor, *, epsilon: float, label: Target = None, goal: Target = None, batch: int = 32
) -> Adversarial:
    r"""One step along the sign of the loss's gradient: $x' = x + \epsilon \, \mathrm{sign} \, \partial L(x, y) / \partial x$.

    Goodfellow, Shlens & Szegedy 2015, section 4: L is the cross-entropy of the `label` y to be left (None: the predicted
    class), `epsilon` in grey levels. With a `goal` the step goes down its loss instead: $x' = x - \epsilon \, \mathrm{sign} \,
    \partial L(x, g) / \partial x$ (Kurakin et al. 2017, section 2). x (N, 3, H, W); one class for all or one for each image;
    an image that is fooled already comes back unchanged; `batch` images at once.
    Raises ValueError for bad arguments, or pixels that are not valid; UnsupportedNetwork.
    """
    return iterated(model, x, epsilon=epsilon, steps=1, size=epsilon, label=label, goal=goal, batch=batch)


@torch.inference_mode(False)  # inside a caller's too
def iterated(
    model: nn.Module,
    x: Tensor,
    *,
    epsilon: float,
    steps: int = 10,
    size: float | None = None,
    label: Target = None,
    goal: Target = None,
    generator: torch.Generator | None = None,
    batch: int = 32,
    progress: Callable = no_progress,
) -> Adversarial:
    r"""Steps along the sign of the gradient: $x_{t+1} = \Pi(x_t + a \, \mathrm{sign} \, \partial L(x_t, y) / \partial x)$.

    $\Pi$ goes to the nearest valid image within `epsilon` grey levels of x, a is the `size` of a step (None: epsilon / 4, or
    epsilon over the steps where that is more). Kurakin, Goodfellow & Bengio 2017, section 2.2; with a `generator`, from a
    random point of that cube: Madry et al. 2018, section 2.1. An image that is fooled is left as it is, and not computed
    again. Other arguments and errors as `fgsm`.
    """
    if not 0 <= epsilon <= 255 or steps < 1 or batch < 1:
        raise ValueError(f"epsilon must be 0 to 255 grey levels, steps and batch at least 1; got {epsilon}, {steps}, {batch}")
    size = max(epsilon / 4, epsilon / steps) if size is None else size
    if not 0 <= size < float("inf"):
        raise ValueError(f"the size of a step must be 0 or more grey levels, got {size}")
    x = valid(x)
    label, goal = classes(model, x, label, goal, batch)
    unit = grey_level(x)
    low, high = clip(x - epsilon * unit), clip(x + epsilon * unit)
    pixels = x.clone()
    if generator is not None:
        noise = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
        pixels = low + (high - low) * noise
    towards, sign = (label, 1.0) if goal is None else (goal, -1.0)
    for rows in progress(list(torch.arange(len(x)).split(batch)), total=-(-len(x) // batch), desc="fooling"):
        for _ in range(steps):
            up, found = loss_gradient(model, pixels[rows], towards[rows])
            left = (found == label[rows]) if goal is None else (found != goal[rows])
            if not left.any():
                break
            moved = pixels[rows] + sign * size * unit * up.sign()
            moved = torch.minimum(torch.maximum(moved, low[rows]), high[rows])
            pixels[rows] = torch.where(left[:, None, None, None], moved, pixels[rows])
            rows = rows[left.cpu()]
    return judged(model, x, pixels, label, goal, batch)


@torch.inference_mode(False)
def smallest(
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
    r"""The way over the nearest boundary, in the L2 norm: steps to the nearest of the planes that stand for the boundaries.

    $r_i = \frac{|f_l|}{\|w_l\|^2} w_l$, and BEYOND more, with $w_k = \nabla (S_k - S_y)$, $f_k = S_k - S_y$ and
    $l = \arg\min_k |f_k| / \|w_k\|$ over the `candidates` most probable classes but y; the sum of the steps is stretched by
    1 + `overshoot`, so that it crosses.
    DeepFool, Moosavi-Dezfooli, Fawzi & Frossard 2016, algorithm 2. In pixels: distances are of RGB, not of the network's
    deviations. At most `steps` steps; `label` y (None: the predicted class); other arguments and errors as `fgsm`.
    """
    if candidates < 1 or not 0 <= overshoot < float("inf") or steps < 1 or batch < 1:
        raise ValueError(
            f"candidates, steps and batch must be at least 1, overshoot 0 or more: {candidates}, {steps}, {batch}, {overshoot}"
        )
    x = valid(x)
    label, _ = classes(model, x, label, None, batch)
    pixels = x.clone()
    for rows in progress(list(torch.arange(len(x)).split(batch)), total=-(-len(x) // batch), desc="fooling"):
        total, others = torch.zeros_like(x[rows]), None
        for _ in range(steps):
            step, others, left = nearest_plane(model, pixels[rows], label[rows], others, candidates)
            if not left.any():
                break
            total = (total + step)[left]
            rows, others = rows[left.cpu()], others[left]
            pixels[rows] = clip(x[rows] + (1 + overshoot) * total)
    return judged(model, x, pixels, label, None, batch)


def rubbish(
    model: nn.Module,
    x: Tensor,
    goal: Target,
    *,
    steps: int = 100,
    rate: float = 0.02,
    batch: int = 16,
    progress: Callable = no_progress,
) -> Adversarial:
    r"""Images of nothing that have a class: from noise x (N, 3, H, W) up the class's probability, with no regulariser.

    $\max_x \log p(g | x)$ by Adam, steps of `rate` input units at first, valid pixels. Nguyen, Yosinski & Clune 2015, section
    4 (gradient ascent), without its L2 decay; Goodfellow et al. 2015 call them rubbish class examples. `goal` is a class, or
    one for each image. Raises ValueError, UnsupportedNetwork.
    """
    if goal is None or batch < 1:
        raise ValueError(f"rubbish needs a class to climb to, and batch at least 1; got {goal} and {batch}")
    pixel_range(x)
    label, aim = classes(model, x, None, goal, batch)
    assert aim is not None

    def climbed(rows: Tensor) -> Tensor:
        def loss(point: Tensor, step: int) -> Tensor:
            with evaluating(model):
                return F.cross_entropy(model(point.clone()), aim[rows], reduction="none")

        return descend(loss, clip(x[rows]), steps=steps, rate=rate, after=lambda point, step: clip(point), progress=progress)[0]

    pixels = torch.cat([climbed(rows) for rows in torch.arange(len(x)).split(batch)])
    return judged(model, x.detach(), pixels, label, aim, batch)


def grey_level(like: Tensor) -> Tensor:
    """One grey level of 255 in the network's input convention: (1, 3, 1, 1). Raises ValueError where `like` is not RGB."""
    pixel_range(like)
    return 1 / (255 * torch.tensor(STD, device=like.device, dtype=like.dtype).view(1, 3, 1, 1))


def valid(x: Tensor) -> Tensor:
    """The images without their record, where they are valid to half a grey level; else, or if not RGB, raises ValueError."""
    if ((x - clip(x)).abs() > 0.5 * grey_level(x)).any():
        raise ValueError("x has pixels outside black and white; zfnet.synthesis.base.clip(x) is the nearest valid image")
    return x.detach()


def classes(model: nn.Module, x: Tensor, label: Target, goal: Target, batch: int) -> tuple[Tensor, Tensor | None]:
    """The classes (N,) to be left, None meaning the predicted ones, and those to be reached, if any. Raises ValueError."""
    check_input(model, x)
    logits = predicted_logits(model, x, batch)
    return resolve_target(label, logits), None if goal is None else resolve_target(goal, logits)


def predicted_logits(model: nn.Module, x: Tensor, batch: int) -> Tensor:
    """The logits (N, classes) of images, `batch` at once."""
    with evaluating(model), torch.no_grad():
        return torch.cat([forward(model, part)[1] for part in x.split(batch)])


def judged(model: nn.Module, x: Tensor, pixels: Tensor, label: Tensor, goal: Tensor | None, batch: int) -> Adversarial:
    """What the network makes of changed images, and how far they are from x."""
    probability, predicted = predicted_logits(model, pixels, batch).softmax(1).max(1)
    change = ((pixels - x) / grey_level(x)).flatten(1)
    fooled = predicted != label if goal is None else predicted == goal
    return Adversarial(pixels, label, goal, predicted, probability, fooled, change.abs().amax(1), change.norm(dim=1))


def loss_gradient(model: nn.Module, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each image's cross-entropy in its pixels, like x, and the classes (N,) that the network predicts."""
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        loss = F.cross_entropy(logits, label, reduction="none")
        return slope(loss, leaf), logits.argmax(1)


def nearest_plane(
    model: nn.Module, x: Tensor, label: Tensor, others: Tensor | None, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """DeepFool's next step (N, 3, H, W) in input units; the classes it looks at (N, K); and which images still need it.

    Planes are in pixels p. With x = (p - mean) / std the gradient in p is that in x over std; so is a step in x that in p.
    """
    unit = 255 * grey_level(x)  # of the whole range: 1 / std
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        if others is None:
            order = logits.detach().scatter(1, label[:, None], -torch.inf).topk(min(candidates, logits.shape[1] - 1), dim=1)
            others = order.indices
        rows = torch.arange(len(x), device=x.device)
        best, step = torch.full_like(logits[:, 0], torch.inf), torch.zeros_like(x)
        for k in others.T:
            gap = logits[rows, k] - logits[rows, label]
            w = slope(gap, leaf, keep=True) * unit
            square = w.square().sum((1, 2, 3)).clamp_min(1e-30)
            distance = gap.detach().abs() / square.sqrt()
            nearer = distance < best
            found = (((distance + BEYOND) / square.sqrt())[:, None, None, None] * w) * unit
            best, step = torch.where(nearer, distance, best), torch.where(nearer[:, None, None, None], found, step)
    return step, others, logits.detach().argmax(1) == label
