"""The nine strongest patches and projections of features, for Figure 2, and how alike they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import zfnet
from reproduce.core.context import Context
from reproduce.core.networks import conv_weight
from zfnet.analysis.directions import similarity
from zfnet.data.images import to_pixels
from zfnet.projection import patches_inside
from zfnet.ranking import Top
from zfnet.receptive_field import ReceptiveField

CODE = 12  # side in pixels at which tiles are compared
SHUFFLES = 20
SATURATED = 0.1  # largest share of black or white values in a patch of layer 1
EDGE = 0.01  # distance from black or white, of 1, at which a value counts as saturated
FAINT = 0.5  # least root mean square of a patch of layer 1, as network input


class Tiles(NamedTuple):
    """The strongest activations of F features: network inputs and signed projections.

    Attributes:
        channels: (F,).
        projections: (F, k, 3, R, R).
        patches: (F, k, 3, R, R).
    """

    channels: Tensor
    projections: Tensor
    patches: Tensor

    def subset(self, rows: Tensor) -> Tiles:
        """The tiles of some features."""
        return Tiles(self.channels[rows], self.projections[rows], self.patches[rows])

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The tensors as arrays, under names that begin with `name`."""
        return {f"{name}.{key}": tensor.numpy() for key, tensor in self._asdict().items()}


def load_tiles(ctx: Context, layer: str, top: Top, channels: Tensor) -> Tiles:
    """Project the strongest activations of some features."""
    projections, patches = [], []
    first = ctx.images.batch([0]).to(ctx.device)
    field = zfnet.trace(ctx.model, first, until=layer).receptive_field(layer).size
    for channel in channels.tolist():
        x = ctx.images.batch(top.index[channel].clamp_min(0)).to(ctx.device)
        position = top.position[channel].to(ctx.device)
        p = zfnet.project(ctx.model, x, layer, torch.full((len(x),), channel), position)
        projection, patch = patches_inside(p, x, field)
        projections.append(projection.cpu())
        patches.append(patch.cpu())
    return Tiles(channels, torch.stack(projections), torch.stack(patches))


def matching_top(ctx: Context, layer: str, k: int, count: int) -> Top:
    """The patches that are most like each filter of the first layer, in place of the strongest.

    The strongest patches are saturated, black, white or yellow: they have the largest contrast, and
    hide the pattern that a filter prefers. So patches are ranked by their cosine with the filter,
    among those that excite it, have at most a share SATURATED of values within EDGE of black or
    white, and a norm of at least FAINT per value.

    Args:
        ctx: The network and the corpus.
        layer: The first convolutional layer.
        k: Patches per filter, at most one per image.
        count: Number of evenly chosen images to search, at most.
    """
    rows = np.linspace(0, len(ctx.images) - 1, min(count, len(ctx.images))).astype(int)
    weight = conv_weight(ctx.model, layer).to(ctx.device)  # (C, 3, k, k)
    values, positions = [], []
    for part in ctx.progress(np.array_split(rows, -(-len(rows) // 8)), desc=layer):
        x = ctx.images.batch(part).to(ctx.device)
        t = zfnet.trace(ctx.model, x, until=layer)
        cosine = _cosine(x, weight, t[layer], t.receptive_field(layer))  # (N, C, H, W)
        value, index = cosine.flatten(2).max(2)  # (N, C)
        values.append(value.cpu())
        width = cosine.shape[3]
        positions.append(torch.stack([index // width, index % width], -1).cpu())
    value, position = torch.cat(values), torch.cat(positions)
    best = _one_per_group(value, ctx.images.groups, rows).topk(min(k, len(value)), dim=0)
    channel = torch.arange(value.shape[1])
    index = torch.from_numpy(rows)[best.indices]  # (k, C)
    return Top(best.values.T, index.T, position[best.indices, channel].transpose(0, 1))


def _cosine(x: Tensor, weight: Tensor, maps: Tensor, field: ReceptiveField) -> Tensor:
    """The cosine of each patch with each filter: (N, C, H, W); -1 for a patch that does not count.

    Args:
        x: (N, 3, S, S), network inputs.
        weight: (C, 3, k, k), the filters.
        maps: (N, C, H, W), their rectified activations.
        field: The layer's receptive field.
    """
    stride, padding = field.stride, -field.offset
    response = F.conv2d(x, weight, stride=stride, padding=padding)
    window = torch.ones_like(weight[:1])
    norm = F.conv2d(x.square(), window, stride=stride, padding=padding).sqrt()
    pixels = to_pixels(x)
    saturated = ((pixels < EDGE) | (pixels > 1 - EDGE)).float()
    share = F.conv2d(saturated, window / window.numel(), stride=stride, padding=padding)
    cosine = response / (norm * weight.flatten(1).norm(dim=1)[:, None, None]).clamp_min(1e-12)
    counts = (share <= SATURATED) & (norm >= FAINT * window.numel() ** 0.5)
    return cosine.masked_fill(~counts | (maps <= 0), -1.0)


def _one_per_group(value: Tensor, groups: np.ndarray | None, rows: np.ndarray) -> Tensor:
    """Keep the strongest value (N, C) of each group of images; the others become -1."""
    if groups is None:
        return value
    _, group = np.unique(np.asarray(groups)[rows], return_inverse=True)
    index = torch.from_numpy(group)[:, None].expand_as(value)
    largest = torch.full((int(group.max()) + 1, value.shape[1]), -torch.inf)
    largest.scatter_reduce_(0, index, value, "amax")
    return torch.where(value == largest.gather(0, index), value, -1.0)


def coherence(tiles: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How alike a feature's tiles are: the mean cosine over all pairs.

    Tiles are reduced to 12 pixels, and lose their mean color, so that brightness does not count.

    Args:
        tiles: (F, k, 3, R, R).
        seed: Seed of the shuffles.

    Returns:
        The coherence of each feature (F,), and its mean over shuffles of all tiles between the
        features (F,).
    """
    features, k, *_, side = tiles.shape
    small = F.adaptive_avg_pool2d(tiles.flatten(0, 1), min(side, CODE))
    codes = (small - small.mean((2, 3), keepdim=True)).flatten(1)  # (F k, D)
    index = torch.arange(features * k).view(features, k)
    generator = torch.Generator().manual_seed(seed)
    shuffled = [
        similarity(codes, torch.randperm(features * k, generator=generator).view(features, k))
        for _ in range(SHUFFLES)
    ]
    return similarity(codes, index).numpy(), torch.stack(shuffled).mean(0).numpy()
