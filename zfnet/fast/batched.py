"""Project thousands of units of a search, computing each part of an image only once.

The strongest units of a data set are concentrated in few images, where their receptive fields
overlap, and the backward pass needs only the switches. So the windows of the last pooled
map that the units of an image see are merged where that lowers the number of multiplications. Each
merged window passes through the network once, and each unit's switches are cut out of it
(zfnet/fast/patches.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zfnet import projection
from zfnet.data.batches import read_images
from zfnet.fast.fields import cut_switches, largest_map, trace_windows
from zfnet.fast.kernels import CHANNELS_LAST
from zfnet.fast.merging import merge_windows, multiplications
from zfnet.fast.patches import CHUNK, channels_last, project_fields
from zfnet.fast.switches import SwitchTable
from zfnet.graph import Step, is_chain, map_sizes
from zfnet.model import evaluating
from zfnet.projection import Projection
from zfnet.ranking import Top, TopActivations
from zfnet.receptive_field import (
    ReceptiveField,
    Window,
    receptive_field,
    receptive_field_box,
)
from zfnet.units import Units
from zfnet.validation import check_input

MAX_SWITCHES = 32_000_000  # in memory at once: 128 MB, twice that while tables are joined


@torch.no_grad()
def project_search(
    model: nn.Module,
    dataset: Dataset,
    top: TopActivations,
    chains: Mapping[str, list[Step]],
    first: Tensor,
    batch: int,
) -> Iterator[tuple[str, Tensor, Projection]]:
    """Accelerate `projection.project_search`: layers above the same pooling share its windows.

    Networks with branches are left to the reference.
    """
    if not all(is_chain(steps) for steps in chains.values()):
        yield from projection.project_search(model, dataset, top, chains, first, batch)
        return
    first = first.contiguous(memory_format=CHANNELS_LAST)
    longest = channels_last(max(chains.values(), key=len, default=[]))
    layers = [
        _Layer.of(longest[: len(steps)], name, top[name], first) for name, steps in chains.items()
    ]
    for pooled in dict.fromkeys(layer.pooled for layer in layers):
        sharing = [layer for layer in layers if layer.pooled == pooled]
        yield from _project_layers(model, sharing, dataset, first, batch)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer's M units, on the CPU, and the windows (M) of the last pooled map that they see.

    `pooled` is the number of steps up to that map; 0 if there is none.
    """

    name: str
    steps: list[Step]
    pooled: int
    image: Tensor
    channel: Tensor
    rank: Tensor
    position: Tensor
    value: Tensor
    window: Window
    sizes: dict[str, tuple[int, int]]
    field: ReceptiveField

    @staticmethod
    def of(steps: list[Step], name: str, top: Top, x: Tensor) -> _Layer:
        pooled = 1 + max(
            (i for i, step in enumerate(steps) if isinstance(step.module, nn.MaxPool2d)), default=-1
        )
        channel, rank = (top.index.cpu() >= 0).nonzero().unbind(1)
        image, position, value = (
            t.cpu()[channel, rank] for t in (top.index, top.position.long(), top.value)
        )
        window = Window(position, position + 1)
        for step in reversed(steps[pooled:]):
            if isinstance(step.module, nn.Conv2d):
                window = window.below(step.module)
        sizes = map_sizes(steps, (x.shape[2], x.shape[3]))
        return _Layer(
            name=name, steps=steps, pooled=pooled, image=image, channel=channel, rank=rank,
            position=position, value=value.to(x.dtype),
            window=window.clip(sizes[steps[pooled].name]), sizes=sizes,
            field=receptive_field(steps, name),
        )  # fmt: skip

    def project(
        self, rows: Tensor, table_row: Tensor, tables: dict[str, SwitchTable], first: Tensor
    ) -> tuple[str, Tensor, Projection]:
        """Project units (M,) through the switches of windows `table_row` (M,) of the tables."""
        device = first.device
        channel, position, value = (
            t[rows].to(device) for t in (self.channel, self.position, self.value)
        )
        t, pixels = cut_switches(self.steps, first, tables, table_row.to(device), position)
        patch = project_fields(t, pixels, self.field, Units(table_row, channel, position, value))
        corner = self.field.offset + position * self.field.stride
        box = receptive_field_box(self.steps, self.sizes, position)
        return (
            self.name,
            self.rank[rows].to(device),
            Projection(patch, value, position, channel, box, corner),
        )


def _project_layers(
    model: nn.Module, layers: list[_Layer], dataset: Dataset, first: Tensor, batch: int
) -> Iterator[tuple[str, Tensor, Projection]]:
    """Project the units of layers above the same pooling, in the order of their windows."""
    steps, counts = layers[0].steps[: layers[0].pooled], [len(layer.image) for layer in layers]
    windows = ((layer.image, layer.window.low, layer.window.high) for layer in layers)
    image, low, high = (torch.cat(part).numpy() for part in zip(*windows, strict=True))
    owner, passed = np.zeros(sum(counts), dtype=int), iter([(0, 1, {})])
    if steps:  # without pooling, there are no switches to compute
        cost = multiplications(steps, (first.shape[2], first.shape[3]))
        owner, image, low, high = merge_windows(image, low, high, cost)
        passed = _pass_windows(model, steps, dataset, first, image, low, high, batch)
    owners = np.split(owner, np.cumsum(counts)[:-1])
    for begin, end, tables in passed:
        for layer, window in zip(layers, owners, strict=True):
            chosen = np.flatnonzero((window >= begin) & (window < end))
            if not len(chosen):
                continue
            # Units at similar positions are projected together (zfnet/fast/patches.py).
            order = torch.from_numpy(chosen[np.lexsort(layer.position[chosen].numpy().T[::-1])])
            for rows in order.split(min(batch, max(1, CHUNK // largest_map(layer.steps)))):
                yield layer.project(
                    rows, torch.from_numpy(window[rows.numpy()] - begin), tables, first
                )


def _pass_windows(
    model: nn.Module, steps: list[Step], dataset: Dataset, first: Tensor,
    image: np.ndarray, low: np.ndarray, high: np.ndarray, batch: int,
) -> Iterator[tuple[int, int, dict[str, SwitchTable]]]:  # fmt: skip
    """Pass windows low, high (B, 2) of images (B,) up.

    Yields (begin, end, the switches in windows begin to end).
    """
    size, parts, begin, end = high - low, [], 0, 0
    while end < len(image):
        at_once = min(
            batch, max(1, CHUNK // largest_map(steps, (int(size[end, 0]), int(size[end, 1]))))
        )
        rows = np.arange(
            end, end + int((size[end : end + at_once] == size[end]).all(1).sum())
        )  # sorted by size
        indices, row = np.unique(image[rows], return_inverse=True)
        window = Window(*(torch.from_numpy(cells[rows]).to(first.device) for cells in (low, high)))
        x = read_images(dataset, indices.tolist(), first.device, like=first).contiguous(
            memory_format=CHANNELS_LAST
        )
        check_input(model, x)
        with evaluating(model):
            parts.append(trace_windows(steps, x, torch.from_numpy(row).to(first.device), window))
        end += len(rows)
        if sum(
            s.table.numel() for part in parts for s in part.values()
        ) >= MAX_SWITCHES or end == len(image):
            tables = {name: SwitchTable.cat([part[name] for part in parts]) for name in parts[0]}
            parts.clear()
            yield begin, end, tables
            begin = end
