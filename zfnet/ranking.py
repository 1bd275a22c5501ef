"""Tables of the strongest activations: merging, ranking, and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from zfnet.checkpoint import CheckpointError
from zfnet.data.tensor_file import read_tensors, write_tensors
from zfnet.graph import UnknownLayer
from zfnet.validation import check_positive

Maxima = tuple[Tensor, ...]  # of a layer's C maps: value (C, n), image (C, n), position (C, n, 2)


@dataclass(frozen=True, eq=False)
class Top:
    """The k strongest activations of each of a layer's C maps, at most one per image.

    Attributes:
        value: (C, k) float32, -inf where there were fewer images.
        index: (C, k) int64 into the data set, -1 where there were fewer images.
        position: (C, k, 2) int64 as (row, column) in the map.
    """

    value: Tensor
    index: Tensor
    position: Tensor


@dataclass(frozen=True, eq=False)
class TopActivations(Mapping):
    """A `Top` for each layer: `s["conv5"].value`. `images` is the number of images searched."""

    layers: dict[str, Top]
    images: int

    def __getitem__(self, layer: str) -> Top:
        if layer not in self.layers:
            raise UnknownLayer(
                f"no layer {layer!r} was searched; available: {', '.join(self.layers)}"
            )
        return self.layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def save(self, path: str | Path, **metadata: object) -> None:
        """Write the table to a safetensors file, which `TopActivations.load` reads."""
        tensors = {
            f"{layer}.{name}": t for layer, top in self.items() for name, t in vars(top).items()
        }
        write_tensors(path, tensors, {"layers": list(self), "images": self.images, **metadata})

    @staticmethod
    def load(path: str | Path) -> TopActivations:
        """Read a file of `save`, or the state of a search. Raises CheckpointError."""
        tensors, meta = read_tensors(path)
        names = ("value", "index", "position")
        try:
            layers = {
                layer: Top(*(tensors[f"{layer}.{name}"] for name in names))
                for layer in meta["layers"]
            }
            return TopActivations(layers, meta["images"])
        except KeyError as missing:
            raise CheckpointError(
                f"{path}: not a table of top activations: {missing} is missing"
            ) from None


def ranking(
    value: Tensor, position: Tensor, k: int, *, least: bool = False, group_of: Tensor | None = None
) -> Top:
    """Rank a table of N images by C units to the k strongest, or weakest, images of each unit.

    Args:
        value: (N, C).
        position: (N, C, 2).
        k: How many images to keep per unit.
        least: Whether to keep the weakest.
        group_of: A group per image (N,); at most one image of a group is kept.

    Returns:
        The ranking. Ties go to the lower index.

    Raises:
        ValueError: If k is below 1.
    """
    check_positive(k=k)
    sign = -1 if least else 1
    index = torch.arange(len(value), device=value.device).expand(value.shape[1], -1)
    top = as_top(merge([(sign * value.T, index, position.transpose(0, 1))], k, group_of), k)
    return replace(top, value=torch.where(top.index < 0, -torch.inf, sign * top.value))


def merge(parts: list[Maxima], k: int, group_of: Tensor | None) -> Maxima:
    """Keep the k strongest. The sort is stable, so ties go to the lower index."""
    value, index, position = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    value, order = value.sort(dim=1, descending=True, stable=True)
    if group_of is not None:
        group, by_group = group_of[index.gather(1, order)].sort(dim=1, stable=True)
        repeated = nn.functional.pad(group[:, 1:] == group[:, :-1], (1, 0))
        repeated = torch.zeros_like(repeated).scatter(1, by_group, repeated)
        k = min(k, int((~repeated[0]).sum()))  # every map has seen the same groups
        first = repeated.byte().sort(dim=1, stable=True).indices
        value, order = value.gather(1, first), order.gather(1, first)
    value, order = value[:, :k], order[:, :k]
    return value, index.gather(1, order), position.gather(1, order[:, :, None].expand(-1, -1, 2))


def sort_by_image(parts: list[Maxima]) -> Maxima:
    """Join the maxima of several processes, the earlier image first."""
    value, index, position = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    order = index.argsort(1)
    return (
        value.gather(1, order),
        index.gather(1, order),
        position.gather(1, order[:, :, None].expand(-1, -1, 2)),
    )


def as_top(maxima: Maxima, k: int) -> Top:
    """Return maxima as a table on the CPU, filled up to k columns."""
    value, index, position = maxima
    missing, pad = k - value.shape[1], nn.functional.pad
    return Top(
        pad(value, (0, missing), value=-torch.inf).cpu(),
        pad(index, (0, missing), value=-1).cpu(),
        pad(position, (0, 0, 0, missing)).cpu(),
    )


def maxima_of(top: Top, device: torch.device) -> Maxima:
    """The inverse of `as_top`."""
    n = int((top.index[0] >= 0).sum())
    return tuple(t[:, :n].to(device) for t in (top.value, top.index, top.position))
