"""Does the map depend on the weights? Randomization of layers (Adebayo et al. 2018).

The layers are randomized in place and restored afterwards, so that an explainer that is bound to
the network, such as a Captum object, sees the random weights too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zfnet.analysis.faithfulness import rank_correlation, redraw
from zfnet.benchmarking.base import Case


def cascading(case: Case, *, points: int = 4) -> Tensor:
    """Rank correlation with the map of a network whose upper layers are random, mean over depths.

    Layers become random one after the other, from the logits down (Adebayo et al. 2018, section
    3.1). Spearman's correlation of absolute values: signs flip at random in a random network.

    Args:
        case: The maps.
        points: The number of depths at which maps are compared, evenly spaced. The last one is the
            network with all layers random.

    Returns:
        (N,) in [-1, 1]; low if the map depends on the weights. NaN for a constant map; 0 where only
        the map of the random network is constant.
    """
    with restored(case.model):
        layers, generator = weighted_layers(case.model), case.generator()
        compared, scores = spaced(len(layers), points), []
        for number, layer in enumerate(layers):
            randomize(case.model, layer, generator, head=number == 0)
            if number in compared:
                scores.append(similarity(case.map, case.explain()))
    return torch.stack(scores).mean(0)


def independent(case: Case, *, points: int = 4) -> Tensor:
    """Rank correlation with the map of a network with one random layer, mean over layers.

    Adebayo et al. 2018, section 3.2. All other layers keep their weights.

    Args:
        case: The maps.
        points: The number of layers that are compared, evenly spaced from the logits down.

    Returns:
        (N,) in [-1, 1], as for `cascading`.
    """
    layers, generator, scores = weighted_layers(case.model), case.generator(), []
    for number in spaced(len(layers), points):
        with restored(case.model):
            randomize(case.model, layers[number], generator, head=number == 0)
            scores.append(similarity(case.map, case.explain()))
    return torch.stack(scores).mean(0)


def weighted_layers(model: nn.Module) -> list[nn.Module]:
    """Return the convolutions and dense layers, from the logits down."""
    return [m for m in reversed([*model.modules()]) if isinstance(m, (nn.Conv2d, nn.Linear))]


def spaced(count: int, points: int) -> list[int]:
    """Return up to `points` evenly spaced numbers below `count`; the last one is `count` - 1.

    Example:
        >>> spaced(8, 4)
        [1, 3, 5, 7]
    """
    points = min(points, count)
    return [round((k + 1) * count / points) - 1 for k in range(points)]


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore a network's parameters and its pooling head, `cam_head`, afterwards."""
    saved = [(p, p.data) for p in model.parameters()]
    head = getattr(model, "cam_head", None)
    try:
        yield
    finally:
        for parameter, data in saved:
            parameter.data = data
        if head is not None:
            setattr(model, "cam_head", head)  # noqa: B010


def randomize(
    model: nn.Module, layer: nn.Module, generator: torch.Generator, *, head: bool
) -> None:
    """Draw a layer's parameters anew, with the mean and deviation that they have.

    Args:
        model: The network.
        layer: One of its layers.
        generator: The source of the numbers.
        head: Whether to draw the pooling head, `model.cam_head`, too.
    """
    if head and (pooling := getattr(model, "cam_head", None)) is not None:
        setattr(model, "cam_head", tuple(redraw(part, generator) for part in pooling))  # noqa: B010
    for parameter in layer.parameters():
        parameter.data = redraw(parameter.detach(), generator)


def similarity(before: Tensor, after: Tensor) -> Tensor:
    """Return the rank correlation of absolute maps (N, 1, H, W): (N,).

    NaN where the first map is constant; 0 where only the second one is constant or not finite.
    """
    flat = before.flatten(1)
    r = rank_correlation(before.abs(), after.abs())
    return r.nan_to_num(0.0).masked_fill(flat.amax(1) == flat.amin(1), torch.nan)
