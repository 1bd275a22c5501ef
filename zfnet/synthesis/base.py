"""Shared steps of image synthesis: descent on pixels, valid pixels, total variation, blur."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.attribution.base import slope
from zfnet.data import no_progress
from zfnet.data.images import MEAN, STD

SMALL = 1e-8  # keeps the gradient of total variation finite where the image is constant


def pixel_range(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return black and white in the network's input convention: (1, 3, 1, 1) each.

    Args:
        like: Images (N, 3, H, W) that give device and dtype.

    Raises:
        ValueError: If `like` is not RGB.
    """
    if like.ndim != 4 or like.shape[1] != 3:
        raise ValueError(f"images must be RGB (N, 3, H, W), got {tuple(like.shape)}")
    mean, std = (
        torch.tensor(v, device=like.device, dtype=like.dtype).view(1, 3, 1, 1) for v in (MEAN, STD)
    )
    return -mean / std, (1 - mean) / std


def clip(x: Tensor) -> Tensor:
    """Return the nearest valid images: RGB in [0, 1] in the network's input convention.

    Args:
        x: Images (N, 3, H, W).

    Returns:
        Images (N, 3, H, W).

    Raises:
        ValueError: If x is not RGB.

    Example:
        >>> import torch
        >>> black, white = pixel_range(torch.zeros(1, 3, 2, 2))
        >>> bool((clip(torch.full((1, 3, 2, 2), 9.0)) == white).all())
        True
    """
    low, high = pixel_range(x)
    return torch.minimum(torch.maximum(x, low), high)


def total_variation(x: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return the mean of $((\partial_x I)^2 + (\partial_y I)^2)^{\beta / 2}$ over pixels.

    Rudin, Osher & Fatemi 1992 for beta = 1; Mahendran & Vedaldi 2015, section 2, for other values.

    Args:
        x: Images (N, C, H, W).
        beta: The exponent, above 0.

    Returns:
        The variation (N,), 0 or more, in units of input to the power beta. Differences are forward
        differences, without the last row and column.

    Example:
        >>> import torch
        >>> total_variation(torch.zeros(2, 3, 4, 4), beta=2.0) < 1e-6
        tensor([True, True])
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
    r"""Minimize a loss with Adam from `start`, with a rate that falls linearly to 0.

    Kingma & Ba 2015. Adam scales every number by itself, so the batch does not change an image. At
    a constant rate the pixels oscillate.

    Args:
        loss: Maps the point and the step number to losses (N,), each of its own row.
        start: The start (N, ...), float32 or float64.
        steps: The number of steps, at least 1.
        rate: The initial learning rate, above 0.
        after: Replaces the point after each step, for example by one with valid pixels.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The last point, like `start`, and the losses (steps, N) before each step.

    Raises:
        ValueError: If steps, rate or the dtype of `start` is wrong. Half precision loses the steps.
        UnsupportedNetwork: If the loss has no gradient.

    Example:
        >>> import torch
        >>> square = lambda point, step: point.square().sum(1)
        >>> point, history = descend(square, torch.ones(2, 3), steps=100, rate=0.1)
        >>> bool(point.abs().max() < 0.1), history.shape
        (True, torch.Size([100, 2]))
    """
    if start.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"images must be float32 or float64, got {start.dtype}: convert the network and its input"
        )
    if steps < 1 or not 0 < rate < float("inf"):
        raise ValueError(f"steps must be at least 1 and rate above 0, got {steps} and {rate}")
    history = []
    with torch.inference_mode(False), torch.enable_grad():
        point = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([point], rate)
        for step in progress(range(steps), total=steps, desc="descending"):
            value = loss(point, step)
            point.grad = slope(value, point)  # leaves the network's parameters alone
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimizer.step()
            if after:
                point.data = after(point.detach(), step)
            history.append(value.detach())
    return point.detach(), torch.stack(history)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Blur images with a Gaussian that is cut off at 3 sigma.

    Args:
        x: Images (N, C, H, W). The border is repeated outside.
        sigma: The standard deviation, in pixels.

    Returns:
        Images (N, C, H, W).

    Example:
        >>> import torch
        >>> blurred(torch.ones(1, 3, 8, 8), 1.0).allclose(torch.ones(1, 3, 8, 8))
        True
    """
    reach = int(3 * sigma)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / sigma) ** 2)
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, -1).to(x)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), weight, groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), weight.mT, groups=x.shape[1])
