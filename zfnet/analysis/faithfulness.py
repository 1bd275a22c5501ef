"""Is an attribution true to the network? Insertion and deletion, the pointing game, and randomising the network under it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.forward import evaluating
from zfnet.model import unwrap
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
    r"""The target's probability while `old` is replaced by `new`, the pixels of the largest `map` first: (N, steps + 1).

    Column s is after a share of s / steps of the pixels. Deletion (Petsiuk, Das & Saenko 2018, RISE, section 4.3) goes from
    the image to grey, and is good where it falls at once; insertion goes from a blurred image to the image, and is good where
    it rises at once. `auc` is the area below. `map` (N, 1, H, W), signed; equal pixels go in an order drawn from `generator`
    (None: seed 0), for reading order would be a method of its own. `old` and `new` are in the input convention: tensors (N,
    C, H, W), or for one of them what broadcasts to the other. Raises ValueError for a bad map or target, no images among the
    two, or steps or batch below 1.
    """
    given = [t for t in (old, new) if isinstance(t, Tensor) and t.ndim == 4]
    if not given:
        raise ValueError("old or new must be images (N, C, H, W)")
    like = max(given, key=Tensor.numel)
    old, new = expand_fill(old, like, "old"), expand_fill(new, like, "new")
    check_input(model, old)
    if map.shape != (len(old), 1, *old.shape[2:]) or not map.isfinite().all():
        raise ValueError(
            f"map must be finite and ({len(old)}, 1, H, W) like the images, got {tuple(map.shape)}"
        )
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch must be at least 1, got {steps} and {batch}")
    rank = ranks(map.flatten(1), generator or torch.Generator().manual_seed(0)).view(
        map.shape
    )  # 0 is the largest
    counts = (torch.arange(steps + 1, device=map.device) * rank[0].numel()) // steps
    rows = []
    with evaluating(model), torch.no_grad():
        for n in progress(range(len(old)), total=len(old), desc="replacing pixels"):
            chunks = counts.view(-1, 1, 1, 1).split(batch)
            rows.append(
                torch.cat([model(torch.where(rank[n] < chunk, new[n], old[n])) for chunk in chunks])
            )
    logits = torch.stack(rows)  # (N, steps + 1, classes)
    return logits.softmax(2)[torch.arange(len(old)), :, resolve_target(target, logits[:, 0])]


def ranks(values: Tensor, generator: torch.Generator) -> Tensor:
    """The place of each of the values (N, P) in falling order, 0 for the largest; equal ones in an order that is drawn."""
    shuffled = torch.randperm(values.shape[1], generator=generator, device=generator.device).to(
        values.device
    )
    order = shuffled[values[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return torch.empty_like(order).scatter_(
        1, order, torch.arange(values.shape[1], device=order.device).expand_as(order)
    )


def auc(curve: Tensor) -> Tensor:
    """The area below curves (N, steps + 1) over the share from 0 to 1, by trapezoids: (N,) in [0, 1] for probabilities."""
    return (curve[:, :-1] + curve[:, 1:]).mean(1) / 2


def pointing_game(map: Tensor, mask: Tensor, tolerance: int = 0) -> Tensor:
    """Whether the maximum of each map (N, 1, H, W) lies on the object, mask (N, H, W) bool, or within `tolerance` pixels: (N,).

    Zhang et al. 2016 (excitation backprop), section 4.1, who allow 15 pixels. Where several places share the maximum it is the
    share of them that hit, so that a flat map scores as a random point does. A map that is not finite misses.
    Raises ValueError where map and mask do not fit.
    """
    if map.shape != (len(mask), 1, *mask.shape[1:]) or mask.dtype != torch.bool:
        raise ValueError(
            f"map must be (N, 1, H, W) and mask (N, H, W) bool, got {tuple(map.shape)} and {tuple(mask.shape)}"
        )
    near = torch.arange(-tolerance, tolerance + 1, device=mask.device)
    disc = (near[:, None] ** 2 + near**2 <= tolerance**2).float()[None, None]
    object_ = F.conv2d(mask[:, None].float(), disc, padding=tolerance) > 0.5
    peak = map == map.amax((2, 3), keepdim=True)
    hits = (peak & object_).sum((1, 2, 3)) / peak.sum((1, 2, 3)).clamp_min(1)
    return torch.where(map.isfinite().flatten(1).all(1), hits, 0.0)


def randomized(model: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, nn.Module]]:
    """The network with its layers randomised one after the other, from the logits down: (layer, a network) for each.

    Cascading randomisation of Adebayo et al. 2018, section 3.1: an attribution that looks the same on a random network does
    not show what the network learnt. The weights of a layer are drawn anew, normal with the mean and deviation of its own, so
    that signals keep their size; biases too. A fitted pooling head (`cam_head`) goes with the first. What is given is one
    copy that changes on: use it before asking for the next.
    """
    model = copy.deepcopy(unwrap(model))
    weighted = [
        (name, m) for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    head = getattr(model, "cam_head", None)
    if head is not None:
        setattr(model, "cam_head", tuple(redrawn(part, generator) for part in head))  # noqa: B010
    for name, module in reversed(weighted):
        for parameter in module.parameters():
            parameter.data = redrawn(parameter.detach(), generator)
        yield name, model


def redrawn(values: Tensor, generator: torch.Generator) -> Tensor:
    """Normal values with the mean and deviation of these: like them."""
    drawn = torch.randn(values.shape, generator=generator, device=generator.device).to(values)
    return values.mean() + values.std(correction=0) * drawn


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    r"""Spearman's rank correlation of maps (N, ...) with maps of the same shape: (N,) in [-1, 1].

    Pearson's correlation of the ranks, equal values sharing the mean of theirs. NaN for a flat map, whose ranks say nothing,
    and for one that holds NaN.
    """
    x, y = (torch.stack([mean_ranks(row) for row in maps.flatten(1)]) for maps in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    r = (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
    return r.masked_fill((a.isnan() | b.isnan()).flatten(1).any(1), torch.nan)


def mean_ranks(row: Tensor) -> Tensor:
    """The ranks of a row (P,), from 1, equal values sharing the mean of theirs: float64."""
    _, inverse, counts = row.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2.0).double()[inverse]
