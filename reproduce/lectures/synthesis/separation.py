"""Continue the ascent of images that are predicted as another class."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from reproduce.core.context import Context
from zfnet.synthesis.ascent import ascend


def separate(
    ctx: Context, pixels: torch.Tensor, target: np.ndarray, most: int, **options
) -> tuple[torch.Tensor, list[int]]:
    """Continue the ascent of images that are predicted as another class.

    A class's logit can be high while that of a similar class is higher. So ascent continues on the
    log-probability, whose gradient in the logits z is one_hot(y) - softmax(z). It is computed once
    per ascent and scaled so that the weight of the intended class is 1.

    Args:
        ctx: The network.
        pixels: Images (N, 3, H, W).
        target: Intended classes (N,).
        most: Number of extra ascents, at most.
        options: Options of `ascend`.

    Returns:
        The images, and the number of extra ascents of each.
    """
    pixels, extra_ascents, true = pixels.clone(), [0] * len(target), torch.from_numpy(target)
    for _ in range(most):
        probability = probabilities(ctx.model, pixels)
        wrong = torch.nonzero(probability.argmax(1) != true)[:, 0]
        if not len(wrong):
            break
        weights = F.one_hot(true[wrong], probability.shape[1]) - probability[wrong]
        weights = weights / weights.amax(1, keepdim=True)
        pixels[wrong] = ascend(ctx.model, pixels[wrong], weights, **options).pixels
        for i in wrong.tolist():
            extra_ascents[i] += 1
    return pixels, extra_ascents


def probabilities(model, pixels: torch.Tensor) -> torch.Tensor:
    """The probabilities of images in chunks, (N, classes), on the CPU."""
    return torch.cat([model(some) for some in pixels.split(20)]).softmax(1).cpu()
