"""The exact incremental forward pass, which computes only what an occluder changes.

The unoccluded image passes through the network once. For each position of the occluder, a
convolution or pooling computes only the window of its map that depends on the occluded pixels, from
the window below it and a halo of unoccluded cells. Windows of the same shape go through a layer
together. This works for every graph of convolutions, poolings and cellwise steps; see
zfnet/fast/plan.py for the windows. The global average, or the first dense layer, adds to its
unoccluded output what the changed cells contribute. What else depends on the whole maps is computed
in full from there.
Nothing is approximated: only the order of floating-point sums differs. Krypton (Nakandala et al.,
SIGMOD 2019) has the same idea.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from zfnet import occlusion
from zfnet.fast.cost import Cost, count
from zfnet.fast.evaluate import evaluate
from zfnet.fast.head import Head
from zfnet.fast.locality import has_hooks, inputs_of
from zfnet.fast.plan import Node, Plan, same_windows
from zfnet.fast.tables import MINUS_INFINITY, ZERO, Table, as_cells, group_by_shape
from zfnet.forward import normalizes_by_batch
from zfnet.graph import Size, Step, UnsupportedNetwork, conv_layers, graph_steps
from zfnet.outputs import probability_function
from zfnet.receptive_field import Window


def measure_covered(
    model: nn.Module, steps: Sequence[Step], x: Tensor, fill: Tensor, boxes: Tensor,
    channel: Tensor | None, target: Tensor, *, batch: int, progress: Callable,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:  # fmt: skip
    """Accelerate `occlusion.measure_covered`, where the count of operations says that it pays.

    Elsewhere the reference passes whole images.
    """
    network = None
    with suppress(UnsupportedNetwork, ValueError):  # or it does not run on the meta device
        network = Incremental.of(model, steps, x, fill, boxes, channel, batch)
    if network is None or not pays(network.cost.share):
        return occlusion.measure_covered(
            model, steps, x, fill, boxes, channel, target, batch=batch, progress=progress
        )
    jobs, measured = [(n, chunk) for n in range(len(x)) for chunk in network.chunks], []
    to_probabilities = probability_function(model)
    for n, chunk in progress(jobs, total=len(jobs), desc="occluding"):
        activation, logits = network(n, chunk)
        row = occlusion.measure(logits, target[n].expand(len(chunk)), to_probabilities)
        measured.append((activation, *row))
    back = torch.cat(network.chunks).argsort()  # to the order of the boxes
    activation, *others = (
        torch.cat(column).view(len(x), -1)[:, back] for column in zip(*measured, strict=True)
    )
    return activation if channel is not None else None, *others  # pyright: ignore


def pays(share: float) -> bool:
    """Whether the incremental pass is faster, at this share of the time of whole passes."""
    return share < 1


def plan_occlusion(
    model: nn.Module, x: Tensor, boxes: Tensor, batch: int = 64, layer: str | None = None
) -> tuple[Plan, Head, Cost]:
    """Plan the incremental pass of a network in evaluation mode, and count its operations.

    Args:
        model: The network.
        x: Images (N, C, H, W); only their shape is used.
        boxes: The positions of the occluder (P, 4).
        batch: Whole images at once, in the passes to compare with.
        layer: In a chain, the layer of which a map is wanted.

    Returns:
        The plan, its last part, and the counted operations.

    Raises:
        UnsupportedNetwork: If the network cannot be traced, mixes images, has hooks, or changes
            everywhere.
    """
    if normalizes_by_batch(model) or has_hooks(model):
        raise UnsupportedNetwork("the network normalizes by the batch, or has hooks")
    plan = Plan(graph_steps(model, to_result=True), x, boxes, layer)
    head = Head(plan)
    return plan, head, count(plan, head, batch)


class Incremental:
    """The incremental forward pass for images x (N, 3, H, W) and the occluder's pixels `fill`.

    Call the object with the number of an image and a chunk of positions (M,): it returns the sum of
    the wanted map (M,), 0 where none is wanted, and the logits (M, classes).

    Attributes:
        cost: The counted operations.
        chunks: The positions (M,) of each chunk.
    """

    def __init__(
        self, plan: Plan, head: Head, cost: Cost, x: Tensor, fill: Tensor, channel: Tensor | None
    ):
        self.plan, self.head, self.cost = plan, head, cost
        self.x, self.fill, self.channel = x, fill, channel
        self.chunks = plan.order().split(cost.positions)
        self.number = -1
        self.tables: dict[str, Table] = {}
        self.base: dict[str, Tensor] = {}
        self.buffers: dict[tuple[int, torch.dtype], Tensor] = {}
        self.map: Tensor | None = None

    @staticmethod
    def of(
        model: nn.Module, steps: Sequence[Step], x: Tensor, fill: Tensor, boxes: Tensor,
        channel: Tensor | None, batch: int,
    ) -> Incremental:  # fmt: skip
        """Plan the pass for boxes (P, 4). Raises UnsupportedNetwork where it is impossible.

        `channel` (N,) is the map of the last convolutional layer to sum up.
        """
        layer = None if channel is None else conv_layers(steps)[-1]
        return Incremental(*plan_occlusion(model, x, boxes, batch, layer), x, fill, channel)

    def __call__(self, n: int, chunk: Tensor) -> tuple[Tensor, Tensor]:
        if n != self.number:
            self.number = n
            self._pass_unoccluded(n)
        self._place_occluder(chunk)
        total = torch.zeros(len(chunk), dtype=torch.float64, device=chunk.device)
        for node in self.plan.nodes:
            self._compute(node, chunk, total)
        kind = self.x.dtype if self.map is None else self.map.dtype
        return total.to(kind), self.head.logits(self.tables, self.base)

    def _pass_unoccluded(self, n: int) -> None:
        """Pass one image through the network, and keep what the occluded passes need."""
        plan = self.plan
        values, fill = {"": self.x[n : n + 1]}, {"": self.fill[n : n + 1]}
        keep = {*plan.stored, *self.head.needed, plan.wanted}
        overwrites = {name for node in plan.nodes for name in node.overwrites}
        evaluate(plan.lead, fill, keep=plan.stored)
        evaluate(plan.steps, values, keep, overwrites)
        for name in plan.stored:
            if name in self.tables:
                self.tables[name].fill(values[name])
            else:
                self.tables[name] = Table(values[name], self._capacity(name))
            if name not in plan.owner:  # the occluder is a window of the picture `fill`
                table = self.tables[name]
                table.rows[table.base :] = as_cells(fill[name])
        self.base = {name: values[name] for name in self.head.needed}
        if plan.wanted is not None and self.channel is not None:
            self.map = values[plan.wanted][0, int(self.channel[n])]

    def _capacity(self, name: str) -> int:
        """The most changed cells of a value in a chunk; all cells of `fill` for an image."""
        cells = self.plan.windows[name].size.prod(1)
        if name not in self.plan.owner:
            height, width = self.plan.size(name)
            return height * width
        return max(int(cells[chunk].sum()) for chunk in self.chunks)

    def _place_occluder(self, chunk: Tensor) -> None:
        for name in self.plan.stored - set(self.plan.owner):
            table, window = self.tables[name], self.plan.windows[name][chunk]
            width = table.size[1]
            start = table.base + window.low[:, 0] * width + window.low[:, 1]
            table.place(window, start, torch.full_like(start, width))

    def _compute(self, node: Node, chunk: Tensor, total: Tensor) -> None:
        """Compute a node's changed windows, and store what other nodes read of them."""
        window = node.window[chunk]
        groups = group_by_shape(window.size)
        for name in node.writes:
            self.tables[name].place_in_order(window, groups)
        keep = {*node.writes, self.plan.wanted}
        for members, shape in groups:
            values: dict[str, Tensor] = {}
            steps = node.steps
            if node.core is not None:
                first, *steps = steps
                values[first.name] = node.core(self._core_patches(node, chunk, members))
            for i, name in enumerate(node.reads, 1):
                values[name] = self._patches(name, node.window, chunk, members, shape, i)
            evaluate(steps, values, keep, node.overwrites)
            for name in node.writes:
                self.tables[name].write(members, values[name])
            if self.plan.wanted in values:
                total[members] = self._sum(window[members], values[self.plan.wanted])

    def _core_patches(self, node: Node, chunk: Tensor, members: Tensor) -> Tensor:
        """What a node's convolution or pooling reads for some positions of the chunk."""
        assert node.below is not None
        table = self.tables[inputs_of(node.steps[0])[0]]
        pad = MINUS_INFINITY if isinstance(node.core, nn.MaxPool2d) else ZERO
        patch = node.below[chunk[members]]
        return table.patches(members, patch, node.spacing, pad, self._buffer(0, patch, table))

    def _patches(
        self, name: str, window: Window, chunk: Tensor, members: Tensor, shape: Size, place: int
    ) -> Tensor:
        """The cells of a value in a node's windows, for some positions of the chunk."""
        table = self.tables[name]
        if name in self.plan.owner and same_windows(self.plan.windows[name], window):
            return table.written(members, shape)
        patch = window[chunk[members]]
        return table.patches(members, patch, (1, 1), ZERO, self._buffer(place, patch, table))

    def _buffer(self, place: int, patch: Window, table: Table) -> Tensor:
        """Reusable memory for patches: allocation costs as much as filling it."""
        numbers = int(patch.size.prod(1).sum()) * table.rows.shape[1]
        key = (place, table.rows.dtype)
        if key not in self.buffers or self.buffers[key].numel() < numbers:
            self.buffers[key] = table.rows.new_empty(numbers)
        return self.buffers[key]

    def _sum(self, window: Window, maps: Tensor) -> Tensor:
        """The sum of the wanted map at some positions: (m,) float64."""
        assert self.map is not None
        assert self.channel is not None
        (r, c), known = window.rows_and_columns(), self.map.double()
        new = maps[:, int(self.channel[self.number])].double()
        old = known[r[:, :, None], c[:, None]]
        return known.sum() + new.sum((1, 2)) - old.sum((1, 2))
