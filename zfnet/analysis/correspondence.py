"""Correspondence: does covering the same part change the features in the same direction in every image (Fig. 8, Table 1)?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.forward import Trace, trace
from zfnet.graph import layer_names
from zfnet.occlusion import cover
from zfnet.validation import check_input

SIDE = 224  # of the images whose parts are annotated


@dataclass(frozen=True, eq=False)
class Correspondence:
    """How differently N images change when one of P parts is covered.

    `difference[layer]` (P, N, N) is the share of coordinates whose signs of change differ between images i and j: symmetric,
    in [0, 1], 0 on the diagonal. `delta[layer]` (P,) is its mean over pairs i != j: lower is more alike.
    """

    difference: dict[str, Tensor]
    delta: dict[str, Tensor]


def part_boxes(points: Tensor, size: int, height: int, width: int) -> Tensor:
    """The squares of `size` pixels whose middle pixel is at points (..., 2): (..., 4) as (top, left, bottom, right), clipped.

    An even square reaches one pixel further up and left. Raises ValueError for a size below 1 or a point outside the image.
    """
    limit = torch.tensor([height, width], device=points.device)
    if size < 1 or (points < 0).any() or (points >= limit).any():
        raise ValueError(
            f"size must be at least 1 and points in a {height} x {width} image, got {size} and {points.tolist()}"
        )
    first = points - size // 2
    return torch.cat([first.clamp_min(0), (first + size).minimum(limit)], -1)


def mask_parts(x: Tensor, points: Tensor, size: int, fill: float = 0.0) -> Tensor:
    """Cover in each image of x (N, 3, H, W) the square around its point (N, 2) with `fill` (0 is mean grey): like x.

    Raises ValueError as `part_boxes`, and where there is not one point for each image.
    """
    if points.shape != (len(x), 2):
        raise ValueError(
            f"expected one point (row, column) for each of {len(x)} images, got {tuple(points.shape)}"
        )
    boxes = part_boxes(points.to(x.device), size, *x.shape[-2:])
    return cover(x, boxes, torch.full_like(x, fill))  # pyright: ignore[reportArgumentType]


def random_points(
    boxes: Tensor, avoid: Tensor, size: int, count: int, generator: torch.Generator
) -> Tensor:
    """Draw `count` middles of random parts for each of N images of 224 pixels: (count, N, 2) int64, as (row, column).

    Uniform over the ellipse inscribed in the image's box (N, 4), where a square of `size` lies wholly in the image and
    covers none of the points to `avoid` (N, K, 2). Raises ValueError for an image that leaves no such place.
    """
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()], -1)  # (H W, 2)
    squares = part_boxes(places, size, SIDE, SIDE)
    whole = (squares[:, 2:] - squares[:, :2] == size).all(1)
    drawn = []
    for n, (box, points) in enumerate(zip(boxes, avoid, strict=True)):
        centre, half = (box[:2] + box[2:] - 1) / 2, (box[2:] - box[:2]) / 2
        inside = (((places - centre) / half) ** 2).sum(1) <= 1
        covers = (
            ((points >= squares[:, None, :2]) & (points < squares[:, None, 2:])).all(2).any(1)
        )  # (H W,)
        allowed = places[inside & whole & ~covers]
        if not len(allowed):
            raise ValueError(
                f"image {n}: no square of {size} pixels in the box {box.tolist()} avoids {points.tolist()}"
            )
        drawn.append(allowed[torch.randint(len(allowed), (count,), generator=generator)])
    return torch.stack(drawn, 1)


def changes(before: Tensor, after: Tensor, tolerance: float = 1e-6) -> Tensor:
    r"""The ternary sign of $\epsilon = x - \tilde x$ for features (N, ...) before and after masking: (N, units) int8.

    A change below `tolerance` times the image's largest feature counts as none: it is rounding, not evidence.
    """
    before, after = before.flatten(1), after.flatten(1)
    epsilon = before - after
    threshold = tolerance * before.abs().amax(1, keepdim=True)
    return torch.where(epsilon.abs() > threshold, epsilon.sign(), 0).to(torch.int8)


def hamming(signs: Tensor) -> Tensor:
    """The share of coordinates in which the signs (N, D) of two images differ: (N, N) float64. 0 equals only 0."""
    return torch.stack([(row != signs).double().mean(1) for row in signs])


def correspondence(
    model: nn.Module,
    x: Tensor,
    points: Tensor,
    *,
    size: int,
    fill: float = 0.0,
    layers: str | Sequence[str] = ("pool5", "fc7"),
    batch: int = 16,
    progress: Callable = no_progress,
) -> Correspondence:
    r"""Cover the same parts in every image, and measure how consistently the features change.

    $\Delta = \frac{1}{N (N - 1)} \sum_{i \ne j} \mathcal{H}(\mathrm{sign}(\epsilon_i), \mathrm{sign}(\epsilon_j))$ with
    $\epsilon_i = x_i - \tilde x_i$, the features of image i less those with the part covered, and $\mathcal{H}$ the share of
    differing coordinates; signs are ternary. `x` (N, 3, H, W), `points` (P, N, 2) as (row, column) of each of P parts
    in each image, `size` of the covering square in pixels, `fill` in the input convention. Features are the rectified, pooled
    layer 5 and fc7.
    Raises ValueError for fewer than two images, bad points or batch, UnknownLayer, UnsupportedNetwork.
    Zeiler & Fergus, section 4.3, Table 1.
    """
    check_input(model, x)
    layers = layer_names(layers)
    if len(x) < 2:
        raise ValueError(
            f"a correspondence is between images: at least two are needed, got {len(x)}"
        )
    if points.ndim != 3 or points.shape[1:] != (len(x), 2) or not len(points):
        raise ValueError(f"points must be (P, {len(x)}, 2), got {tuple(points.shape)}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")

    def features(images: Tensor) -> dict[str, Tensor]:
        parts: list[Trace] = [trace(model, part) for part in images.split(batch)]
        return {layer: torch.cat([t[layer] for t in parts]) for layer in layers}

    before = features(x)
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for part in progress(points, total=len(points), desc="covering parts"):
        after = features(mask_parts(x, part, size, fill))
        for layer in layers:
            rows[layer].append(hamming(changes(before[layer], after[layer])))
    difference = {layer: torch.stack(found) for layer, found in rows.items()}
    pairs = len(x) * (len(x) - 1)
    return Correspondence(
        difference, {layer: found.sum((1, 2)) / pairs for layer, found in difference.items()}
    )
