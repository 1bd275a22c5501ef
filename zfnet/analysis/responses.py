"""What every unit of a layer says to every image: the table from which images are ranked and selectivity is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zfnet.data import no_progress
from zfnet.feature_extraction import layer_reader
from zfnet.forward import evaluating
from zfnet.graph import UnknownLayer, layer_names
from zfnet.model import device_of
from zfnet.ranking import Top, ranking
from zfnet.top import collate
from zfnet.validation import check_input


@dataclass(frozen=True, eq=False)
class Responses:
    """What C units, or directions, of a layer say to N images.

    `maximum` (N, C) is over the positions of the map, `position` (N, C, 2) int64 is its (row, column), the first in reading
    order, and `mean` (N, C) is over the positions. Of a dense layer, maximum and mean are the unit's own value.
    """

    maximum: Tensor
    mean: Tensor
    position: Tensor

    def extremes(
        self,
        k: int,
        *,
        by: str = "maximum",
        least: bool = False,
        groups: Sequence[int] | np.ndarray | Tensor | None = None,
    ) -> Top:
        """The k images that each unit answers most, or least, by `by` ("maximum" or "mean"): a `Top`, the extreme one first.

        Ties go to the lower index; `groups` (N,) allows at most one image of a group. `position` is that of the maximum.
        Raises ValueError for another `by`, or groups that do not fit.
        """
        if by not in ("maximum", "mean"):
            raise ValueError(f"by must be 'maximum' or 'mean', got {by!r}")
        if groups is not None and len(groups) != len(self.maximum):
            raise ValueError(f"groups has {len(groups)} entries for {len(self.maximum)} images")
        group_of = None if groups is None else torch.as_tensor(groups)
        return ranking(getattr(self, by), self.position, k, least=least, group_of=group_of)


def responses(
    model: nn.Module,
    dataset: Dataset,
    layers: str | Sequence[str],
    *,
    directions: Mapping[str, Tensor] | None = None,
    rectified: bool = True,
    batch: int = 32,
    progress: Callable = no_progress,
) -> dict[str, Responses]:
    r"""Pass a data set through the network once, and keep for each image the maximum, its place and the mean of every map.

    With `directions[layer]` (D, C), the layer's maps are replaced by $z_d(r, c) = \langle v_d, a(r, c) \rangle$: a 1 x 1 linear
    map of them; a unit is the direction $e_c$. With `rectified=False` the maps are taken before their ReLU, where there is one:
    after it all images that leave a map silent are equal, and which excites it least has no answer.
    Memory grows by 24 bytes an image and unit; `zfnet.top_activations` finds the strongest in constant memory.
    Raises UnknownLayer, UnsupportedNetwork, ValueError as `stream`.
    Girshick et al. 2014, section 3.1 (images of the largest value); Szegedy et al. 2014, section 3 (directions).
    """
    layers = layer_names(layers)
    if directions and (other := set(directions) - set(layers)):
        raise UnknownLayer(
            f"directions of {', '.join(sorted(other))}, of which no responses are asked for"
        )
    parts: dict[str, list[tuple[Tensor, ...]]] = {layer: [] for layer in layers}
    for found in stream(
        model, dataset, layers, rectified=rectified, batch=batch, progress=progress
    ):
        for layer, maps in found.items():
            values = positions_by_units(maps)  # (B, H W, C)
            if directions and layer in directions:
                if directions[layer].shape[-1] != values.shape[-1]:
                    raise ValueError(
                        f"directions of {layer} must be (D, {values.shape[-1]}), got {tuple(directions[layer].shape)}"
                    )
                values = values @ directions[layer].to(values).T
            width = maps.shape[-1] if maps.ndim == 4 else 1
            maximum, place = values.max(1)  # keeps the first
            position = torch.stack([place // width, place % width], -1)
            parts[layer].append((maximum.cpu(), values.mean(1).cpu(), position.cpu()))
    return {
        layer: Responses(*(torch.cat(part) for part in zip(*rows, strict=True)))
        for layer, rows in parts.items()
    }


def positions_by_units(maps: Tensor) -> Tensor:
    """A layer's activations (N, C, H, W) or (N, C) as vectors, one a position: (N, H W, C) or (N, 1, C)."""
    return maps[:, None] if maps.ndim == 2 else maps.permute(0, 2, 3, 1).flatten(1, 2)


def stream(
    model: nn.Module,
    dataset: Dataset,
    layers: str | Sequence[str],
    *,
    rectified: bool = True,
    batch: int = 32,
    progress: Callable = no_progress,
) -> Iterator[dict[str, Tensor]]:
    """Pass a data set through the network once, and yield for each batch the activations of some layers, by name.

    Items are preprocessed (3, H, W) tensors or (tensor, label). Layers have the names of `zfnet.trace`; in a network that is
    not a chain of modules, such as ResNet, those of its modules ("layer4.1"), of which the output is taken as it is, the last
    one where a module is used several times. In a chain nothing above the highest layer is computed, and
    `rectified=False` gives what stands before a layer's ReLU. Nothing of a batch is kept.
    Raises UnknownLayer, UnsupportedNetwork for a module that puts out no maps (N, C, H, W) or vectors (N, C), or for
    `rectified=False` where it is not a chain; ValueError for no layers, an empty data set, or items that do not fit.
    """
    layers = layer_names(layers)
    if not layers or batch < 1:
        raise ValueError(f"layers must not be empty and batch at least 1, got {layers} and {batch}")
    if not len(dataset):  # pyright: ignore[reportArgumentType]
        raise ValueError("the data set is empty")
    device, read = device_of(model), None
    # A generator of its own: DataLoader would otherwise draw from the global random state.
    loader = DataLoader(dataset, batch, generator=torch.Generator(), collate_fn=collate)
    for item in progress(loader, total=len(loader), desc="looking"):
        x = item.to(device)
        with evaluating(model), torch.no_grad():
            read = read or layer_reader(model, x, layers, rectified)
            check_input(model, x)
            found = read(
                x.contiguous(memory_format=torch.channels_last)
            )  # convolutions on CPUs are faster so
        yield found
