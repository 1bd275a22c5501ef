"""Project activations to pixels: the public functions of the deconvnet (zfnet/deconv.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zfnet.acceleration import accelerate
from zfnet.backprojection import project_units
from zfnet.data.batches import read_images
from zfnet.graph import (
    Step,
    UnknownLayer,
    channels_of,
    check_layers,
    layer_names,
    layers_of,
    network_steps,
)
from zfnet.model import device_of, evaluating
from zfnet.ranking import Top, TopActivations
from zfnet.receptive_field import (
    Window,
    cut,
    field_or_image,
    receptive_field,
)
from zfnet.transpose import check_invertible
from zfnet.units import layer_size, pixel_boxes, search_units, select_units
from zfnet.validation import check_input, check_positive


@dataclass(frozen=True, eq=False)
class Projection:
    """M activations projected to pixels.

    Attributes:
        pixels: (M, 3, H, W), signed, in units of the activation per unit of input. With `crop`,
            receptive-field patches (M, 3, R, R), zero where the field reaches outside the image.
        activation: (M,).
        position: (M, 2) as (row, column) in the map.
        channel: (M,).
        box: (M, 4) as (top, left, bottom, right) in input pixels, clipped to the image.
        corner: (M, 2), the top left of the unclipped receptive field. `cut(x, p.corner, R)` returns
            the image patches that match `pixels`.
    """

    pixels: Tensor
    activation: Tensor
    position: Tensor
    channel: Tensor
    box: Tensor
    corner: Tensor


def project(
    model: nn.Module,
    x: Tensor,
    layer: str,
    channel: int | Tensor,
    position: tuple[int, int] | Tensor | None = None,
    *,
    activation: Tensor | None = None,
    crop: bool = False,
    collision: str = "sum",
    batch: int = 64,
) -> Projection:
    """Project one activation of each image to pixels, with all others of its layer set to zero.

    Zeiler & Fergus, section 2.1. One image with M channels or positions gives M projections.

    Args:
        model: A network that `torch.fx` can trace, with convolutions, ReLUs, pooling and other
            linear operations, with or without branches. Without ReLUs, the result is the gradient
            times the activation.
        x: Images (N, 3, H, W), as `zfnet.preprocess` returns them.
        layer: In a chain, a layer with weights: conv1, ..., fc8. In a network with branches, the
            path of a module, such as "layer3.0.conv2"; see `zfnet.list_layers`.
        channel: A feature map, or one per projection (M,).
        position: (row, column), one per projection (M, 2), or None for each map's strongest
            position, the first in reading order.
        activation: The units' activations (M,), if a search has computed them.
        crop: Whether to return the receptive fields. A unit of a dense layer, or above a global
            pooling, sees the whole image.
        collision: How to unpool windows that share a maximum: "sum", as in back-propagation, or
            "overwrite", as in `torch.nn.MaxUnpool2d`, which loses signal.
        batch: The number of projections to compute at once.

    Returns:
        The projections, in the order of the arguments.

    Raises:
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the network cannot be traced, or has an operation below the layer
            that is neither linear nor a ReLU.
        IndexError: If a channel or position is outside the layer.
        ValueError: If x does not fit the network, or another argument is wrong.

    Example:
        >>> import torch, zfnet
        >>> x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        >>> p = zfnet.project(zfnet.load("imagenet65k"), x, "conv5", 17, crop=True)
        >>> p.pixels.shape
        torch.Size([1, 3, 139, 139])
    """
    if collision not in ("sum", "overwrite"):
        raise ValueError(f"collision must be 'sum' or 'overwrite', got {collision!r}")
    check_positive(batch=batch)
    check_input(model, x)
    like = x.to("meta")  # steps, units and boxes depend only on the shape and type of x
    with evaluating(model), torch.no_grad():
        steps = network_steps(model, like, layer)
        if layer not in layers_of(steps):
            raise UnknownLayer(
                f"{layer!r} has no features of its own; choose one of {', '.join(layers_of(steps))}"
            )
        check_layers(steps, [layer])
        check_invertible(steps)
        field = field_or_image(steps, layer)
        units = select_units(steps, like, layer, channel, position, activation, x.device)
        pixels, position, activation = accelerate(project_units)(
            steps, x, units, field, crop=crop, collision=collision, batch=batch
        )
    box, corner = pixel_boxes(steps, like, field, position)
    return Projection(pixels, activation, position, units.channel, box, corner)


def project_top(
    model: nn.Module,
    dataset: Dataset,
    top: TopActivations,
    layers: str | Sequence[str] | None = None,
    *,
    batch: int = 64,
) -> Iterator[tuple[str, Tensor, Projection]]:
    """Project every activation of a search to a patch of its receptive field (Fig. 2).

    Args:
        model: The network that was searched.
        dataset: The data set that was searched, of (3, H, W) tensors or (tensor, label).
        top: The result of `zfnet.top_activations`.
        layers: Layers of the search that have maps; None takes all.
        batch: The largest number of projections to yield at once.

    Returns:
        An iterator over (layer, rank, projection), in any order. `rank` (M,) is the rank of each
        unit among its channel's strongest, from 0. The projection equals that of `project` with
        `crop`. Ranks without an image are left out.

    Raises:
        UnknownLayer: If a layer was not searched, or its units see the whole image.
        UnsupportedNetwork: As in `project`.
        IndexError: If the search's units are not this network's.
        ValueError: If the data set has another length, or items of several sizes.

    Example:
        >>> import torch, zfnet
        >>> model, images = zfnet.mnist(), torch.rand(3, 3, 28, 28)
        >>> top = zfnet.top_activations(model, images, "conv2", k=2)
        >>> {layer: p.pixels.shape for layer, rank, p in zfnet.project_top(model, images, top)}
        {'conv2': torch.Size([64, 3, 15, 15])}
    """
    layers = layer_names(tuple(top) if layers is None else layers)
    check_positive(batch=batch)
    size = len(dataset)  # pyright: ignore[reportArgumentType]
    if size != top.images:
        raise ValueError(f"the search was over {top.images} images, not {size}")
    first = read_images(dataset, [0], device_of(model))
    check_input(model, first)
    with evaluating(model), torch.no_grad():
        chains = {layer: network_steps(model, first, layer) for layer in layers}
    for layer, steps in chains.items():
        _check_search(steps, layer, top[layer], first)
        check_invertible(steps)
    return accelerate(project_search)(model, dataset, top, chains, first, batch)


@torch.no_grad()
def project_search(
    model: nn.Module,
    dataset: Dataset,
    top: TopActivations,
    chains: Mapping[str, list[Step]],
    first: Tensor,
    batch: int,
) -> Iterator[tuple[str, Tensor, Projection]]:
    """Project the units of a search, `batch` units of one layer at a time; see `project_top`.

    `chains` has the steps up to each layer, and `first` is the first image (1, 3, H, W).
    """
    for layer, steps in chains.items():
        field, top_layer = receptive_field(steps, layer), top[layer]
        channels, ranks = (top_layer.index.cpu() >= 0).nonzero().unbind(1)
        for channel, rank in zip(channels.split(batch), ranks.split(batch), strict=True):
            x = read_images(
                dataset, top_layer.index[channel, rank].tolist(), first.device, like=first
            )
            check_input(model, x)
            units = search_units(top_layer, channel, rank, x)
            with evaluating(model):
                patches, position, activation = accelerate(project_units)(
                    steps, x, units, field, crop=True, collision="sum", batch=batch
                )
            box, corner = pixel_boxes(steps, x, field, position)
            p = Projection(patches, activation, position, units.channel, box, corner)
            yield layer, rank.to(x.device), p


def patches_inside(p: Projection, x: Tensor, field: int) -> tuple[Tensor, Tensor]:
    """Cut projections (M, C, H, W) and their images to receptive fields: (M, C, field, field) each.

    A patch that extends beyond the image is moved inside.
    """
    corner = p.corner.clamp(0, x.shape[-1] - field)
    return cut(p.pixels, corner, field), cut(x, corner, field)


def _check_search(steps: Sequence[Step], layer: str, top: Top, first: Tensor) -> None:
    """Raise UnknownLayer or IndexError where a search's units are not this layer's."""
    check_layers(steps, [layer])
    if field_or_image(steps, layer) is None:
        raise UnknownLayer(
            f"the units of {layer!r} see the whole image, not patches of it; use `project`"
        )
    position = top.position[top.index >= 0].long()
    outside = Window(position, position + 1).reaches_outside(layer_size(steps, first))
    if len(top.index) != channels_of(steps) or outside:
        raise IndexError(
            f"the search's units of {layer} are not this network's, or of images of another size"
        )
