"""Inversion: what an image must have looked like, to judge by its code in a layer alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.feature_extraction import feature_extractor
from zfnet.synthesis.base import descend, pixel_range, total_variation
from zfnet.synthesis.style import check_goal, relative
from zfnet.validation import check_input


@dataclass(frozen=True, eq=False)
class Inversion:
    """N images whose codes are like given ones.

    `pixels` (N, 3, H, W) are in the network's input convention, held near the range of valid pixels but not clipped to it.
    `error` (N,) is the squared distance of their codes from the given ones over the squared norm of these: 0 for the same code.
    `history` (steps, N) is the loss before each step.
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
    r"""Find images whose code in a layer is the given one, by descent on the pixels from `start` (N, 3, H, W), such as noise.

    $\min_x \frac{\|\Phi(x) - \Phi_0\|^2}{\|\Phi_0\|^2} + \lambda_\alpha \overline{|x|^\alpha} + \lambda_{V^\beta}
    \overline{((\partial_x x)^2 + (\partial_y x)^2)^{\beta / 2}}$ with $\lambda_\alpha$ the `bound`, which holds pixels in
    range (0 is the mean grey), and $\lambda_{V^\beta}$ the `variation`. Mahendran & Vedaldi 2015, section 2; their norms are
    sums over pixels, ours means, so that the weights do not depend on the size of the image, and Adam stands for their
    gradient descent with momentum.

    `code` (N, C, h, w) or (N, C) is what `zfnet.trace(model, x)[layer]` gives, after the layer's ReLU; in a network that is no
    chain of modules the output of the module at the path `layer`. At most `batch` images are in memory.
    Raises ValueError for bad arguments, or a code that is zero or not the layer's; UnknownLayer, UnsupportedNetwork.
    """
    check_input(model, start)
    pixel_range(start)
    if batch < 1 or min(bound, variation) < 0 or min(alpha, beta) <= 0:
        raise ValueError(
            f"batch must be at least 1, bound and variation 0 or more, alpha and beta above 0; got {batch}, {bound}, "
            f"{variation}, {alpha}, {beta}"
        )
    read = feature_extractor(model, start, (layer,))
    with torch.no_grad():
        shape = (len(start), *read(start[:1])[layer].shape[1:])
    if code.shape != shape or not code.isfinite().all():
        raise ValueError(f"the code of {layer} must be {shape} and finite, got {tuple(code.shape)}")
    check_goal(code, f"the code of {layer}")
    parts = []
    for rows in torch.arange(len(start)).split(batch):
        goal = code[rows].detach()

        def loss(x: Tensor, step: int, goal=goal) -> Tensor:
            held = bound * x.abs().pow(alpha).mean((1, 2, 3))
            return relative(read(x)[layer], goal) + held + variation * total_variation(x, beta)

        pixels, history = descend(loss, start[rows], steps=steps, rate=rate, progress=progress)
        with torch.no_grad():
            parts.append((pixels, relative(read(pixels)[layer], goal), history.T))
    pixels, error, history = (torch.cat(part) for part in zip(*parts, strict=True))
    return Inversion(pixels, error, history.T)
