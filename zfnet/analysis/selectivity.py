"""Selectivity of units for a concept that the network was not trained on, such as faces or text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def auc(values: Tensor, positive: Tensor) -> Tensor:
    r"""Return the area under the ROC curve of each unit's responses.

    $\frac{1}{P Q} \sum_{i \in +} \sum_{j \in -} [v_i > v_j] + \frac{1}{2} [v_i = v_j]$: the
    probability that a positive image excites the unit more than a negative one (Mann & Whitney
    1947). 0.5 is chance. Ranks are computed once for all labelings.

    Args:
        values: Responses v of U units to N images (N, U).
        positive: One or more labelings (..., N), bool.

    Returns:
        Areas (..., U) float64 in [0, 1].

    Raises:
        ValueError: If a labeling has the wrong length, or lacks positive or negative images, or if
            a response is NaN.

    Example:
        >>> auc(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([False, True, True]))
        tensor([1.], dtype=torch.float64)
    """
    n, count = len(values), positive.sum(-1, keepdim=True).double()  # (..., 1)
    if positive.shape[-1] != n or (count == 0).any() or (count == n).any():
        raise ValueError(
            f"each labeling needs positive and negative images among {n}, "
            f"got {count.flatten().long().tolist()[:5]} positive of {positive.shape[-1]}"
        )
    if values.isnan().any():
        raise ValueError("values must not be NaN, which has no rank")
    ranks = [(values < row).sum(0) + ((values == row).sum(0) + 1) / 2 for row in values]
    rank_sum = positive.double() @ torch.stack(ranks).double()  # (..., U); ties share a mean rank
    return (rank_sum - count * (count + 1) / 2) / (count * (n - count))


@dataclass(frozen=True, eq=False)
class UnitSelection:
    """Units selected on one half of the images and evaluated on the other, in both directions.

    Index 0 of the last axis selects on the first half, index 1 on the second.

    Attributes:
        unit: The unit with the largest AUC on the selection half (..., 2), int64.
        selection_auc: Its AUC on the selection half (..., 2).
        held_out_auc: Its AUC on the other half (..., 2).
    """

    unit: Tensor
    selection_auc: Tensor
    held_out_auc: Tensor


def best_unit(values: Tensor, positive: Tensor, first: Tensor) -> UnitSelection:
    """Select the unit with the largest AUC on half of the images, and evaluate it on the other.

    The AUC of the best of many units is biased upward on the images that it was selected on. On the
    other half, chance is 0.5.

    Args:
        values: Responses of U units to N images (N, U).
        positive: One or more labelings (..., N), bool.
        first: The images of the first half (N,), bool.

    Returns:
        The selected units and their AUCs, per labeling.

    Raises:
        ValueError: If a labeling lacks positive or negative images in one half.

    Example:
        >>> values = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 2.0], [3.0, 2.0]])
        >>> positive = torch.tensor([False, True, False, True])
        >>> best_unit(values, positive, torch.tensor([True, True, False, False])).unit
        tensor([0, 0])
    """
    areas = [auc(values[half], positive[..., half]) for half in (first, ~first)]  # (..., U) each
    units = [area.argmax(-1) for area in areas]
    held_out = [
        area.gather(-1, unit[..., None])[..., 0]
        for area, unit in zip(reversed(areas), units, strict=True)
    ]
    parts = (units, [area.amax(-1) for area in areas], held_out)
    return UnitSelection(*(torch.stack(part, -1) for part in parts))


def permute_labels(
    positive: Tensor, groups: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Permute labels within groups, as a null model.

    One group for all images gives the chance level. With classes as groups, the null model knows
    how the label depends on the class.

    Args:
        positive: Labels (N,), bool.
        groups: A group number per image (N,), int64.
        count: The number of permutations.
        generator: The source of randomness.

    Returns:
        Labelings (count, N), bool.

    Example:
        >>> positive, groups = torch.tensor([True, False, False]), torch.tensor([0, 0, 1])
        >>> permute_labels(positive, groups, 4, torch.Generator())[:, 2].any()
        tensor(False)
    """
    order = torch.rand(count, len(positive), generator=generator, device=generator.device).argsort(
        1
    )
    # A stable sort by group keeps the random order within each group.
    shuffled = order.gather(1, groups[order].argsort(dim=1, stable=True))
    labelings = torch.empty(count, len(positive), dtype=torch.bool, device="cpu")
    labelings[:, groups.argsort(stable=True)] = positive[shuffled]
    return labelings
