"""The response of every unit of a layer to every image of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zfnet.data import no_progress
from zfnet.feature_extraction import layer_reader
from zfnet.graph import UnknownLayer, layer_names
from zfnet.model import device_of, evaluating
from zfnet.ranking import Top, ranking
from zfnet.top import collate
from zfnet.validation import check_input


@dataclass(frozen=True, eq=False)
class Responses:
    """The responses of C units, or directions, of a layer to N images.

    For a dense layer, maximum and mean are the unit's value.

    Attributes:
        maximum: The maximum over the positions of the map (N, C).
        mean: The mean over the positions (N, C).
        position: The position of the maximum (N, C, 2) as (row, column), int64; the first in
            reading order.
    """

    maximum: Tensor
    mean: Tensor
    position: Tensor

    def extremes(
        self,
        k: int,
        *,
        by: str = "maximum",
        largest: bool = True,
        groups: Sequence[int] | np.ndarray | Tensor | None = None,
    ) -> Top:
        """Return the k images with the largest, or smallest, response of each unit.

        Ties go to the lower index. Positions are those of the maxima.

        Args:
            k: The number of images per unit.
            by: "maximum" or "mean".
            largest: Return the largest responses; False for the smallest.
            groups: A group number per image (N,), to select at most one image per group.

        Returns:
            The images, the most extreme first.

        Raises:
            ValueError: If k, `by` or groups is wrong.

        Example:
            >>> x = torch.tensor([[1.0], [3.0], [2.0]])
            >>> r = Responses(x, x, torch.zeros(3, 1, 2, dtype=torch.int64))
            >>> r.extremes(2).index.tolist()
            [[1, 2]]
        """
        if by not in ("maximum", "mean"):
            raise ValueError(f"by must be 'maximum' or 'mean', got {by!r}")
        if groups is not None and len(groups) != len(self.maximum):
            raise ValueError(f"groups has {len(groups)} entries for {len(self.maximum)} images")
        group_of = None if groups is None else torch.as_tensor(groups, device="cpu")
        return ranking(getattr(self, by), self.position, k, least=not largest, group_of=group_of)


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
    r"""Pass a data set through the network, and reduce each feature map to maximum and mean.

    Memory grows by 24 bytes per image and unit; `zfnet.top_activations` finds the strongest images
    in constant memory. Girshick et al. 2014, section 3.1 (units); Szegedy et al. 2014, section 3
    (directions).

    Args:
        model: Any network.
        dataset: Preprocessed (3, H, W) tensors or (tensor, label).
        layers: Layer names.
        directions: Directions v (D, C) by layer. They replace the layer's maps by $z_d(r, c) =
            \langle v_d, a(r, c) \rangle$, a 1 x 1 convolution.
        rectified: Measure maps after their ReLU. Use False to find the smallest responses: after
            the ReLU most of them are 0.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The responses by layer.

    Raises:
        UnknownLayer: If the network has no such layer, or directions are given for another layer.
        UnsupportedNetwork: If a layer's output is not (N, C, H, W) or (N, C), or `rectified` is
            False for a network that is not a chain of modules.
        ValueError: If the data set is empty, its items are wrong, or directions have another shape.

    Example:
        >>> import zfnet
        >>> responses(zfnet.mnist(), list(torch.randn(2, 3, 28, 28)), "conv2")["conv2"].mean.shape
        torch.Size([2, 32])
    """
    layers = layer_names(layers)
    if directions and (unread := set(directions) - set(layers)):
        raise UnknownLayer(
            f"directions are given for {', '.join(sorted(unread))}, which is not among `layers`"
        )
    chunks: dict[str, list[tuple[Tensor, ...]]] = {layer: [] for layer in layers}
    for activations in stream(
        model, dataset, layers, rectified=rectified, batch=batch, progress=progress
    ):
        for layer, maps in activations.items():
            values = positions_by_units(maps)  # (B, H W, C)
            if directions and layer in directions:
                values = _along(values, directions[layer], layer)  # (B, H W, D)
            width = maps.shape[-1] if maps.ndim == 4 else 1
            maximum, index = values.max(1)  # the first of equal values
            position = torch.stack([index // width, index % width], -1)
            chunks[layer].append((maximum.cpu(), values.mean(1).cpu(), position.cpu()))
    return {
        layer: Responses(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
        for layer, rows in chunks.items()
    }


def _along(values: Tensor, directions: Tensor, layer: str) -> Tensor:
    """Return the components of activations (B, P, C) along directions (D, C): (B, P, D)."""
    if directions.shape[-1] != values.shape[-1]:
        raise ValueError(
            f"directions of {layer} must be (D, {values.shape[-1]}), got {tuple(directions.shape)}"
        )
    return values @ directions.to(values).T


def positions_by_units(maps: Tensor) -> Tensor:
    """Return a layer's activations as one vector per position.

    Args:
        maps: Activations (N, C, H, W), or (N, C) of a dense layer.

    Returns:
        Vectors (N, H * W, C) or (N, 1, C).

    Example:
        >>> positions_by_units(torch.zeros(2, 5, 3, 3)).shape
        torch.Size([2, 9, 5])
    """
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
    """Pass a data set through the network, and yield the activations of layers batch by batch.

    In a chain of modules, the forward pass stops at the highest layer.

    Args:
        model: Any network.
        dataset: Preprocessed (3, H, W) tensors or (tensor, label).
        layers: Layer names, as in `zfnet.trace`. In a network with branches, such as ResNet, these
            are module paths ("layer4.1"), and the module's output is yielded: the last one if the
            module is called several times.
        rectified: In a chain, yield activations after the layer's ReLU.
        batch: The number of images per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Yields:
        Activations (B, C, H, W) or (B, C) by layer.

    Raises:
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If a layer's output is not (N, C, H, W) or (N, C), or `rectified` is
            False for a network that is not a chain of modules.
        ValueError: If layers is empty, if the data set is empty, or if its items are wrong.

    Example:
        >>> import zfnet
        >>> images = list(torch.randn(3, 3, 28, 28))
        >>> [a["fc3"].shape[0] for a in stream(zfnet.mnist(), images, "fc3", batch=2)]
        [2, 1]
    """
    layers = layer_names(layers)
    if not layers or batch < 1:
        raise ValueError(f"layers must not be empty and batch at least 1, got {layers} and {batch}")
    if not len(dataset):  # pyright: ignore[reportArgumentType]
        raise ValueError("the data set is empty")
    device, read = device_of(model), None
    # Without a generator, DataLoader would draw from the global random state.
    loader = DataLoader(dataset, batch, generator=torch.Generator(), collate_fn=collate)
    for item in progress(loader, total=len(loader), desc="computing activations"):
        x = item.to(device)
        with evaluating(model), torch.no_grad():
            check_input(model, x)
            read = read or layer_reader(model, x, layers, rectified)
            # Convolutions on CPUs are faster in channels_last.
            activations = read(x.contiguous(memory_format=torch.channels_last))
        yield activations
