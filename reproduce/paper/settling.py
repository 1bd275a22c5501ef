"""When features settle during training, for Figure 4."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def correlate(first: Tensor, second: Tensor) -> np.ndarray:
    """Pearson's correlation of each column of (N, C) and (N, C).

    A feature without responses at a snapshot has 0; one without final responses has NaN.
    """
    a, b = (x.double() - x.double().mean(0) for x in (first, second))
    norm = a.norm(dim=0) * b.norm(dim=0)
    r = torch.where(norm > 0, (a * b).sum(0) / norm.clamp_min(1e-300), 0.0)
    return torch.where(b.norm(dim=0) > 0, r, torch.nan).numpy()


def settling_epochs(correlations: np.ndarray, epochs: list[float], level: float) -> np.ndarray:
    """The epoch from which on each feature's correlation is at least `level`.

    It is interpolated over the logarithm of the epoch, so that no value is censored: the last
    correlation is 1.

    Args:
        correlations: (snapshots, C), without NaN.
        epochs: The epochs of the snapshots.
        level: The correlation that counts as settled, below 1.

    Returns:
        (C,) epochs.
    """
    settled = np.empty(correlations.shape[1])
    logs = np.log(epochs)
    for c, values in enumerate(correlations.T):
        before = np.flatnonzero(values < level)
        if not len(before):
            settled[c] = epochs[0]
            continue
        i = before[-1]  # the last snapshot that is not settled
        share = (level - values[i]) / (values[i + 1] - values[i])
        settled[c] = np.exp(logs[i] + share * (logs[i + 1] - logs[i]))
    return settled
