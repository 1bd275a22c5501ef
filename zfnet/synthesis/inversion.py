"""Inversion: reconstruct an image from its code in a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.feature_extraction import feature_extractor
from zfnet.synthesis.base import (
    check_nonzero,
    descend,
    pixel_range,
    relative_distance,
    total_variation,
)
from zfnet.validation import check_input


@dataclass(frozen=True, eq=False)
class Inversion:
    """N images whose codes are close to given codes.

    Attributes:
        pixels: Images (N, 3, H, W) in the network's input convention. They are kept near the valid
            range, but not clipped to it.
        error: The squared distance of their codes from the given ones, relative to the squared norm
            of the latter (N,); 0 for equal codes.
        history: The loss before each step (steps, N).
    """

    pixels: Tensor
    error: Tensor
    history: Tensor


def invert(
    model: nn.Module,
    code: Tensor,
    start: Tensor,
    *,
    layer: str,
    alpha: float = 6.0,
    bound: float = 1e-4,
    beta: float = 2.0,
    variation: float = 0.1,
    steps: int = 200,
    rate: float = 0.05,
    batch: int = 8,
    progress: Callable = no_progress,
) -> Inversion:
    r"""Find images whose code in a layer matches a given code, by gradient descent on the pixels.

    $\min_x \frac{\|\Phi(x) - \Phi_0\|^2}{\|\Phi_0\|^2} + \lambda_\alpha \overline{|x|^\alpha} +
    \lambda_{V^\beta} \overline{((\partial_x x)^2 + (\partial_y x)^2)^{\beta / 2}}$. Mahendran &
    Vedaldi 2015, section 2. Their norms are sums over pixels; ours are means, so that the weights
    do not depend on the image size. Adam replaces their gradient descent with momentum.

    Args:
        model: Any network.
        code: The codes $\Phi_0$ (N, C, h, w) or (N, C), such as `zfnet.trace(model, x)[layer]`,
            after the ReLU.
        start: The initial images (N, 3, H, W), such as noise.
        layer: A layer name, or a module path in a network with branches.
        alpha: The exponent of the pixel norm, above 0.
        bound: The weight $\lambda_\alpha$, which keeps pixels in range; 0 is the mean gray.
        beta: The exponent of the total variation, above 0.
        variation: The weight $\lambda_{V^\beta}$ of the total variation.
        steps: The number of steps.
        rate: The initial learning rate, in units of input.
        batch: The number of images per forward pass. It does not change an image.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images and the distances of their codes.

    Raises:
        ValueError: If an argument is wrong, or the code of an image is zero.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If no gradient reaches the pixels.

    Example:
        >>> import zfnet
        >>> model, x = zfnet.mnist(), torch.rand(1, 3, 28, 28)
        >>> code = zfnet.trace(model, x)["conv2"]
        >>> i = invert(model, code, torch.rand_like(x), layer="conv2", steps=20)
        >>> bool(i.history[-1] < i.history[0])
        True
    """
    check_input(model, start)
    pixel_range(start)
    if batch < 1 or min(bound, variation) < 0 or min(alpha, beta) <= 0:
        raise ValueError(
            f"batch must be at least 1, bound and variation 0 or more, alpha and beta above 0; "
            f"got {batch}, {bound}, {variation}, {alpha}, {beta}"
        )
    read = feature_extractor(model, start, (layer,))
    with torch.no_grad():
        shape = (len(start), *read(start[:1])[layer].shape[1:])
    if code.shape != shape or not code.isfinite().all():
        raise ValueError(f"the code of {layer} must be {shape} and finite, got {tuple(code.shape)}")
    check_nonzero(code, f"the code of {layer}")
    results = []
    for rows in torch.arange(len(start), device="cpu").split(batch):
        target = code[rows].detach()

        def loss(x: Tensor, step: int, target=target) -> Tensor:
            pixel_norm = bound * x.abs().pow(alpha).mean((1, 2, 3))
            distance = relative_distance(read(x)[layer], target)
            return distance + pixel_norm + variation * total_variation(x, beta)

        pixels, history = descend(loss, start[rows], steps=steps, rate=rate, progress=progress)
        with torch.no_grad():
            error = relative_distance(read(pixels)[layer], target)
        results.append((pixels, error, history.T))
    pixels, error, history = (torch.cat(part) for part in zip(*results, strict=True))
    return Inversion(pixels, error, history.T)
