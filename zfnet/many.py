"""Projections of everything that a search has found, each part of an image passed through the network once.

The units that are strongest over a data set crowd in some of its images, where their receptive fields overlap, and the way down
needs only switches of the way up. So the windows of the last pooled map that the units of an image see are merged where
that lowers the number of multiplications; each merged window is passed up once, and every unit's switches are cut out of it
(zfnet/fields.py). The way down is that of `deconv.project`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zfnet.activations import (
    ReceptiveField,
    Step,
    UnknownLayer,
    as_names,
    check_input,
    conv_layers,
    evaluating,
    receptive_field,
    seen,
    sizes,
    steps_until,
)
from zfnet.deconv import CHUNK, LAST, Projection, channels_of, project_fields
from zfnet.fields import Switches, channels_last, cut_switches, largest, trace_windows
from zfnet.model import device_of
from zfnet.top import Top, TopActivations, as_tensor
from zfnet.windows import Window, output_size

KEPT = 32_000_000  # switches at once: 128 MB, and once more while they are put into one table
CROWD = 64  # different windows of an image; where there are more, they become one or stay as they are


@torch.no_grad()
def project_top(
    model: nn.Module, dataset: Dataset, top: TopActivations, layers: str | Sequence[str] | None = None, *, batch: int = 64
) -> Iterator[tuple[str, Tensor, Projection]]:
    """Project every activation that a search over a data set has found, to patches of its receptive field.

    Yields (layer, rank, projection) of at most `batch` units at a time, in an order of its own: `rank` (M,) is the units' place
    among their channel's strongest, from 0; the projection is that of `project` with `crop`, as exact. All is on the model's
    device. Places of a channel that no image has taken are left out.

    `layers` are some of the search's convolutional layers, by default all. Raises UnknownLayer for one that was not searched
    or is dense, ValueError for a data set of another length or with items of several sizes, IndexError for units that the
    network does not have for such items, and what `project` raises.
    """
    layers = as_names(tuple(top) if layers is None else layers)
    size = len(dataset)  # pyright: ignore[reportArgumentType]
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if size != top.images:
        raise ValueError(f"the search was over {top.images} images, not {size}")
    device = device_of(model)
    first = _read(dataset, np.zeros(1, dtype=int), device)
    with evaluating(model):
        chains = [steps_until(model, first, layer) for layer in layers]
    longest = channels_last(max(chains, key=len, default=[]))
    found = [_Layer.of(longest[: len(steps)], layer, top[layer], first) for steps, layer in zip(chains, layers, strict=True)]
    for pooled in dict.fromkeys(layer.pooled for layer in found):
        together = [layer for layer in found if layer.pooled == pooled]
        yield from _carried(model, together, dataset, first, batch)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer's M units, on the CPU, and the windows (M) that they see of the last pooled map below."""

    name: str
    steps: list[Step]
    pooled: int  # how many of the steps lead to the last pooled map; 0: there is none
    image: Tensor
    channel: Tensor
    rank: Tensor
    position: Tensor
    value: Tensor
    window: Window
    size: dict[str, tuple[int, int]]
    field: ReceptiveField

    @staticmethod
    def of(steps: list[Step], name: str, top: Top, x: Tensor) -> _Layer:
        if name not in conv_layers(steps):
            raise UnknownLayer(f"{name!r} is not convolutional: its units see the whole image, and `project` projects them")
        pooled = 1 + max((i for i, step in enumerate(steps) if isinstance(step.module, nn.MaxPool2d)), default=-1)
        channel, rank = (top.index.cpu() >= 0).nonzero().unbind(1)
        image, position, value = (t.cpu()[channel, rank] for t in (top.index, top.position.long(), top.value))
        window = Window(position, position + 1)
        for step in reversed(steps[pooled:]):
            if isinstance(step.module, nn.Conv2d):
                window = window.below(step.module)
        size, field = sizes(steps, (x.shape[2], x.shape[3])), receptive_field(steps, name)
        if len(top.index) != channels_of(steps) or Window(position, position + 1).reaches_outside(size[""]):
            raise IndexError(f"the search's units of {name} are not this network's, or of images of another size")
        window = window.clip(size[steps[pooled].name])
        return _Layer(
            name=name, steps=steps, pooled=pooled, image=image, channel=channel, rank=rank, position=position,
            value=value.to(x.dtype), window=window, size=size, field=field,
        )  # fmt: skip


