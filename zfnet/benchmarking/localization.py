"""Is the map on the object? The pointing game, and the energy inside the mask."""

from __future__ import annotations

import torch
from torch import Tensor

from zfnet.analysis.faithfulness import pointing_game
from zfnet.benchmarking.base import Case


def pointing(case: Case, *, tolerance: int = 0) -> Tensor:
    """Whether the map's maximum is on the object (Zhang et al. 2016, section 4.1).

    Several maxima count as the share of them on the object, so a constant map scores as a random
    point does. Quantus counts a hit if any of them is on the object.

    Args:
        case: The maps and masks. An empty mask has no score.
        tolerance: How far from the object a hit may be, in pixels. Zhang et al. allow 15.

    Returns:
        (N,) in [0, 1], NaN for an empty mask.
    """
    mask = object_mask(case)
    hits = pointing_game(case.map, mask, tolerance)
    return hits.masked_fill(~mask.flatten(1).any(1), torch.nan)


def energy(case: Case) -> Tensor:
    """Share of the map's positive values inside the object (Wang et al. 2020, section 4.3).

    A map without positive values scores like a uniform map: the object's share of the image.

    Args:
        case: The maps and masks. An empty mask has no score.

    Returns:
        (N,) in [0, 1], NaN for an empty mask.
    """
    mask, positive = object_mask(case), case.map[:, 0].clamp_min(0).double()
    total = positive.sum((1, 2))
    share = (positive * mask).sum((1, 2)) / total.where(total > 0, 1.0)
    share = torch.where(total > 0, share, mask.double().mean((1, 2)))
    return share.masked_fill(~mask.flatten(1).any(1), torch.nan)


def object_mask(case: Case) -> Tensor:
    assert case.mask is not None  # `benchmark` checks the data of a metric that needs masks
    return case.mask
