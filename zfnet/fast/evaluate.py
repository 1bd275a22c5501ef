"""Evaluate prepared steps on any values, and drop each value after its last use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.fast.locality import inputs_of
from zfnet.forward import apply
from zfnet.graph import Step


def evaluate(
    steps: Sequence[Step],
    values: dict[str, Tensor],
    keep: Collection[str],
    overwrites: Collection[str] = (),
) -> None:
    """Add the outputs of steps to the values that they read.

    Args:
        steps: The steps, in order.
        values: The values by name. Those outside `keep` are dropped after their last reader.
        keep: The values to keep.
        overwrites: The ReLUs that may overwrite what they read.
    """
    unread = Counter(name for step in steps for name in inputs_of(step))
    for step in steps:
        read = [values[name] for name in inputs_of(step)]
        if step.name in overwrites:
            values[step.name] = _rectify_in_place(step.module, read[0])
        else:
            values[step.name] = apply(step.module, *read)
        unread.subtract(inputs_of(step))
        for name in inputs_of(step):
            if not unread[name] and name not in keep:
                values.pop(name, None)


def _rectify_in_place(module: nn.Module, x: Tensor) -> Tensor:
    return F.relu6(x, inplace=True) if isinstance(module, nn.ReLU6) else x.relu_()
