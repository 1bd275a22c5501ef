"""Do the pixels that a map ranks first matter? Insertion, deletion, and ROAD."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zfnet.analysis.extra import import_extra
from zfnet.analysis.faithfulness import auc, descending_ranks, replacement_curve
from zfnet.benchmarking.base import Case
from zfnet.synthesis.base import blur as gaussian

NEIGHBORS = [
    (-1, -1, 1 / 12), (-1, 0, 1 / 6), (-1, 1, 1 / 12), (0, -1, 1 / 6),
    (0, 1, 1 / 6), (1, -1, 1 / 12), (1, 0, 1 / 6), (1, 1, 1 / 12),
]  # fmt: skip  # row, column and weight of Rong et al. 2022, section 5


def insertion(case: Case, *, steps: int = 20, blur: float = 0.1) -> Tensor:
    """Area under the probability while a blurred image regains its pixels, the map's largest first.

    Petsiuk, Das & Saenko 2018 (RISE), section 4.3.

    Args:
        case: The maps. Equal values go in random order.
        steps: The number of steps.
        blur: Standard deviation of the Gaussian blur, as a share of the image's height.

    Returns:
        (N,) in [0, 1].
    """
    soft = case.once(("blur", blur), lambda: gaussian(case.x, blur * case.x.shape[2]))
    return _area(case, soft, case.x, steps)


def deletion(case: Case, *, steps: int = 20) -> Tensor:
    """Area under the probability while pixels become mean gray, the map's largest first.

    Petsiuk, Das & Saenko 2018 (RISE), section 4.3.

    Args:
        case: The maps. Equal values go in random order.
        steps: The number of steps.

    Returns:
        (N,) in [0, 1].
    """
    return _area(case, case.x, 0.0, steps)


def _area(case: Case, old: Tensor, new: float | Tensor, steps: int) -> Tensor:
    curve = replacement_curve(
        case.model, old, new, case.map, case.target, steps=steps, generator=case.generator(),
        batch=case.batch,
    )  # fmt: skip
    return auc(curve)


@torch.no_grad()
def road(
    case: Case, *, shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9), noise: float = 0.01
) -> Tensor:
    """Remove and debias: how often the class is still predicted without the map's largest pixels.

    A removed pixel becomes the weighted mean of its neighbors plus noise, so that the shape of the
    removed region does not tell the class. Rong et al. 2022, sections 4 and 5.

    Args:
        case: The maps. Equal values go in random order.
        shares: The shares of pixels to remove.
        noise: Standard deviation of the noise on removed pixels.

    Returns:
        (N,) in [0, 1]: the share of `shares` after which the class is still predicted.
    """
    generator = case.generator()
    rank = descending_ranks(case.map.flatten(1), generator)  # 0 is the largest
    correct = []
    for share in shares:
        removed = (rank < int(share * rank.shape[1])).view(len(rank), *case.x.shape[2:])
        images = torch.stack([impute(*pair) for pair in zip(case.x, removed, strict=True)])
        disturbance = noise * torch.randn(images.shape[1:], generator=generator).to(images)
        images += disturbance * removed[:, None]
        predicted = torch.cat([case.model(part).argmax(1) for part in images.split(case.batch)])
        correct.append(predicted == case.target)
    return torch.stack(correct, 1).double().mean(1)


def impute(x: Tensor, removed: Tensor) -> Tensor:
    """Replace pixels by the weighted mean of their eight neighbors, removed ones included.

    The means of all removed pixels are one sparse linear system.

    Args:
        x: An image (C, H, W).
        removed: The pixels to replace, (H, W) bool.

    Returns:
        The image (C, H, W). It is x where no pixel is removed, and zeros where all are.

    Example:
        >>> x = torch.arange(9.0).view(1, 3, 3)
        >>> center = torch.zeros(3, 3, dtype=torch.bool)
        >>> center[1, 1] = True
        >>> round(impute(x, center)[0, 1, 1].item(), 4)
        4.0
    """
    hole = removed.cpu().numpy()
    unknowns = int(hole.sum())
    if unknowns in (0, hole.size):
        return x.clone() if unknowns == 0 else torch.zeros_like(x)
    sparse, linalg = import_extra("scipy.sparse"), import_extra("scipy.sparse.linalg")
    pixels = x.cpu().double().numpy()
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(unknowns)
    rows, columns = np.nonzero(hole)
    total, right = np.zeros(unknowns), np.zeros((unknowns, len(pixels)))
    entries = []
    for down, across, weight in NEIGHBORS:
        r, c = rows + down, columns + across
        inside = (r >= 0) & (r < hole.shape[0]) & (c >= 0) & (c < hole.shape[1])
        r, c = r.clip(0, hole.shape[0] - 1), c.clip(0, hole.shape[1] - 1)
        total += weight * inside
        known, unknown = inside & ~hole[r, c], inside & hole[r, c]
        right[known] += weight * pixels[:, r[known], c[known]].T
        entries.append((np.flatnonzero(unknown), number[r[unknown], c[unknown]], -weight))
    i = np.concatenate([np.arange(unknowns), *(e[0] for e in entries)])
    j = np.concatenate([np.arange(unknowns), *(e[1] for e in entries)])
    values = np.concatenate([total, *(np.full(len(e[0]), e[2]) for e in entries)])
    system = sparse.csc_matrix((values, (i, j)), shape=(unknowns, unknowns))
    result = pixels.copy()
    result[:, hole] = linalg.splu(system).solve(right).T
    return torch.from_numpy(result).to(x)
