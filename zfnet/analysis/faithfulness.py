"""Faithfulness of attributions: insertion and deletion, the pointing game, and sanity checks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.model import evaluating, unwrap
from zfnet.outputs import logits_of, probability_function
from zfnet.validation import check_input, expand_fill, resolve_target


def replacement_curve(
    model: nn.Module,
    old: float | Tensor,
    new: float | Tensor,
    map: Tensor,
    target: int | Sequence[int] | Tensor,
    *,
    steps: int = 20,
    generator: torch.Generator | None = None,
    batch: int = 64,
    progress: Callable = no_progress,
) -> Tensor:
    r"""Replace pixels in the order of an attribution, and record the target's probability.

    Petsiuk, Das & Saenko 2018 (RISE), section 4.3. Deletion replaces the image by gray; a faithful
    map makes the probability fall quickly. Insertion replaces a blurred image by the image; a
    faithful map makes it rise quickly. `auc` returns the area under the curve.

    Args:
        model: A network that returns logits.
        old: The images before replacement (N, C, H, W), or a value that broadcasts to `new`.
        new: The images after replacement (N, C, H, W), or a value that broadcasts to `old`.
        map: Attributions (N, 1, H, W), signed; the largest pixels are replaced first.
        target: A class, or one class per image.
        steps: The number of steps; each replaces 1 / steps of the pixels.
        generator: The order of equal pixels is random, because reading order would favor a method;
            None for seed 0.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Probabilities (N, steps + 1); column s is after s / steps of the pixels.

    Raises:
        ValueError: If neither `old` nor `new` is images, or if map, target, steps or batch is
            wrong.

    Example:
        >>> import zfnet
        >>> x = torch.randn(1, 3, 28, 28)
        >>> replacement_curve(zfnet.mnist(), x, 0.0, x[:, :1], 8, steps=4).shape
        torch.Size([1, 5])
    """
    images = [t for t in (old, new) if isinstance(t, Tensor) and t.ndim == 4]
    if not images:
        raise ValueError("old or new must be images (N, C, H, W)")
    largest = max(images, key=Tensor.numel)
    old, new = expand_fill(old, largest, "old"), expand_fill(new, largest, "new")
    check_input(model, old)
    if map.shape != (len(old), 1, *old.shape[2:]) or not map.isfinite().all():
        raise ValueError(
            f"map must be finite and ({len(old)}, 1, H, W) like the images, got {tuple(map.shape)}"
        )
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch must be at least 1, got {steps} and {batch}")
    generator = generator or torch.Generator().manual_seed(0)
    rank = descending_ranks(map.flatten(1), generator).view(map.shape)  # 0 is the largest
    counts = (torch.arange(steps + 1, device=map.device) * rank[0].numel()) // steps
    # The pairs of images and steps share the passes, so that a pass is full for any `steps`.
    index = torch.arange(len(old), device=rank.device).repeat_interleave(steps + 1).split(batch)
    count = counts.view(-1, 1, 1, 1).repeat(len(old), 1, 1, 1).split(batch)
    rows = []
    with evaluating(model), torch.no_grad():
        pairs = zip(index, count, strict=True)
        for n, c in progress(pairs, total=len(index), desc="replacing pixels"):
            rows.append(logits_of(model, torch.where(rank[n] < c, new[n], old[n])))
    logits = torch.cat(rows).unflatten(0, (len(old), steps + 1))  # (N, steps + 1, classes)
    probability = probability_function(model)(logits)
    return probability[
        torch.arange(len(old), device=old.device), :, resolve_target(target, logits[:, 0])
    ]


def descending_ranks(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rank of each value in descending order; ties are broken at random.

    Args:
        values: Values (N, P).
        generator: The source of randomness.

    Returns:
        Ranks (N, P) int64, from 0 for the largest.

    Example:
        >>> descending_ranks(torch.tensor([[1.0, 3.0, 2.0]]), torch.Generator()).tolist()
        [[2, 0, 1]]
    """
    count = values.shape[1]
    shuffled = torch.randperm(count, generator=generator, device=generator.device)
    shuffled = shuffled.to(values.device)
    order = shuffled[values[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    ranks = torch.arange(count, device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks)


def auc(curve: Tensor) -> Tensor:
    """Return the area under curves over [0, 1], by the trapezoidal rule.

    Args:
        curve: Curves (N, steps + 1), at equal distances.

    Returns:
        Areas (N,); in [0, 1] for probabilities.

    Raises:
        ValueError: If the curves have fewer than two points.

    Example:
        >>> auc(torch.tensor([[1.0, 0.5, 0.0]]))
        tensor([0.5000])
    """
    if curve.ndim != 2 or curve.shape[1] < 2:
        raise ValueError(
            f"an area needs curves (N, steps + 1) of 2 points, got {tuple(curve.shape)}"
        )
    return (curve[:, :-1] + curve[:, 1:]).mean(1) / 2


def pointing_game(map: Tensor, mask: Tensor, tolerance: int = 0) -> Tensor:
    """Return whether the maximum of each map is on the object.

    Zhang et al. 2016 (excitation backprop), section 4.1, with a tolerance of 15 pixels. If several
    pixels share the maximum, the result is the share of them that hit: a flat map scores like a
    random point. A map that is not finite misses.

    Args:
        map: Attributions (N, 1, H, W).
        mask: Objects (N, H, W), bool.
        tolerance: The distance from the object, in pixels, that still counts as a hit.

    Returns:
        Hits (N,) in [0, 1].

    Raises:
        ValueError: If map and mask have the wrong shape or dtype.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> pointing_game(torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]]), mask)
        tensor([1.])
    """
    if map.shape != (len(mask), 1, *mask.shape[1:]) or mask.dtype != torch.bool:
        raise ValueError(
            f"map must be (N, 1, H, W) and mask (N, H, W) bool, "
            f"got {tuple(map.shape)} and {tuple(mask.shape)} {mask.dtype}"
        )
    offset = torch.arange(-tolerance, tolerance + 1, device=mask.device)
    disk = (offset[:, None] ** 2 + offset**2 <= tolerance**2).float()[None, None]
    dilated = F.conv2d(mask[:, None].float(), disk, padding=tolerance) > 0.5
    peak = map == map.amax((2, 3), keepdim=True)
    hits = (peak & dilated).sum((1, 2, 3)) / peak.sum((1, 2, 3)).clamp_min(1)
    return torch.where(map.isfinite().flatten(1).all(1), hits, 0.0)


def randomize_layers(
    model: nn.Module, generator: torch.Generator
) -> Iterator[tuple[str, nn.Module]]:
    """Randomize a network layer by layer, from the logits down.

    The cascading randomization of Adebayo et al. 2018, section 3.1: an attribution that does not
    change on a random network does not show what the network has learned. Weights and biases are
    drawn from a normal distribution with the mean and standard deviation of the original ones, so
    that activations keep their scale. The pooling head (`cam_head`) is randomized with the first
    layer.

    Args:
        model: Any network; it is copied.
        generator: The source of randomness.

    Yields:
        The name of the last randomized layer, and the network. The same copy is yielded each time:
        use it before the next iteration.

    Example:
        >>> import zfnet
        >>> [name for name, _ in randomize_layers(zfnet.mnist(), torch.Generator())]
        ['fc4', 'fc3', 'conv2', 'conv1']
    """
    model = copy.deepcopy(unwrap(model))
    weighted = (nn.Conv2d, nn.Linear)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, weighted)]
    head = getattr(model, "cam_head", None)
    if head is not None:
        setattr(model, "cam_head", tuple(redraw(part, generator) for part in head))  # noqa: B010
    for name, module in reversed(layers):
        for parameter in module.parameters():
            parameter.data = redraw(parameter.detach(), generator)
        yield name, model


def redraw(values: Tensor, generator: torch.Generator) -> Tensor:
    """Draw normal values with the mean and standard deviation of a tensor."""
    noise = torch.randn(values.shape, generator=generator, device=generator.device).to(values)
    return values.mean() + values.std(correction=0) * noise


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    r"""Return Spearman's rank correlation of pairs of maps.

    Pearson's correlation of the ranks; equal values share their mean rank.

    Args:
        a: Maps (N, ...).
        b: Maps of the same shape.

    Returns:
        Correlations (N,) float64 in [-1, 1]; NaN for a flat map or one that contains NaN.

    Example:
        >>> rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]]))
        tensor([-1.], dtype=torch.float64)
    """
    x, y = (torch.stack([_mean_ranks(row) for row in maps.flatten(1)]) for maps in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    r = (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
    return r.masked_fill((a.isnan() | b.isnan()).flatten(1).any(1), torch.nan)


def _mean_ranks(row: Tensor) -> Tensor:
    """Return the ranks of a row (P,) from 1, float64; equal values share their mean rank."""
    _, inverse, counts = row.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2.0).double()[inverse]