def _carried(
    model: nn.Module, layers: list[_Layer], dataset: Dataset, first: Tensor, batch: int
) -> Iterator[tuple[str, Tensor, Projection]]:
    """The units of layers above the same pooling, those in some windows after those in others."""
    steps, counts = layers[0].steps[: layers[0].pooled], [len(layer.image) for layer in layers]
    windows = ((layer.image, layer.window.low, layer.window.high) for layer in layers)
    image, low, high = (torch.cat(part).numpy() for part in zip(*windows, strict=True))
    owner, passed = np.zeros(sum(counts), dtype=int), iter([(0, 1, {})])
    if steps:  # else there is no pooling, and nothing of the images is needed
        owner, image, low, high = merge(image, low, high, multiplications(steps, (first.shape[2], first.shape[3])))
        passed = _passed(model, steps, dataset, first, image, low, high, batch)
    owners = np.split(owner, np.cumsum(counts)[:-1])
    for begin, end, found in passed:
        for layer, window in zip(layers, owners, strict=True):
            chosen = np.flatnonzero((window >= begin) & (window < end))
            if not len(chosen):
                continue
            # Units of like position are carried down together (zfnet/fields.py).
            order = torch.from_numpy(chosen[np.lexsort(layer.position[chosen].numpy().T[::-1])])
            for part in order.split(min(batch, max(1, CHUNK // largest(layer.steps)))):
                channel, position, value = (u[part].to(first.device) for u in (layer.channel, layer.position, layer.value))
                row = torch.from_numpy(window[part.numpy()] - begin).to(first.device)
                t, pixels = cut_switches(layer.steps, first, found, row, position)
                patch = project_fields(t, pixels, layer.field, channel, position, value)
                corner = layer.field.offset + position * layer.field.stride
                box = seen(layer.steps, layer.size, position)
                yield layer.name, layer.rank[part].to(first.device), Projection(patch, value, position, channel, box, corner)


def _passed(
    model: nn.Module, steps: list[Step], dataset: Dataset, first: Tensor,
    image: np.ndarray, low: np.ndarray, high: np.ndarray, batch: int,
) -> Iterator[tuple[int, int, dict[str, Switches]]]:  # fmt: skip
    """Pass windows low, high (B, 2) of image (B,) up: (begin, end, the switches in windows begin to end), a few at a time."""
    size, parts, begin, end = high - low, [], 0, 0
    while end < len(image):
        at_once = min(batch, max(1, CHUNK // largest(steps, (int(size[end, 0]), int(size[end, 1])))))
        rows = np.arange(end, end + int((size[end : end + at_once] == size[end]).all(1).sum()))  # they are sorted by size
        read, of = np.unique(image[rows], return_inverse=True)
        window = Window(*(torch.from_numpy(cells[rows]).to(first.device) for cells in (low, high)))
        x = _read(dataset, read, first.device)
        if x.shape[1:] != first.shape[1:]:
            raise ValueError(f"items of several sizes: {tuple(first.shape[1:])}, {tuple(x.shape[1:])}")
        check_input(model, x)
        with evaluating(model):
            parts.append(trace_windows(steps, x, torch.from_numpy(of).to(first.device), window))
        end += len(rows)
        if sum(s.table.numel() for part in parts for s in part.values()) >= KEPT or end == len(image):
            found = {name: Switches.cat([part[name] for part in parts]) for name in parts[0]}
            parts.clear()
            yield begin, end, found
            begin = end


def _read(dataset: Dataset, indices: np.ndarray, device: torch.device) -> Tensor:
    """Items of a data set as one batch, channels last: (N, 3, H, W)."""
    together, chosen = getattr(dataset, "__getitems__", None), indices.tolist()  # PyTorch's own way to ask for several
    items = [as_tensor(item) for item in (together(chosen) if together else (dataset[i] for i in chosen))]
    shapes = {tuple(item.shape) for item in items}
    if len(shapes) > 1:
        raise ValueError(f"items of several sizes: {', '.join(map(str, sorted(shapes)))}")
    return torch.stack(items).to(device, memory_format=LAST)


def multiplications(steps: list[Step], size: tuple[int, int]) -> np.ndarray:
    """What the passing up of a window of the last map costs, by its height and width: (H + 1, W + 1)."""
    shape = sizes(steps, size)
    height, width = output_size(steps[-1].module, shape[steps[-1].name])
    square = torch.arange(max(height, width) + 1)[:, None].expand(-1, 2)
    window, total = Window(torch.zeros_like(square), square), np.zeros((height + 1, width + 1))
    for step in reversed(steps):
        if isinstance(step.module, nn.Conv2d):
            cells = window.size.minimum(torch.tensor(output_size(step.module, shape[step.name]))).numpy()
            total += np.outer(cells[: height + 1, 0], cells[: width + 1, 1]) * float(step.module.weight.numel())
        if isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            window = window.below(step.module)
    return total


def merge(image: np.ndarray, low: np.ndarray, high: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, ...]:
    """Merge the windows low, high (M, 2) of image (M,) while that lowers the `cost` (height, width) of all.

    Returns each window's merged one, (M,), and the merged ones' image (B,), low and high (B, 2), sorted by size and then by
    place. Greedy: in each image the two whose union saves most become one, until none saves anything; of a CROWD all or none.
    """
    if not len(image):
        return np.zeros(0, dtype=int), image, low, high
    windows, row = np.unique(np.concatenate([image[:, None], low, high], 1), axis=0, return_inverse=True)
    owner, merged, count = np.empty(len(windows), dtype=int), [], 0
    for members in np.split(np.arange(len(windows)), np.flatnonzero(np.diff(windows[:, 0])) + 1):
        low, high, own = windows[members, 1:3], windows[members, 3:], np.arange(len(members))
        if len(members) > CROWD:  # the search for pairs would take longer than it saves
            first, last = low.min(0, keepdims=True), high.max(0, keepdims=True)
            if cost[tuple((last - first).T)] < cost[tuple((high - low).T)].sum():
                low, high, own = first, last, np.zeros_like(own)
        while 1 < len(low) <= CROWD:
            lower, upper = np.minimum(low[:, None], low), np.maximum(high[:, None], high)
            alone = cost[tuple((high - low).T)]
            saved = alone[:, None] + alone - cost[tuple(np.moveaxis(upper - lower, 2, 0))]
            np.fill_diagonal(saved, 0)
            i, j = sorted(np.unravel_index(saved.argmax(), saved.shape))
            if saved[i, j] <= 0:
                break
            low[i], high[i] = lower[i, j], upper[i, j]
            low, high = np.delete(low, j, 0), np.delete(high, j, 0)
            own = np.where(own == j, i, own - (own > j))
        owner[members], count = own + count, count + len(low)
        merged.append(np.concatenate([np.full((len(low), 1), windows[members[0], 0]), low, high], 1))
    found = np.concatenate(merged)
    order = np.lexsort([*found[:, 1:3].T[::-1], *(found[:, 3:] - found[:, 1:3]).T])
    image, low, high = np.split(found[order], [1, 3], axis=1)
    return np.argsort(order)[owner[row.reshape(-1)]], image[:, 0], low, high
