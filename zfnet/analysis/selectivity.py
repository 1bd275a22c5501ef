"""Is a unit selective for something that the network was never taught, such as faces or text?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def auc(values: Tensor, positive: Tensor) -> Tensor:
    r"""The area under the ROC curve of each unit's responses: values (N, U) and positive (..., N) bool to (..., U) in [0, 1].

    $\frac{1}{P Q} \sum_{i \in +} \sum_{j \in -} [v_i > v_j] + \frac{1}{2} [v_i = v_j]$: the chance that an image with the label
    excites the unit more than one without (Mann & Whitney 1947); 0.5 is no relation. Many labellings cost little more than
    one.
    Raises ValueError where a labelling does not fit, or lacks one of the two kinds.
    """
    n, number = len(values), positive.sum(-1, keepdim=True).double()  # (..., 1)
    if positive.shape[-1] != n or (number == 0).any() or (number == n).any():
        raise ValueError(
            f"each labelling must have both kinds among {n} images, got {number.flatten().long().tolist()[:5]} positive"
        )
    ranks = torch.stack(
        [(values < row).sum(0) + ((values == row).sum(0) + 1) / 2 for row in values]
    )  # (N, U), ties averaged
    total = positive.double() @ ranks.double()
    return (total - number * (number + 1) / 2) / (number * (n - number))


@dataclass(frozen=True, eq=False)
class Selected:
    """A unit chosen on one half of the images and judged on the other, both ways.

    `unit` (..., 2) int64 is the one with the largest AUC on the first half, and on the second; `chosen` (..., 2) that AUC;
    `judged` (..., 2) its AUC on the half that had no part in the choice. With many labellings, each has its own.
    """

    unit: Tensor
    chosen: Tensor
    judged: Tensor


def best_unit(values: Tensor, positive: Tensor, first: Tensor) -> Selected:
    """Choose the unit of values (N, U) that tells labels positive (..., N) best on half of the images; judge it on the other.

    `first` (N,) bool says which images are the first half. The best of many units is best partly by luck; on images that had no
    part in the choice, luck gives 0.5. Raises ValueError as `auc`, for either half.
    """
    areas = [auc(values[half], positive[..., half]) for half in (first, ~first)]  # (..., U) each
    units = [area.argmax(-1) for area in areas]
    chosen = [area.amax(-1) for area in areas]
    judged = [
        other.gather(-1, unit[..., None])[..., 0]
        for other, unit in zip(reversed(areas), units, strict=True)
    ]
    return Selected(*(torch.stack(part, -1) for part in (units, chosen, judged)))


def permuted(positive: Tensor, groups: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Labellings (count, N) in which the labels of positive (N,) bool are permuted within each group of groups (N,) int64.

    With one group for all, what luck gives; with the images' classes, what the class alone gives away of the label.
    """
    order = torch.rand(count, len(positive), generator=generator).argsort(1)
    shuffled = order.gather(
        1, groups[order].argsort(dim=1, stable=True)
    )  # group by group, within each at random
    found = torch.empty(count, len(positive), dtype=torch.bool)
    found[:, groups.argsort(stable=True)] = positive[shuffled]
    return found
