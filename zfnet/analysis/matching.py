"""Correspondence between images: where in another image are the features most similar?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.forward import trace


@dataclass(frozen=True, eq=False)
class Matches:
    """The best match of P points per image in each of N images.

    Entry [i, j, p] is the match in image j of point p of image i. If no unit of the layer is active
    at the point, all similarities are 0 and the position is meaningless.

    Attributes:
        position: The position of the match (N, N, P, 2) as (row, column), in pixels, float.
        similarity: Its cosine similarity (N, N, P), in [-1, 1].
    """

    position: Tensor
    similarity: Tensor


def match(
    model: nn.Module,
    x: Tensor,
    points: Tensor,
    layer: str = "conv5",
    *,
    oversampling: int = 1,
    batch: int = 16,
    progress: Callable = no_progress,
) -> Matches:
    r"""Find the positions in each image whose features are most similar to those at given points.

    $\hat q = \arg\max_q \cos(f_i(p), f_j(q))$, where f are a layer's rectified maps. Features at a
    point are interpolated bilinearly between the centers of the units' receptive fields. Candidates
    q are those centers, and with oversampling interpolated positions between them. Long, Zhang &
    Darrell 2014, "Do convnets learn correspondence?", section 4.

    Args:
        model: A network that `zfnet.trace` supports.
        x: Images (N, 3, H, W).
        points: Points (N, P, 2) as (row, column), in pixels.
        layer: A convolutional layer.
        oversampling: The number of candidates per unit and dimension.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The best matches.

    Raises:
        ValueError: If points, oversampling or batch is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If `zfnet.trace` does not support the network.

    Example:
        >>> import zfnet
        >>> x, points = torch.randn(2, 3, 28, 28), torch.tensor([[[9, 9]], [[14, 14]]])
        >>> match(zfnet.mnist(), x, points, "conv2").position.shape
        torch.Size([2, 2, 1, 2])
    """
    if points.ndim != 3 or points.shape[::2] != (len(x), 2) or not points.isfinite().all():
        raise ValueError(f"points must be finite and ({len(x)}, P, 2), got {tuple(points.shape)}")
    if min(oversampling, batch) < 1:
        raise ValueError(
            f"oversampling and batch must be at least 1, got {oversampling} and {batch}"
        )
    field = trace(model, x[:1], until=layer).receptive_field(layer)
    maps = [trace(model, part, until=layer)[layer] for part in x.split(batch)]
    maps = torch.cat(maps)  # (N, C, h, w)
    origin = field.offset + (field.size - 1) / 2  # center of the first receptive field, in pixels
    rows, columns = (
        torch.arange((n - 1) * oversampling + 1, device=x.device) / oversampling
        for n in maps.shape[2:]
    )
    candidates = torch.cartesian_prod(rows, columns)  # (M, 2), in units
    codes = F.normalize(sample(maps, candidates.expand(len(x), -1, -1)), dim=2)  # (N, M, C)
    queries = F.normalize(sample(maps, (points.to(maps) - origin) / field.stride), dim=2)
    positions, similarities = [], []
    for query in progress(queries, total=len(queries), desc="matching"):  # (P, C)
        best = (query @ codes.transpose(1, 2)).max(2)  # (N, P)
        positions.append(origin + field.stride * candidates[best.indices])
        similarities.append(best.values)
    return Matches(torch.stack(positions), torch.stack(similarities))


def sample(maps: Tensor, positions: Tensor) -> Tensor:
    """Sample maps at fractional positions, bilinearly; positions outside are clamped to the border.

    Args:
        maps: Feature maps (N, C, h, w).
        positions: Positions (N, P, 2) as (row, column), in units.

    Returns:
        Features (N, P, C).

    Example:
        >>> maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
        >>> sample(maps, torch.tensor([[[0.5, 0.5]]])).item()
        1.5
    """
    size = torch.tensor(maps.shape[2:], device=maps.device, dtype=maps.dtype)
    scaled = 2 * positions / (size - 1).clamp_min(1) - 1  # [-1, 1] between the outermost centers
    grid = scaled.flip(-1)[:, None]  # (N, 1, P, 2) as (x, y)
    values = F.grid_sample(maps, grid, padding_mode="border", align_corners=True)  # (N, C, 1, P)
    return values[:, :, 0].transpose(1, 2)


def correct_keypoints(position: Tensor, points: Tensor, size: Tensor, alpha: float) -> Tensor:
    r"""Return which keypoints are matched correctly: $|\hat q - q| \le \alpha L_j$.

    The mean over pairs i != j is the percentage of correct keypoints (PCK). Yang & Ramanan 2013;
    Long, Zhang & Darrell 2014, section 4.

    Args:
        position: Matched positions (N, N, P, 2), as returned by `match`.
        points: True positions (N, P, 2).
        size: The size L of each image's object (N,): the longer side of its box, in pixels.
        alpha: The tolerance, relative to the size.

    Returns:
        Booleans (N, N, P).

    Example:
        >>> points = torch.tensor([[[10.0, 10.0]]])
        >>> correct_keypoints(points[None] + 3, points, torch.tensor([50]), 0.1).item()
        True
    """
    distance = (position - points[None].to(position)).norm(dim=-1)
    return distance <= alpha * size.to(position)[None, :, None]
