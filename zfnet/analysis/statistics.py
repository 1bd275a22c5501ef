"""Statistics of a layer's activations over many images: dead filters, sparsity, quantiles."""

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

# The leading 16 bits of a float32: the sign, the exponent, and seven bits of the mantissa.
NUM_BINS = 1 << 16
# The largest relative distance between a float and the middle of its bin.
RELATIVE_ERROR = 2.0**-8


@dataclass(frozen=True, eq=False)
class Population:
    """The activations of a layer's C feature maps, or units, over many images.

    The bins of the histogram are the floats that share their leading 16 bits. This covers all
    floats in constant memory, with a relative error of at most 2^-8. Zero is exact.

    Attributes:
        images: The number of images.
        excited: The share of images in which a map is above zero anywhere (C,).
        active: The share of a map's positions, over all images, that are above zero (C,).
        counts: The histogram of all activations (65536,), int64.
    """

    images: int
    excited: Tensor
    active: Tensor
    counts: Tensor

    @property
    def dead(self) -> Tensor:
        """The maps that are zero in all images (C,), bool."""
        return self.excited == 0

    @property
    def sparsity(self) -> float:
        """The share of all activations that are not above zero."""
        return 1 - float(self.active.mean())

    @property
    def values(self) -> Tensor:
        """The middle of each bin of `counts` (65536,), float32."""
        return bin_values()

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """Return quantiles of all activations, within a relative error of 2^-8.

        Args:
            q: One or more shares in [0, 1].

        Returns:
            Quantiles with the shape of q, float64.

        Raises:
            ValueError: If q is outside [0, 1].

        Example:
            >>> p = Population(1, torch.ones(1), torch.ones(1), histogram(torch.arange(5.0)))
            >>> p.quantile(0.0)
            tensor(0., dtype=torch.float64)
        """
        shares = torch.as_tensor(q, dtype=torch.float64, device=self.values.device)
        if not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(f"q must be in [0, 1], got {q}")
        order = self.values.argsort()
        cumulative = self.counts[order].cumsum(0)
        rank = (shares * cumulative[-1]).ceil().clamp_min(1).to(torch.int64)
        return self.values[order][torch.searchsorted(cumulative, rank)].double()


def bin_values() -> Tensor:
    """Return the middle of each bin: the floats that start with the same 16 bits.

    Returns:
        Values (65536,) float32; 0 for the two bins next to zero.

    Example:
        >>> bin_values()[0]
        tensor(0.)
    """
    bits = np.arange(NUM_BINS, dtype=np.uint32) << 16
    middle = (bits | 0x8000).view(np.float32)
    return torch.from_numpy(np.where(bits & 0x7FFFFFFF, middle, np.float32(0)))


def histogram(activations: Tensor) -> Tensor:
    """Count activations by the leading 16 bits of their float32 representation.

    Args:
        activations: Values of any shape.

    Returns:
        Counts (65536,) int64.

    Example:
        >>> histogram(torch.zeros(3))[0]
        tensor(3)
    """
    leading_bits = (activations.float().view(torch.int32) >> 16) & 0xFFFF
    return torch.bincount(leading_bits.flatten(), minlength=NUM_BINS)


def population(
    model: nn.Module,
    dataset: Dataset,
    layers: str | Sequence[str] = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
    *,
    batch: int = 16,
    progress: Callable = no_progress,
) -> dict[str, Population]:
    r"""Pass a data set through the network, and collect statistics of rectified activations.

    For map c, over N images n and P positions p: excited $= \frac{1}{N} |\{n : \max_p a_{ncp} >
    0\}|$ and active $= \frac{1}{N P} |\{n, p : a_{ncp} > 0\}|$. A map is dead if excited is 0. The
    sparsity of a layer is 1 minus the mean of active. Maps are taken before pooling. Memory does
    not grow with the data set.

    Args:
        model: Any network.
        dataset: Preprocessed (3, H, W) tensors or (tensor, label), all of one size.
        layers: Layer names.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The statistics by layer.

    Raises:
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If a layer's output is not (N, C, H, W) or (N, C).
        ValueError: If the data set is empty, or an activation is not finite.

    Example:
        >>> import zfnet
        >>> population(zfnet.mnist(), list(torch.randn(2, 3, 28, 28)), "conv1")["conv1"].images
        2
    """
    excited: dict[str, Tensor] = {}
    active: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    images = 0
    for activations in stream(model, dataset, layers, batch=batch, progress=progress):
        for layer, maps in activations.items():
            vectors = positions_by_units(maps)  # (B, H W, C)
            share = (vectors > 0).sum(1).double() / vectors.shape[1]  # (B, C)
            excited[layer] = excited.get(layer, 0) + (share > 0).sum(0).cpu()
            active[layer] = active.get(layer, 0) + share.sum(0).cpu()
            counts[layer] = counts.get(layer, 0) + histogram(vectors).cpu()
        images += len(maps)  # pyright: ignore[reportPossiblyUnboundVariable]
    not_finite = ~bin_values().isfinite()
    layers = layer_names(layers)
    for layer in layers:
        if counts[layer][not_finite].any():
            raise ValueError(f"{layer} has activations that are not finite")
    return {
        layer: Population(images, excited[layer] / images, active[layer] / images, counts[layer])
        for layer in layers
    }
