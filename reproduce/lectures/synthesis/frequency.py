"""The mean spatial frequency of images."""

from __future__ import annotations

import numpy as np
import torch


def mean_frequency(x: torch.Tensor) -> np.ndarray:
    """The mean spatial frequency, weighted by energy.

    Args:
        x: Images or changes of images (N, C, H, W).

    Returns:
        Cycles per pixel (N,), from 0 to 0.71.
    """
    energy = torch.fft.fft2(x.double()).abs().square().sum(1)
    rows, columns = (
        torch.fft.fftfreq(n, device=x.device, dtype=torch.float64) for n in x.shape[2:]
    )
    frequency = torch.hypot(rows[:, None], columns)
    return ((energy * frequency).sum((1, 2)) / energy.sum((1, 2))).cpu().numpy()
