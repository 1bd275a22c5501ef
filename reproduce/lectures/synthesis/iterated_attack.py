"""Iterated attacks with increasing epsilon."""

from __future__ import annotations

import numpy as np
import torch

from reproduce.core.context import Context
from zfnet.synthesis.adversarial import pgd

Success = dict[float, list[np.ndarray]]  # by epsilon: one array of successes per batch


def attack(ctx: Context, rows: Success, x: torch.Tensor, steps: int, **options) -> None:
    """Attack with increasing epsilon the images that are not fooled yet.

    Args:
        ctx: The network.
        rows: For each epsilon, a list to which the success of each image so far is appended.
        x: Images (N, 3, H, W).
        steps: Steps per epsilon.
        options: Labels or targets (N,).
    """
    done = np.zeros(len(x), dtype=bool)
    for epsilon, results in rows.items():
        remaining = torch.from_numpy(np.flatnonzero(~done)).to(x.device)
        if len(remaining):
            arguments = {key: classes[remaining] for key, classes in options.items()}
            result = pgd(
                ctx.model, x[remaining], epsilon=epsilon, steps=steps, **arguments, batch=50
            )
            done[remaining.cpu().numpy()] = result.success.cpu().numpy()
        results.append(done.copy())
