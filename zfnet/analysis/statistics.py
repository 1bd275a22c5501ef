"""A layer over a population of images: dead filters, sparsity, and the distribution of its activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zfnet.analysis.responses import positions_by_units, stream
from zfnet.data import no_progress
from zfnet.graph import layer_names

PATTERNS = (
    1 << 16
)  # the leading 16 bits of a float32: its sign, its exponent, and seven bits after the point
ERROR = (
    2.0**-8
)  # the largest relative distance of a float from the middle of those that share these bits


@dataclass(frozen=True, eq=False)
class Population:
    """What the C feature maps (or units) of a layer do over N images.

    `excited` (C,) is the share of images that excite a map anywhere, `active` (C,) the share of its positions, over all images,
    that are above zero. `counts` (65536,) int64 is a histogram of all activations whose bins are the floats that agree in
    their leading 16 bits: no range has to be known, memory is constant, and `values` (65536,), the middle of each bin, is
    within 2^-8 of what it stands for, relatively; zero is exact.
    """

    images: int
    excited: Tensor
    active: Tensor
    counts: Tensor

    @property
    def dead(self) -> Tensor:
        """The maps that no image excites anywhere: (C,) bool."""
        return self.excited == 0

    @property
    def sparsity(self) -> float:
        """The share of all activations that are not above zero."""
        return 1 - float(self.active.mean())

    @property
    def values(self) -> Tensor:
        return bin_values()

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """The smallest activations that at least a share `q` of all do not exceed; like q, float64, within 2^-8 relatively.

        Raises ValueError for a q outside [0, 1].
        """
        shares = torch.as_tensor(q, dtype=torch.float64)
        if not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(f"q must lie in [0, 1], got {q}")
        order = self.values.argsort()
        below = self.counts[order].cumsum(0)
        wanted = (shares * below[-1]).ceil().clamp_min(1).to(torch.int64)
        return self.values[order][torch.searchsorted(below, wanted)].double()


def bin_values() -> Tensor:
    """The middle of the floats that begin with each pattern of 16 bits: (65536,) float32, 0 for those next to zero."""
    bits = np.arange(PATTERNS, dtype=np.uint32) << 16
    values = (bits | 0x8000).view(np.float32)
    return torch.from_numpy(np.where(bits & 0x7FFFFFFF, values, np.float32(0)))


def count(activations: Tensor) -> Tensor:
    """The histogram of float32 activations of any shape by their leading 16 bits: (65536,) int64."""
    leading = (activations.float().view(torch.int32) >> 16) & 0xFFFF
    return torch.bincount(leading.flatten(), minlength=PATTERNS)


def population(
    model: nn.Module,
    dataset: Dataset,
    layers: str | Sequence[str] = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
    *,
    batch: int = 16,
    progress: Callable = no_progress,
) -> dict[str, Population]:
    r"""Pass a data set through the network once, and describe each layer's rectified activations before pooling.

    Of map c, over images n and positions p: excited $= \frac{1}{N} |\{n : \max_p a_{ncp} > 0\}|$, active $= \frac{1}{N P}
    |\{n, p : a_{ncp} > 0\}|$; a map is dead if excited is 0, and a layer's sparsity is 1 less the mean of active.
    `dataset` gives (3, H, W) tensors or (tensor, label), all of one size. Memory does not grow with it.
    Raises UnknownLayer, UnsupportedNetwork, or ValueError for an empty data set or activations that are not finite.
    """
    excited: dict[str, Tensor] = {}
    active: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    images = 0
    for found in stream(model, dataset, layers, batch=batch, progress=progress):
        for layer, maps in found.items():
            vectors = positions_by_units(maps)  # (B, H W, C)
            share = (vectors > 0).sum(1).double() / vectors.shape[1]  # (B, C)
            excited[layer] = excited.get(layer, 0) + (share > 0).sum(0).cpu()
            active[layer] = active.get(layer, 0) + share.sum(0).cpu()
            counts[layer] = counts.get(layer, 0) + count(vectors).cpu()
        images += len(maps)  # pyright: ignore[reportPossiblyUnboundVariable]
    beyond = ~bin_values().isfinite()
    layers = layer_names(layers)
    for layer in layers:
        if counts[layer][beyond].any():
            raise ValueError(f"{layer} puts out values that are not finite")
    return {
        layer: Population(images, excited[layer] / images, active[layer] / images, counts[layer])
        for layer in layers
    }
