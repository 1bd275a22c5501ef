"""Correspondence: does occluding a part change the features of all images alike (Table 1)?"""

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

SIDE = 224  # side of the annotated images, in pixels


@dataclass(frozen=True, eq=False)
class Correspondence:
    """How differently N images change when one of P parts is occluded.

    Attributes:
        difference: For each layer, the share of coordinates (P, N, N) whose signs of change differ
            between images i and j. Symmetric, in [0, 1], 0 on the diagonal.
        delta: For each layer, the mean over pairs i != j (P,). Lower means more alike.
    """

    difference: dict[str, Tensor]
    delta: dict[str, Tensor]


def part_boxes(points: Tensor, size: int, height: int, width: int) -> Tensor:
    """Return the squares centered at points, clipped to the image.

    Args:
        points: Points (..., 2) as (row, column), in pixels.
        size: The side of the squares, in pixels. An even square extends one pixel further up and
            left.
        height: The height of the image, in pixels.
        width: The width of the image, in pixels.

    Returns:
        Boxes (..., 4) as (top, left, bottom, right).

    Raises:
        ValueError: If size is below 1, or a point is outside the image.

    Example:
        >>> part_boxes(torch.tensor([10, 12]), 4, 20, 30).tolist()
        [8, 10, 12, 14]
    """
    limit = torch.tensor([height, width], device=points.device)
    if size < 1 or (points < 0).any() or (points >= limit).any():
        raise ValueError(
            f"size must be at least 1 and points in a {height} x {width} image, "
            f"got {size} and {points.tolist()}"
        )
    top_left = points - size // 2
    return torch.cat([top_left.clamp_min(0), (top_left + size).minimum(limit)], -1)


