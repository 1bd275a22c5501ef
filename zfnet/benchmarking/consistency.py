"""Do a map's values agree with the logit? Sensitivity-n, max-sensitivity, completeness."""

from __future__ import annotations

import torch
from torch import Tensor

from zfnet.benchmarking.base import Case


def sensitivity_n(
    case: Case, *, shares: tuple[float, ...] = (0.02, 0.1, 0.3), subsets: int = 24
) -> Tensor:
    """Correlation of the map's sum over random pixels with the drop of the logit without them.

    Ancona et al. 2018, section 4: removed pixels become mean gray. The result is the mean over the
    sizes n. With one size it is Quantus's FaithfulnessCorrelation.

    Args:
        case: The maps.
        shares: The sizes n, as shares of the pixels.
        subsets: The number of random subsets per size. All methods get the same ones.

    Returns:
        (N,) in [-1, 1], NaN for a constant map.
    """
    masks, drops = case.once(
        ("sensitivity_n", shares, subsets), lambda: _removals(case, shares, subsets)
    )
    # (N, P) times (S, M, P), summed over pixels: (S, N, M)
    sums = torch.einsum("np,smp->snm", case.map.flatten(1).double(), masks.double())
    return correlation(sums, drops).mean(0)


@torch.no_grad()
def _removals(case: Case, shares: tuple[float, ...], subsets: int) -> tuple[Tensor, Tensor]:
    """Return random subsets (sizes, subsets, pixels) bool and logit drops (sizes, N, subsets)."""
    generator, pixels = case.generator(), case.x[0, 0].numel()
    order = torch.rand(len(shares), subsets, pixels, generator=generator).argsort(2).argsort(2)
    counts = torch.tensor([max(1, int(share * pixels)) for share in shares])
    masks = (order < counts[:, None, None]).to(case.x.device)
    before = case.logits(case.x, case.target)
    # The pairs of images and subsets share the passes.
    index = torch.arange(len(case.x), device=case.x.device).repeat_interleave(subsets)
    subset = torch.arange(subsets, device=case.x.device).repeat(len(case.x))
    pairs = list(zip(index.split(case.batch), subset.split(case.batch), strict=True))
    drops = []
    for size in masks.view(len(shares), subsets, 1, *case.x.shape[2:]):
        after = [case.logits(case.x[n].where(~size[s], 0.0), case.target[n]) for n, s in pairs]
        drops.append(before[:, None] - torch.cat(after).view(-1, subsets))  # (N, subsets)
    return masks, torch.stack(drops)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation along the last axis; NaN where a or b is constant."""
    a, b = (v.double() - v.double().mean(-1, keepdim=True) for v in (a, b))
    return (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()


def max_sensitivity(case: Case, *, radius: float = 0.1, samples: int = 5) -> Tensor:
    r"""Largest relative change of the map under small noise on the image.

    $\max_{\|e\|_\infty \le r} \|M(x + e) - M(x)\| / \|M(x)\|$ over random e: Yeh et al. 2019,
    definition 3.1.

    Args:
        case: The maps.
        radius: The largest noise per value, in the input convention (standard deviations).
        samples: The number of noisy copies. All methods and images get the same noise.

    Returns:
        (N,), 0 or more; NaN for a map of zeros.
    """
    generator, size = case.generator(), case.map.flatten(1).norm(dim=1)
    changes = []
    for _ in range(samples):
        noise = radius * (2 * torch.rand(case.x.shape[1:], generator=generator) - 1)
        again = case.explain(case.x + noise.to(case.x)).nan_to_num()
        changes.append((again - case.map).flatten(1).norm(dim=1) / size)
    return torch.stack(changes).amax(0)


def completeness(case: Case) -> Tensor:
    r"""Distance of the values' sum from the logit's rise over a gray image, in logits.

    $|\sum M - (S(x) - S(0))|$: the completeness axiom of Sundararajan, Taly & Yan 2017. It applies
    to methods that return a signed value for each input value (N, C, H, W) and sum them over
    channels. The unsigned maps of other methods, and coarse maps, have no score.

    Args:
        case: The maps.

    Returns:
        (N,), 0 or more; NaN where it does not apply.
    """
    if case.pixels is None or not (case.map < 0).any():
        return torch.full((len(case.x),), torch.nan)

    def rise() -> Tensor:
        gray = torch.zeros_like(case.x[:1]).expand_as(case.x)
        return case.logits(case.x, case.target) - case.logits(gray, case.target)

    return (case.map.double().sum((1, 2, 3)) - case.once("rise", rise)).abs()
