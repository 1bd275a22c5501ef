"""Invariance of features to translation, scale and rotation (Fig. 5)."""

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
from zfnet.outputs import probability_function
from zfnet.validation import check_input

# The value of each family that changes nothing.
IDENTITY = {"translation": 0.0, "scale": 1.0, "rotation": 0.0}
# The side of a view relative to the picture's. At 0.65, translations by 60 of 224 pixels and all
# rotations stay inside the picture.
SHARE = 0.65


@dataclass(frozen=True, eq=False)
class Invariance:
    """The effect of T transforms of one family on N images.

    Attributes:
        family: "translation", "scale" or "rotation".
        values: The transforms (T,): pixels of the view (down is positive), factors, or degrees
            counterclockwise.
        distance: For each layer, the distance (N, T) of the features from those of the reference
            view, relative to their norm.
        probability: The target's probability (N, T).
        label: The most probable class (N, T).
        reference: The target's probability in the untransformed view (N,).
        reference_label: The most probable class in the untransformed view (N,).
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
    r"""Resample square pictures, bilinearly and once, for each transform.

    The pixel at $u$ = (row, column) from the center of the view shows the picture at
    $\frac{\text{share} \cdot S}{\text{size}} A u$ from its center. $A u = u - (v, 0)$ for a
    translation by v, $u / v$ for a scale, and $R_v u$ for a rotation. Views are smaller than the
    picture, so that transforms need no padding; the paper does not describe its padding. Zeiler &
    Fergus, section 4.1, Fig. 5.

    Args:
        squares: Pictures (N, C, S, S).
        family: "translation", "scale" or "rotation".
        values: T pixels of the view (down is positive), factors, or degrees counterclockwise.
        share: The side of the untransformed view, relative to S; in (0, 1].
        size: The side of a view, in pixels.

    Returns:
        Views (N, T, C, size, size).

    Raises:
        ValueError: If the family is unknown, if a value is not finite or a scale not positive, or
            if a view extends beyond the picture.

    Example:
        >>> views(torch.zeros(1, 3, 64, 64), "rotation", [0, 90], size=32).shape
        torch.Size([1, 2, 3, 32, 32])
    """
    if family not in IDENTITY:
        raise ValueError(f"{family!r} is not a family; available: {', '.join(IDENTITY)}")
    if squares.ndim != 4 or squares.shape[2] != squares.shape[3] or not squares.is_floating_point():
        raise ValueError(
            f"expected float squares (N, C, S, S), got {tuple(squares.shape)} {squares.dtype}"
        )
    if not 0 < share <= 1 or size < 1:
        raise ValueError(f"share must be in (0, 1] and size at least 1, got {share} and {size}")
    v = torch.as_tensor(values, dtype=torch.float64, device="cpu").reshape(-1)
    if not v.isfinite().all() or (family == "scale" and (v <= 0).any()):
        condition = "finite and above 0" if family == "scale" else "finite"
        raise ValueError(f"values of {family} must be {condition}, got {v.tolist()}")
    grid = _sampling_grid(family, v, size) * (2 * share / size)  # in [-1, 1], from edge to edge
    outside = v[grid.abs().flatten(1).amax(1) > 1].tolist()
    if outside:
        raise ValueError(
            f"{family} by {outside} extends beyond the picture; use smaller values, "
            f"or a smaller share than {share}"
        )
    n, t = len(squares), len(v)
    grid = grid.to(squares).repeat(n, 1, 1, 1)  # (N T, size, size, 2)
    sampled = F.grid_sample(
        squares.repeat_interleave(t, 0), grid, padding_mode="border", align_corners=False
    )
    return sampled.view(n, t, *sampled.shape[1:])


def _sampling_grid(family: str, values: Tensor, size: int) -> Tensor:
    """Return the transformed coordinates (T, size, size, 2): (x, y) from the center, in pixels."""
    u = torch.arange(size, dtype=torch.float64, device="cpu") + 0.5 - size / 2
    row, column = torch.meshgrid(u, u, indexing="ij")  # (size, size)
    v = values.view(-1, 1, 1)
    if family == "translation":
        row, column = row - v, column.expand(len(v), -1, -1)
    elif family == "scale":
        row, column = row / v, column / v
    else:
        sine, cosine = torch.sin(v * math.pi / 180), torch.cos(v * math.pi / 180)
        row, column = row * cosine + column * sine, column * cosine - row * sine
    return torch.stack([column, row], -1)


def _check_target(target: Sequence[int] | Tensor, n: int) -> Tensor:
    """Return the class of each of n images (n,). Raises ValueError."""
    target = torch.as_tensor(target, device="cpu").reshape(-1)
    if len(target) != n or target.is_floating_point():
        raise ValueError(f"target must be one class per image, ({n},), got {target.tolist()}")
    return target


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
    r"""Transform images, and measure the change of their features and predictions.

    $d(T) = \|f(x) - f(Tx)\|_2 / \|f(x)\|_2$ at each layer, with rectified maps before pooling.
    Zeiler & Fergus, section 4.1, Fig. 5.

    Args:
        model: A network that `zfnet.trace` supports.
        squares: Pictures (N, 3, S, S) in the network's input convention.
        target: One class per image (N,).
        family: "translation", "scale" or "rotation".
        values: The transforms (T,), as in `views`.
        layers: Layer names.
        share: The side of the untransformed view, relative to S.
        size: The side of a view, in pixels.
        batch: The number of views per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Distances, probabilities and predicted classes.

    Raises:
        ValueError: If squares, target, family, values, layers or batch is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If `zfnet.trace` does not support the network.

    Example:
        >>> import zfnet
        >>> i = invariance(
        ...     zfnet.mnist(), torch.randn(1, 3, 40, 40), [8], "rotation", [10, 20],
        ...     layers="conv2", size=28,
        ... )
        >>> i.distance["conv2"].shape
        torch.Size([1, 2])
    """
    check_input(model, squares)
    layers = layer_names(layers)
    values = torch.as_tensor(values, dtype=torch.float64, device="cpu").reshape(-1)
    target = _check_target(target, len(squares))
    if batch < 1 or not len(values) or not layers:
        raise ValueError(
            f"batch must be at least 1, and values and layers not empty; "
            f"got {batch}, {values.tolist()} and {layers}"
        )
    identity = torch.tensor([IDENTITY.get(family, 0.0)], dtype=torch.float64, device="cpu")
    all_values = torch.cat([identity, values])  # the reference view comes first
    distances: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    probabilities, labels, to_probabilities = [], [], probability_function(model)
    for n in progress(range(len(squares)), total=len(squares), desc=family):
        chunks = [
            views(squares[n : n + 1], family, chunk, share=share, size=size)[0]
            for chunk in all_values.split(batch)
        ]
        distance, logits = _distances(model, chunks, layers)
        if not 0 <= target[n] < logits.shape[1]:
            raise ValueError(
                f"target must be a class from 0 to {logits.shape[1] - 1}, got {int(target[n])}"
            )
        probabilities.append(to_probabilities(logits)[:, target[n]])
        labels.append(logits.argmax(1))
        for layer in layers:
            distances[layer].append(distance[layer])
    probability, label = torch.stack(probabilities), torch.stack(labels)  # (N, 1 + T)
    return Invariance(
        family,
        values,
        {layer: torch.stack(rows)[:, 1:] for layer, rows in distances.items()},
        probability[:, 1:],
        label[:, 1:],
        probability[:, 0],
        label[:, 0],
    )


def _distances(
    model: nn.Module, chunks: Sequence[Tensor], layers: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the relative distances (V,) from the first view by layer, and the logits (V, K)."""
    distances: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    reference: dict[str, Tensor] = {}
    logits = []
    for x in chunks:
        t = trace(model, x)
        assert t.logits is not None
        logits.append(t.logits)
        for layer in layers:
            features = t[layer].flatten(1)  # (B, units)
            f = reference.setdefault(layer, features[0])
            distances[layer].append((features - f).norm(dim=1) / f.norm().clamp_min(1e-12))
    return {layer: torch.cat(rows) for layer, rows in distances.items()}, torch.cat(logits)


def r_squared(x: Tensor, y: Tensor) -> Tensor:
    r"""Return $R^2$ of the least-squares line, with intercept, through each row of y.

    Args:
        x: Positions (T,), at least three and not all equal.
        y: Values (N, T).

    Returns:
        $R^2$ (N,) in [0, 1]; 1 for a constant row.

    Raises:
        ValueError: If there are fewer than three points, or if all x are equal.

    Example:
        >>> r_squared(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[1.0, 3.0, 5.0]]))
        tensor([1.], dtype=torch.float64)
    """
    x, y = x.double(), y.double()
    if len(x) < 3 or y.shape[1:] != x.shape or bool((x == x[0]).all()):
        raise ValueError(
            f"a line needs at least three points at different x, "
            f"got x {tuple(x.shape)} and y {tuple(y.shape)}"
        )
    spread, size = y.amax(1) - y.amin(1), y.abs().amax(1)
    is_constant = spread <= 8 * torch.finfo(y.dtype).eps * size  # the mean of equal values rounds
    x, y = x - x.mean(), y - y.mean(1, keepdim=True)
    total = y.square().sum(1).clamp_min(1e-300)
    return torch.where(is_constant, 1.0, (y @ x).square() / (x @ x * total))
