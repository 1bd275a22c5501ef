"""The strongest activations of every feature map over a data set, in one pass and constant memory (Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zfnet.activations import UnknownLayer, chain, evaluating, trace, unknown_layer
from zfnet.checkpoint import read_tensors, write_tensors
from zfnet.data import silent


@dataclass(frozen=True, eq=False)
class Top:
    """The k strongest activations of each of a layer's C maps, strongest first, at most one per image.

    `value` (C, k) float32, -inf where there were fewer images; `index` (C, k) int64 into the data set, -1 there; `position`
    (C, k, 2) int64 as (row, column) in the map, 0 there.
    """

    value: Tensor
    index: Tensor
    position: Tensor


@dataclass(frozen=True, eq=False)
class TopActivations(Mapping):
    """A `Top` for each layer: `s["conv5"].value`. `images` says how many images were searched."""

    layers: dict[str, Top]
    images: int

    def __getitem__(self, layer: str) -> Top:
        if layer not in self.layers:
            raise UnknownLayer(f"no layer {layer!r} was searched; there are {', '.join(self.layers)}")
        return self.layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file; `TopActivations.load` reads it."""
        tensors = {f"{layer}.{name}": t for layer, top in self.items() for name, t in vars(top).items()}
        write_tensors(path, tensors, {"layers": list(self), "images": self.images})

    @staticmethod
    def load(path: str | Path) -> TopActivations:
        """Read a file of `save`. Raises CheckpointError, naming the file."""
        tensors, meta = read_tensors(path)
        layers = {n: Top(*(tensors[f"{n}.{part}"] for part in ("value", "index", "position"))) for n in meta["layers"]}
        return TopActivations(layers, meta["images"])


def top_activations(
    model: nn.Module,
    dataset: Dataset,
    layers: str | Sequence[str] = ("conv1", "conv2", "conv3", "conv4", "conv5"),
    k: int = 9,
    *,
    batch: int = 64,
    workers: int = 0,
    groups: Sequence[int] | np.ndarray | Tensor | None = None,
    progress: Callable = silent,
) -> TopActivations:
    """Find each feature map's k strongest activations over a data set: the images, and where in the map.

    Items are preprocessed (3, H, W) tensors or (tensor, label). An image counts once, by its strongest position; ties go to the
    lower index and the earlier position. `groups` (N,) allows at most one image of a group, for crops of one photograph.
    Activations are rectified maps before pooling. Memory does not grow with the data set.
    Raises UnknownLayer, and ValueError for k < 1 or an empty data set. Zeiler & Fergus, section 4.
    """
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    if not layers:
        raise ValueError("no layers given")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    size = len(dataset)  # pyright: ignore[reportArgumentType]
    if size == 0:
        raise ValueError("the data set is empty")
    if groups is not None and len(groups) != size:
        raise ValueError(f"groups has {len(groups)} entries for {size} images")
    group_of = None if groups is None else torch.as_tensor(groups, dtype=torch.int64)
    device = next(model.parameters()).device
    best: dict[str, Top] = {}
    start = 0
    # A generator of its own: DataLoader would otherwise draw from the global random state.
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, generator=torch.Generator())
    last = ""
    for item in progress(loader, total=len(loader), desc="searching"):
        x = (item[0] if isinstance(item, (list, tuple)) else item).to(device)
        last = last or _last(model, x, layers)
        t = trace(model, x, until=last)
        index = torch.arange(start, start + len(x))
        for layer in layers:
            maps = t[layer] if t[layer].ndim == 4 else t[layer][:, :, None, None]
            value, flat = maps.flatten(2).max(2)  # (B, C): each image's strongest position
            found = Top(
                value.T.float().cpu(),
                index.expand(maps.shape[1], -1),
                torch.stack([flat.T // maps.shape[3], flat.T % maps.shape[3]], -1).cpu(),
            )
            best[layer] = _merge(best.get(layer), found, k, group_of)
        start += len(x)
    return TopActivations({layer: _pad(top, k) for layer, top in best.items()}, start)


def _last(model: nn.Module, x: Tensor, layers: Sequence[str]) -> str:
    """The highest of the layers, so that nothing above it is computed."""
    with evaluating(model), torch.no_grad():
        steps = chain(model, x[:1])
    order = [step.layer for step in steps if step.layer]
    for layer in layers:
        if layer not in order:
            raise UnknownLayer(unknown_layer(layer, steps))
    return max(layers, key=order.index)


def _merge(best: Top | None, found: Top, k: int, group_of: Tensor | None) -> Top:
    """Keep the k strongest of both. The sort is stable and earlier images stand first, so ties go to the lower index."""
    if best is not None:
        found = Top(*(torch.cat(pair, 1) for pair in zip(vars(best).values(), vars(found).values(), strict=True)))
    value, order = found.value.sort(dim=1, descending=True, stable=True)
    if group_of is not None:
        group = group_of[found.index.gather(1, order)]
        repeated = (group[:, :, None] == group[:, None, :]).tril(-1).any(2)  # a stronger one of the group stands before it
        value = value.masked_fill(repeated, -torch.inf)
        value, again = value.sort(dim=1, descending=True, stable=True)
        order = order.gather(1, again)
    value, order = value[:, :k], order[:, :k]
    index = found.index.gather(1, order).masked_fill(value == -torch.inf, -1)
    position = found.position.gather(1, order[:, :, None].expand(-1, -1, 2)).masked_fill((index < 0)[:, :, None], 0)
    keep = int((index >= 0).sum(1).max())
    return Top(value[:, :keep], index[:, :keep], position[:, :keep])


def _pad(top: Top, k: int) -> Top:
    missing = k - top.value.shape[1]
    pad = nn.functional.pad
    return Top(
        pad(top.value, (0, missing), value=-torch.inf),
        pad(top.index, (0, missing), value=-1),
        pad(top.position, (0, 0, 0, missing)),
    )
