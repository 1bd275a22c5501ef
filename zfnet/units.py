"""Select the units of a layer to project: images, channels and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zfnet.graph import Size, Step, channels_of, sizes_of
from zfnet.ranking import Top
from zfnet.receptive_field import ReceptiveField, receptive_field_box
from zfnet.validation import as_integers


@dataclass(frozen=True, eq=False)
class Units:
    """M units of a layer: images (M,), channels (M,), positions (M, 2) and activations (M,)."""

    image: Tensor
    channel: Tensor
    position: Tensor | None = None
    activation: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> Units:
        parts = (None if values is None else values[rows] for values in vars(self).values())
        return Units(*parts)  # pyright: ignore


def select_units(
    steps: Sequence[Step],
    like: Tensor,
    layer: str,
    channel: object,
    position: object,
    activation: Tensor | None,
    device: torch.device,
) -> Units:
    """Check channel, position and activation, and repeat what is given once for all M units.

    Only the shape and type of the images `like` are read.
    """
    height, width = layer_size(steps, like)
    channel = as_integers(channel, "channel", device).reshape(-1)
    count = channels_of(steps)
    if ((channel < 0) | (channel >= count)).any():
        wrong = channel[(channel < 0) | (channel >= count)][0]
        raise IndexError(f"{layer} has channels 0 to {count - 1}, got {wrong}")
    if position is not None:
        position = as_integers(position, "position", device)
        if position.shape[-1:] != (2,) or position.ndim > 2:
            raise ValueError(
                f"position must be (row, column) or (M, 2), got shape {tuple(position.shape)}"
            )
        position = position.reshape(-1, 2)
        if ((position < 0) | (position >= position.new_tensor([height, width]))).any():
            raise IndexError(
                f"{layer} has positions (0, 0) to ({height - 1}, {width - 1}), "
                f"got {position.tolist()}"
            )
    m = _common_length(len(like), channel, position)
    if activation is not None:
        activation = torch.as_tensor(activation, dtype=like.dtype, device=device)
        if position is None or activation.shape != (m,):
            raise ValueError(
                f"activation needs a position, and shape ({m},); got {tuple(activation.shape)}"
            )
    image = torch.arange(len(like), device=device).expand(m)
    return Units(
        image, channel.expand(m), None if position is None else position.expand(m, 2), activation
    )


def _common_length(images: int, channel: Tensor, position: Tensor | None) -> int:
    """Return the number of units M: images, channels and positions are each 1 or M."""
    lengths = {images, len(channel), 1 if position is None else len(position)}
    if not lengths <= {1, max(lengths)}:
        requested = f"{len(channel)} channels" + (
            "" if position is None else f", {len(position)} positions"
        )
        raise ValueError(
            f"{images} images and {requested} do not match: give one for all, or one per projection"
        )
    return max(lengths)


def layer_size(steps: Sequence[Step], x: Tensor) -> Size:
    """Return the size of the last step's maps; 1 x 1 for a dense layer."""
    return sizes_of(steps, x)[""]


def pixel_boxes(
    steps: Sequence[Step], like: Tensor, field: ReceptiveField | None, position: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what units at `position` (M, 2) see of images `like`.

    `field` is the receptive field of the layer, or None where units see the whole image. Returns
    boxes (M, 4), clipped to the image, and the top left corners (M, 2) of the unclipped fields.
    """
    if field is None:
        box = torch.tensor([0, 0, *like.shape[2:]], device=position.device)
        return box.expand(len(position), 4), torch.zeros_like(position)
    box = receptive_field_box(steps, sizes_of(steps, like), position)
    return box, field.offset + position * field.stride


def search_units(top: Top, channel: Tensor, rank: Tensor, x: Tensor) -> Units:
    """Return a search's units at `channel` (M,) and `rank` (M,), one per image x (M, 3, H, W)."""
    position, value = top.position[channel, rank].long(), top.value[channel, rank]
    rows = torch.arange(len(channel), device=x.device)
    return Units(rows, channel.to(x.device), position.to(x.device), value.to(x))


def locate(maps: Tensor, units: Units, rows: Tensor) -> Units:
    """Return the units with their positions and activations in maps (N, C, H, W).

    `rows` (M,) says in which of the N each unit is. The strongest position of a map is the first in
    reading order.
    """
    position, activation = units.position, units.activation
    if position is None:
        best, width = maps[rows, units.channel].flatten(1).argmax(1), maps.shape[3]  # (M,)
        position = torch.stack([best // width, best % width], 1)
    if activation is None:
        activation = maps[rows, units.channel, position[:, 0], position[:, 1]]
    return Units(units.image, units.channel, position, activation)


def one_hot(maps: Tensor, units: Units) -> Tensor:
    """Return maps (M, C, H, W) of zeros with one activation each, of the size of `maps`."""
    assert units.position is not None
    assert units.activation is not None
    count = len(units.channel)
    signal = maps.new_zeros(count, *maps.shape[1:])
    signal[torch.arange(count, device=maps.device), units.channel, *units.position.T] = (
        units.activation
    )
    return signal


def as_maps(output: Tensor) -> Tensor:
    """Return a layer's output as maps (N, C, H, W); those of a dense layer are 1 x 1."""
    return output if output.ndim == 4 else output[:, :, None, None]