def mask_parts(x: Tensor, points: Tensor, size: int, fill: float = 0.0) -> Tensor:
    """Cover a square around one point in each image.

    Args:
        x: Images (N, 3, H, W).
        points: The center of each square (N, 2) as (row, column), in pixels.
        size: The side of the squares, in pixels.
        fill: The value inside the squares; 0 is the mean gray.

    Returns:
        Images (N, 3, H, W).

    Raises:
        ValueError: If size is below 1, a point is outside its image, or there is not one per image.

    Example:
        >>> mask_parts(torch.ones(1, 3, 4, 4), torch.tensor([[1, 1]]), 2)[0, 0, 0].tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    if points.shape != (len(x), 2):
        raise ValueError(
            f"expected one point (row, column) per image, ({len(x)}, 2), got {tuple(points.shape)}"
        )
    boxes = part_boxes(points.to(x.device), size, *x.shape[-2:])
    return cover(x, boxes, torch.full_like(x, fill))  # pyright: ignore[reportArgumentType]


def random_points(
    boxes: Tensor, avoid: Tensor, size: int, count: int, generator: torch.Generator
) -> Tensor:
    """Draw centers of random parts of 224-pixel images.

    Points are uniform over the ellipse inscribed in the image's box. Their squares are inside the
    image and cover none of the points to avoid.

    Args:
        boxes: One box per image (N, 4), as (top, left, bottom, right).
        avoid: Points (N, K, 2) as (row, column) that no square may cover.
        size: The side of the squares, in pixels.
        count: The number of points per image.
        generator: The source of randomness.

    Returns:
        Points (count, N, 2) int64, as (row, column).

    Raises:
        ValueError: If an image has no such point.

    Example:
        >>> boxes, avoid = torch.tensor([[0, 0, 224, 224]]), torch.tensor([[[112, 112]]])
        >>> random_points(boxes, avoid, 32, 5, torch.Generator()).shape
        torch.Size([5, 1, 2])
    """
    row, column = torch.meshgrid(*2 * [torch.arange(SIDE, device="cpu")], indexing="ij")
    candidates = torch.stack([row.flatten(), column.flatten()], -1)  # (H W, 2)
    squares = part_boxes(candidates, size, SIDE, SIDE)  # (H W, 4)
    unclipped = (squares[:, 2:] - squares[:, :2] == size).all(1)  # (H W,)
    points = []
    for n, (box, avoided) in enumerate(zip(boxes, avoid, strict=True)):
        center, radius = (box[:2] + box[2:] - 1) / 2, (box[2:] - box[:2]) / 2
        in_ellipse = (((candidates - center) / radius) ** 2).sum(1) <= 1
        after_start, before_end = avoided >= squares[:, None, :2], avoided < squares[:, None, 2:]
        covers = (after_start & before_end).all(2).any(1)  # (H W,)
        allowed = candidates[in_ellipse & unclipped & ~covers]
        if not len(allowed):
            raise ValueError(
                f"image {n}: no square of {size} pixels in the box {box.tolist()} "
                f"avoids {avoided.tolist()}"
            )
        points.append(
            allowed[
                torch.randint(len(allowed), (count,), generator=generator, device=generator.device)
            ]
        )
    return torch.stack(points, 1)


def change_signs(before: Tensor, after: Tensor, tolerance: float = 1e-6) -> Tensor:
    r"""Return the ternary sign of $\epsilon = x - \tilde x$.

    Args:
        before: Features x (N, ...).
        after: Features after masking (N, ...).
        tolerance: Changes below this share of the image's largest feature count as 0: they are
            rounding errors.

    Returns:
        Signs (N, D) int8: -1, 0 or 1.

    Example:
        >>> change_signs(torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.5, 1.0]])).tolist()
        [[1, -1, 0]]
    """
    before, after = before.flatten(1), after.flatten(1)
    epsilon = before - after
    threshold = tolerance * before.abs().amax(1, keepdim=True)
    return torch.where(epsilon.abs() > threshold, epsilon.sign(), 0).to(torch.int8)


def hamming_distance(signs: Tensor) -> Tensor:
    """Return the share of coordinates in which the signs of two images differ.

    Args:
        signs: Signs (N, D). 0 equals only 0.

    Returns:
        Shares (N, N) float64.

    Example:
        >>> hamming_distance(torch.tensor([[1, 0], [1, -1]])).tolist()
        [[0.0, 0.5], [0.5, 0.0]]
    """
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
    r"""Occlude the same parts in every image, and measure how consistently the features change.

    $\Delta = \frac{1}{N (N - 1)} \sum_{i \ne j} \mathcal{H}(\mathrm{sign}(\epsilon_i),
    \mathrm{sign}(\epsilon_j))$ with $\epsilon_i = x_i - \tilde x_i$, the features of image i minus
    those of its occluded copy. $\mathcal{H}$ is the share of differing coordinates, and signs are
    ternary. Zeiler & Fergus, section 4.3, Table 1.

    Args:
        model: A network that `zfnet.trace` supports.
        x: Images (N, 3, H, W), at least two.
        points: The position of each part in each image (P, N, 2) as (row, column), in pixels.
        size: The side of the occluding square, in pixels.
        fill: The value inside the square; 0 is the mean gray.
        layers: Layer names. The paper's layer 5 is rectified and pooled.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The differences by layer.

    Raises:
        ValueError: If there are fewer than two images, or if points or batch is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If `zfnet.trace` does not support the network.

    Example:
        >>> import zfnet
        >>> x, points = torch.randn(2, 3, 28, 28), torch.tensor([[[9, 9], [14, 14]]])
        >>> c = correspondence(zfnet.mnist(), x, points, size=8, layers="conv2")
        >>> c.difference["conv2"].shape
        torch.Size([1, 2, 2])
    """
    check_input(model, x)
    layers = layer_names(layers)
    if len(x) < 2:
        raise ValueError(f"correspondence compares images: at least two are needed, got {len(x)}")
    if points.ndim != 3 or points.shape[1:] != (len(x), 2) or not len(points):
        raise ValueError(f"points must be (P, {len(x)}, 2), got {tuple(points.shape)}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")

    def features(images: Tensor) -> dict[str, Tensor]:
        traces: list[Trace] = [trace(model, part) for part in images.split(batch)]
        return {layer: torch.cat([t[layer] for t in traces]) for layer in layers}

    before = features(x)
    distances: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for part_points in progress(points, total=len(points), desc="occluding parts"):
        after = features(mask_parts(x, part_points, size, fill))
        for layer in layers:
            signs = change_signs(before[layer], after[layer])
            distances[layer].append(hamming_distance(signs))
    difference = {layer: torch.stack(rows) for layer, rows in distances.items()}  # (P, N, N)
    pairs = len(x) * (len(x) - 1)
    delta = {layer: values.sum((1, 2)) / pairs for layer, values in difference.items()}
    return Correspondence(difference, delta)
