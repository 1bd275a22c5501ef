"""Invariance: how far features move, and whether the class holds, when a picture is shifted, scaled or turned (Fig. 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.forward import trace
from zfnet.graph import layer_names
from zfnet.validation import check_input

IDENTITY = {
    "translation": 0.0,
    "scale": 1.0,
    "rotation": 0.0,
}  # the families, and the value that changes nothing
SHARE = 0.65  # of the side: the largest round view whose shifts by 60 of 224 pixels, and all turns, stay in the square


@dataclass(frozen=True, eq=False)
class Invariance:
    """What T transforms of one family do to N images.

    `values` (T,) are pixels of the view (down is positive), factors, or degrees counter-clockwise. `distance[layer]` (N, T) is
    relative to the norm of the reference view's features; `probability` (N, T) is the target's, `label` (N, T) the most
    probable class. `reference` (N,) and `reference_label` (N,) are the untransformed view's probability and class.
    """

    family: str
    values: Tensor
    distance: dict[str, Tensor]
    probability: Tensor
    label: Tensor
    reference: Tensor
    reference_label: Tensor


def views(
    squares: Tensor,
    family: str,
    values: Sequence[float] | Tensor,
    *,
    share: float = SHARE,
    size: int = 224,
) -> Tensor:
    r"""Resample squares (N, C, S, S) once, bilinearly, for each of T transforms: (N, T, C, size, size).

    The pixel at $u$ = (row, column) from the view's centre shows the square at $\frac{\text{share} \cdot S}{\text{size}} A u$
    from its own: $A u = u - (v, 0)$ for a translation of v pixels of the view, $u / v$ for scale, $R_v u$ for
    rotation by v degrees counter-clockwise. The identity is the central `share` of the square at `size` pixels, so that a
    transform samples inside the picture and no border invents evidence; the paper does not say how its were filled.
    Zeiler & Fergus, section 4.1, Fig. 5.
    Raises ValueError for an unknown family, a value that is not finite, a scale of 0 or less, and a transform that would
    look outside the square.
    """
    if family not in IDENTITY:
        raise ValueError(f"no family of transforms {family!r}; there are {', '.join(IDENTITY)}")
    if squares.ndim != 4 or squares.shape[2] != squares.shape[3] or not squares.is_floating_point():
        raise ValueError(
            f"expected float squares (N, C, S, S), got {tuple(squares.shape)} {squares.dtype}"
        )
    if not 0 < share <= 1 or size < 1:
        raise ValueError(f"share must be in (0, 1] and size at least 1, got {share} and {size}")
    v = torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1)
    if not v.isfinite().all() or (family == "scale" and (v <= 0).any()):
        raise ValueError(
            f"values of {family} must be finite" + (" and above 0" if family == "scale" else "")
        )
    u = torch.arange(size, dtype=torch.float64) + 0.5 - size / 2
    row, column = torch.meshgrid(u, u, indexing="ij")  # (size, size)
    if family == "translation":
        row, column = row - v, column.expand(len(v), -1, -1)
    elif family == "scale":
        row, column = row / v, column / v
    else:
        sine, cosine = torch.sin(v * math.pi / 180), torch.cos(v * math.pi / 180)
        row, column = row * cosine + column * sine, column * cosine - row * sine
    grid = torch.stack([column, row], -1) * (
        2 * share / size
    )  # (T, size, size, 2) in [-1, 1], from edge to edge
    outside = [
        float(value)
        for value, places in zip(v.flatten(), grid, strict=True)
        if places.abs().max() > 1
    ]
    if outside:
        raise ValueError(
            f"{family} by {outside} looks outside the square; choose smaller values or a smaller share than {share}"
        )
    n, t = len(squares), len(v)
    grid = grid.to(squares).repeat(n, 1, 1, 1)
    sampled = F.grid_sample(
        squares.repeat_interleave(t, 0), grid, padding_mode="border", align_corners=False
    )
    return sampled.view(n, t, *sampled.shape[1:])


def invariance(
    model: nn.Module,
    squares: Tensor,
    target: Sequence[int] | Tensor,
    family: str,
    values: Sequence[float] | Tensor,
    *,
    layers: str | Sequence[str] = ("conv1", "fc7"),
    share: float = SHARE,
    size: int = 224,
    batch: int = 16,
    progress: Callable = no_progress,
) -> Invariance:
    r"""Transform each image, and measure how far its features move and what becomes of its class.

    $d(T) = \|f(x) - f(Tx)\|_2 / \|f(x)\|_2$ at each of `layers` (rectified maps before pooling), and the softmax probability
    of `target` (N,). `squares` (N, 3, S, S) are whole pictures in the network's input convention, `family` one of
    translation, scale and rotation; see `views` for its `values`, `share` and `size`. Distances are 0 or more.
    Raises ValueError for bad squares, targets or transforms, UnknownLayer, and UnsupportedNetwork.
    Zeiler & Fergus, section 4.1, Fig. 5.
    """
    check_input(model, squares)
    layers = layer_names(layers)
    values = torch.as_tensor(values, dtype=torch.float64).reshape(-1)
    target = torch.as_tensor(target).reshape(-1)
    if len(target) != len(squares) or target.is_floating_point():
        raise ValueError(
            f"target must be one class for each of {len(squares)} images, got {target.tolist()}"
        )
    if batch < 1 or not len(values) or not layers:
        raise ValueError(
            f"batch must be at least 1, and values and layers not empty; got {batch}, {values.tolist()}, {layers}"
        )
    every = torch.cat(
        [torch.tensor([IDENTITY.get(family, 0.0)]).double(), values]
    )  # the reference comes first
    distances: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    probabilities, labels = [], []
    for n in progress(range(len(squares)), total=len(squares), desc=family):
        reference: dict[str, Tensor] = {}
        parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        logits = []
        for chunk in every.split(batch):
            t = trace(model, views(squares[n : n + 1], family, chunk, share=share, size=size)[0])
            assert t.logits is not None
            logits.append(t.logits)
            for layer in layers:
                features = t[layer].flatten(1)  # (B, units)
                f = reference.setdefault(layer, features[0])
                parts[layer].append((features - f).norm(dim=1) / f.norm().clamp_min(1e-12))
        scores = torch.cat(logits)
        if not 0 <= target[n] < scores.shape[1]:
            raise ValueError(
                f"target must be a class from 0 to {scores.shape[1] - 1}, got {int(target[n])}"
            )
        probabilities.append(scores.softmax(1)[:, target[n]])
        labels.append(scores.argmax(1))
        for layer in layers:
            distances[layer].append(torch.cat(parts[layer]))
    probability, label = torch.stack(probabilities), torch.stack(labels)
    return Invariance(
        family,
        values,
        {layer: torch.stack(rows)[:, 1:] for layer, rows in distances.items()},
        probability[:, 1:],
        label[:, 1:],
        probability[:, 0],
        label[:, 0],
    )


def r_squared(x: Tensor, y: Tensor) -> Tensor:
    r"""How straight each row of y (N, T) is against x (T,): $R^2$ of the least-squares line, with intercept, (N,) in [0, 1].

    1 for a constant row. Raises ValueError for fewer than three points, or where all x are equal.
    """
    x, y = x.double(), y.double()
    if len(x) < 3 or y.shape[1:] != x.shape or bool((x == x[0]).all()):
        raise ValueError(
            f"a line needs three points or more at different places, got x {tuple(x.shape)}, y {tuple(y.shape)}"
        )
    x, y = x - x.mean(), y - y.mean(1, keepdim=True)
    total = y.square().sum(1)
    return torch.where(total > 0, (y @ x).square() / (x @ x * total.clamp_min(1e-300)), 1.0)
