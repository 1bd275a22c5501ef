"""Correspondence between images: which place of another image has the most similar features?"""

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
    """Where N images have what lies at P points of each other.

    `place` (N, N, P, 2) float is the (row, column), in pixels, found in image j for point p of image i, at [i, j, p];
    `similarity` (N, N, P) its cosine, in [-1, 1]. On the diagonal an image is matched with itself. Where the layer is silent
    at the point, all cosines are 0 and the place, the first one, says nothing.
    """

    place: Tensor
    similarity: Tensor


def match(
    model: nn.Module,
    x: Tensor,
    points: Tensor,
    layer: str = "conv5",
    *,
    finer: int = 1,
    batch: int = 16,
    progress: Callable = no_progress,
) -> Matches:
    r"""Find in every image the place whose features are nearest to those at given points of another one.

    $\hat q = \arg\max_q \cos(f_i(p), f_j(q))$: f is a layer's rectified maps, at a point interpolated bilinearly between the
    centres of the units' receptive fields (beyond the outermost, the border's), each vector of unit length; q runs over those
    centres, and with `finer` > 1 over `finer` times as many places a side, interpolated too. `x` (N, 3, H, W), `points`
    (N, P, 2) as (row, column) in pixels.
    Raises ValueError for points that do not fit, UnknownLayer, UnsupportedNetwork.
    Long, Zhang & Darrell 2014, "Do convnets learn correspondence?", section 4 (alignment by nearest conv features).
    """
    if (
        points.ndim != 3
        or points.shape[::2] != (len(x), 2)
        or not points.isfinite().all()
        or min(finer, batch) < 1
    ):
        given = f"{tuple(points.shape)}, {finer} and {batch}"
        raise ValueError(
            f"points must be ({len(x)}, P, 2) and finite, finer and batch at least 1, got {given}"
        )
    field = trace(model, x[:1], until=layer).receptive_field(layer)
    maps = torch.cat(
        [trace(model, part, until=layer)[layer] for part in x.split(batch)]
    )  # (N, C, h, w)
    first = (
        field.offset + (field.size - 1) / 2
    )  # the centre of the first unit's receptive field, in pixels
    height, width = maps.shape[2:]
    rows, columns = (
        torch.arange((n - 1) * finer + 1, device=x.device) / finer for n in (height, width)
    )
    candidates = torch.cartesian_prod(rows, columns)  # (M, 2), in units
    codes = F.normalize(sample(maps, candidates.expand(len(x), -1, -1)), dim=2)  # (N, M, C)
    asked = F.normalize(sample(maps, (points.to(maps) - first) / field.stride), dim=2)  # (N, P, C)
    places, similar = [], []
    for own in progress(asked, total=len(asked), desc="matching"):
        best = (own @ codes.transpose(1, 2)).max(2)  # (N, P)
        places.append(first + field.stride * candidates[best.indices])
        similar.append(best.values)
    return Matches(torch.stack(places), torch.stack(similar))


def sample(maps: Tensor, positions: Tensor) -> Tensor:
    """Maps (N, C, h, w) at positions (N, P, 2) as (row, column) in units, interpolated bilinearly: (N, P, C).

    Beyond the outermost units the border's value is continued.
    """
    size = torch.tensor(maps.shape[2:], device=maps.device, dtype=maps.dtype)
    scaled = (
        2 * positions / (size - 1).clamp_min(1) - 1
    )  # -1 and 1 are the centres of the outermost units
    grid = scaled.flip(-1)[:, None]  # (N, 1, P, 2) as (x, y)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=True)[:, :, 0].transpose(
        1, 2
    )


def transferred(place: Tensor, points: Tensor, reach: Tensor, alpha: float) -> Tensor:
    r"""Which keypoints were found: $|\hat q - q| \le \alpha L_j$, of places (N, N, P, 2), the truth (N, P, 2): (N, N, P) bool.

    `reach` (N,) is the size L of each image's object, the longer side of its box in pixels; the mean over pairs i != j is PCK.
    Yang & Ramanan 2013 (the percentage of correct keypoints); Long, Zhang & Darrell 2014, section 4.
    """
    distance = (place - points[None].to(place)).norm(dim=-1)
    return distance <= alpha * reach.to(place)[None, :, None]
