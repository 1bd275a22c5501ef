"""What the methods that make images share: a descent on pixels, the range of valid ones, total variation, features."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.attribution.base import slope
from zfnet.data import no_progress
from zfnet.data.images import MEAN, STD

SMALL = 1e-8  # under the root of a total variation, whose slope is infinite on a plain


def pixel_range(like: Tensor) -> tuple[Tensor, Tensor]:
    """Black and white in the network's input convention: (1, 3, 1, 1) each. Raises ValueError where `like` is not RGB."""
    if like.ndim != 4 or like.shape[1] != 3:
        raise ValueError(f"images are made in RGB, (N, 3, H, W), got {tuple(like.shape)}")
    mean, std = (torch.tensor(v, device=like.device, dtype=like.dtype).view(1, 3, 1, 1) for v in (MEAN, STD))
    return -mean / std, (1 - mean) / std


def clip(x: Tensor) -> Tensor:
    """The nearest image (N, 3, H, W) whose pixels are valid: RGB in [0, 1] in the network's input convention."""
    low, high = pixel_range(x)
    return torch.minimum(torch.maximum(x, low), high)


def total_variation(x: Tensor, beta: float = 1.0) -> Tensor:
    r"""How much images (N, C, H, W) vary from pixel to pixel: the mean of $((\partial_x I)^2 + (\partial_y I)^2)^{\beta / 2}$.

    Rudin, Osher & Fatemi 1992 for beta = 1; Mahendran & Vedaldi 2015, section 2, for others. Forward differences, the last row
    and column left out; (N,), 0 or more, in units of input to the power beta.
    """
    down, right = x[:, :, 1:, :-1] - x[:, :, :-1, :-1], x[:, :, :-1, 1:] - x[:, :, :-1, :-1]
    return (down.square() + right.square() + SMALL).pow(beta / 2).mean((1, 2, 3))


def descend(
    loss: Callable[[Tensor, int], Tensor],
    start: Tensor,
    *,
    steps: int,
    rate: float,
    after: Callable[[Tensor, int], Tensor] | None = None,
    progress: Callable = no_progress,
) -> tuple[Tensor, Tensor]:
    r"""Descend a loss from `start` (N, ...) with Adam: the point reached, like it, and the loss (steps, N) before each step.

    `loss(point, step)` gives (N,), each of its own row; Adam scales every number by itself, so that an image comes out the same
    in every batch. The step falls linearly from `rate` to nothing: at a constant one the pixels keep on trembling.
    `after(point, step)` replaces the point after each step, such as by one with valid pixels. Kingma & Ba 2015.
    Raises ValueError for steps below 1, a rate that is not above 0, or a start of half precision, in which Adam's steps are
    lost; UnsupportedNetwork where the loss has no gradient.
    """
    if start.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images are made in float32 or float64, not {start.dtype}: convert the network and what it is given")
    if steps < 1 or not 0 < rate < float("inf"):
        raise ValueError(f"steps must be at least 1 and rate above 0, got {steps} and {rate}")
    history = []
    with torch.inference_mode(False), torch.enable_grad():
        point = start.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([point], rate)
        for step in progress(range(steps), total=steps, desc="descending"):
            value = loss(point, step)
            point.grad = slope(value, point)  # of the point alone, not of the network's parameters
            optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimiser.step()
            if after:
                point.data = after(point.detach(), step)
            history.append(value.detach())
    return point.detach(), torch.stack(history)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images (N, C, H, W) blurred by a Gaussian of `sigma` pixels, cut off at 3 sigma, its border repeated outside."""
    reach = int(3 * sigma)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / sigma) ** 2)
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, -1).to(x)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), weight, groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), weight.mT, groups=x.shape[1])
