"""Layers that normalize: the paper's local contrast normalization and its input convention."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zfnet.data.images import MEAN, STD


class LocalResponseNorm(nn.Module):
    r"""Normalize across feature maps (Krizhevsky et al. 2012, section 3.3).

    $y_c = x_c \, (k + \frac{\alpha}{n} \sum_{|j-c| \le n/2} x_j^2)^{-\beta}$ with
    $\beta = 0.75$. Krizhevsky's alpha of 1e-4 is not divided by n, which is 5e-4 here.

    It equals `nn.LocalResponseNorm` to 1e-6, forward and backward, and is faster: the fixed
    beta turns the power into two square roots. Shape: (N, C, H, W) to (N, C, H, W).

    Args:
        size: The number n of neighboring maps, odd.
        alpha: The weight of the squares.
        k: The constant in the denominator.

    Raises:
        ValueError: `size` is even.

    Example:
        >>> LocalResponseNorm()(torch.ones(1, 8, 2, 2)).shape
        torch.Size([1, 8, 2, 2])
    """

    def __init__(self, size: int = 5, *, alpha: float = 5e-4, k: float = 2.0):
        super().__init__()
        if size % 2 == 0:
            raise ValueError(f"LocalResponseNorm: size must be odd, got {size}")
        self.size, self.alpha, self.k = size, alpha, k

    def forward(self, x: Tensor) -> Tensor:
        """Normalize feature maps (N, C, H, W)."""
        return _LRN.apply(x, self.size, self.alpha, self.k)  # pyright: ignore[reportReturnType]

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha}, k={self.k}"


def _window_sum(x: Tensor, size: int, weight: float, offset: float = 0.0) -> Tensor:
    """Return offset + weight times the sum over `size` neighboring channels: (N, C, H, W).

    One product with a banded matrix is faster on every device than adding shifted copies or
    pooling over channels.
    """
    channel = torch.arange(x.shape[1], device=x.device)
    band = ((channel[:, None] - channel).abs() <= size // 2).to(x.dtype) * weight  # (C, C)
    bias = torch.full((x.shape[1],), offset, dtype=x.dtype, device=x.device)
    device = x.device.type
    supported = torch.amp.is_autocast_available(device)
    with torch.autocast(device, enabled=False) if supported else nullcontext():  # keep x's dtype
        # (N, C, H, W) -> (N, H, W, C) and back
        return F.linear(x.permute(0, 2, 3, 1), band, bias).permute(0, 3, 1, 2)


class _LRN(torch.autograd.Function):
    """LRN with its own backward pass, which saves two arrays instead of five."""

    @staticmethod
    def forward(ctx, x: Tensor, size: int, alpha: float, k: float) -> Tensor:
        root = _window_sum(x * x, size, alpha / size, k).rsqrt_()  # s^-1/2
        ctx.save_for_backward(x, root)
        ctx.size, ctx.alpha = size, alpha
        return root.sqrt().mul_(root).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, root = ctx.saved_tensors
        scaled = root.sqrt().mul_(root).mul_(grad)  # g s^-3/4
        product = (root * root).mul_(x).mul_(scaled)
        cross = _window_sum(product, ctx.size, -2 * 0.75 * ctx.alpha / ctx.size)
        return scaled.addcmul_(x, cross), None, None, None


class PaperInput(nn.Module):
    """Convert to the paper's input: RGB in [0, 255] minus a mean image, as a fixed first layer.

    It maps x to 255 (x * STD + MEAN) - mean. The map is affine. The deconvnet projects through
    its linear part, `scale`. Shape: (N, 3, H, W) in this project's convention to (N, 3, H, W)
    in about [-128, 128].

    Args:
        mean: The mean image, (3, H, W) or (3, 1, 1) in [0, 255]; None takes ImageNet's means.
        size: Side in pixels of the default mean image.

    Example:
        >>> PaperInput(size=8)(torch.zeros(1, 3, 8, 8)).abs().max()  # mean gray becomes 0
        tensor(0.)
    """

    scale: Tensor
    mean: Tensor
    center: Tensor

    def __init__(self, mean: Tensor | None = None, size: int = 224):
        super().__init__()
        self.register_buffer("scale", 255 * torch.tensor(STD).view(3, 1, 1))
        self.register_buffer("center", 255 * torch.tensor(MEAN).view(3, 1, 1))
        default = self.center.expand(3, size, size).clone()
        self.register_buffer("mean", default if mean is None else mean)

    def forward(self, x: Tensor) -> Tensor:
        """Convert inputs (N, 3, H, W)."""
        return x * self.scale + (self.center - self.mean)
