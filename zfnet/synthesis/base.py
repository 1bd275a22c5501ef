"""Building blocks of image synthesis: descent on pixels, valid pixels, total variation, blur."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.attribution.base import grad_of_sum
from zfnet.data import no_progress
from zfnet.data.images import MEAN, STD

EPSILON = 1e-8  # keeps the gradient of the total variation finite where the image is constant


def pixel_range(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return black and white in the network's input convention.

    Args:
        like: Images (N, 3, H, W); the result has their device and dtype.

    Returns:
        Black and white (1, 3, 1, 1) each.

    Raises:
        ValueError: If `like` is not RGB.

    Example:
        >>> black, white = pixel_range(torch.zeros(1, 3, 2, 2))
        >>> bool((black < white).all())
        True
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
        The variation (N,), 0 or more, in units of input to the power beta. It uses forward
        differences, and leaves out the last row and column.

    Example:
        >>> import torch
        >>> total_variation(torch.zeros(2, 3, 4, 4), beta=2.0) < 1e-6
        tensor([True, True])
    """
    down, right = x[:, :, 1:, :-1] - x[:, :, :-1, :-1], x[:, :, :-1, 1:] - x[:, :, :-1, :-1]
    return (down.square() + right.square() + EPSILON).pow(beta / 2).mean((1, 2, 3))


def descend(
    loss: Callable[[Tensor, int], Tensor],
    start: Tensor,
    *,
    steps: int,
    rate: float,
    after: Callable[[Tensor, int], Tensor] | None = None,
    progress: Callable = no_progress,
) -> tuple[Tensor, Tensor]:
    r"""Minimize a loss with Adam and a learning rate that decays linearly to 0.

    Kingma & Ba 2015. Adam scales each element independently, so the batch does not change an image.
    With a constant learning rate the pixels oscillate.

    Args:
        loss: Maps the point and the step number to one loss per image (N,).
        start: The initial point (N, ...), float32 or float64.
        steps: The number of steps, at least 1.
        rate: The initial learning rate, above 0.
        after: Maps the point after each step, and the step number, to the next point; for example,
            it clips pixels to the valid range.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The last point, with the shape of `start`, and the losses before each step (steps, N).

    Raises:
        ValueError: If steps, rate or the dtype of `start` is wrong. Half precision rounds small
            steps to 0.
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
            f"images must be float32 or float64, got {start.dtype}; "
            f"convert the network and its input"
        )
    if steps < 1 or not 0 < rate < float("inf"):
        raise ValueError(f"steps must be at least 1 and rate above 0, got {steps} and {rate}")
    history = []
    with torch.inference_mode(False), torch.enable_grad():
        point = start.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([point], rate)
        for step in progress(range(steps), total=steps, desc="descending"):
            value = loss(point, step)
            point.grad = grad_of_sum(value, point)  # does not touch the gradients of the parameters
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimizer.step()
            if after:
                point.data = after(point.detach(), step)
            history.append(value.detach())
    return point.detach(), torch.stack(history)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur images with a Gaussian kernel, truncated at 3 sigma.

    Args:
        x: Images (N, C, H, W); they are padded by their border pixels.
        sigma: The standard deviation, in pixels.

    Returns:
        Images (N, C, H, W).

    Example:
        >>> import torch
        >>> blur(torch.ones(1, 3, 8, 8), 1.0).allclose(torch.ones(1, 3, 8, 8))
        True
    """
    radius = int(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1).to(x)  # (C, 1, 1, width)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel, groups=x.shape[1])
    x = F.pad(x, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(x, kernel.mT, groups=x.shape[1])


def relative_distance(features: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of arrays from their targets, over the targets' squared norm.

    Args:
        features: Arrays (N, ...).
        target: Targets of the same shape, none of them zero.

    Returns:
        Distances (N,); 0 for equal arrays.

    Example:
        >>> relative_distance(torch.zeros(1, 4), torch.ones(1, 4))
        tensor([1.])
    """
    difference = (features - target).flatten(1).square().sum(1)
    return difference / target.flatten(1).square().sum(1)


def check_nonzero(target: Tensor, name: str) -> None:
    """Raise ValueError if one of N arrays is zero, because its relative distance is undefined."""
    is_zero = ~target.flatten(1).any(1)
    if is_zero.any():
        raise ValueError(
            f"{name} is zero in image {int(is_zero.nonzero()[0])}, so a relative distance from it "
            f"is undefined; choose another layer or image"
        )
