"""Plan an incremental pass: the windows that an occluder changes, and the steps to compute.

Each value of the network has a window per position of the occluder: the box of the cells that the
occluder may change. At the image it is the occluder. A convolution or pooling widens it by its
kernel, and a stride shrinks it (`Window.above`). A cellwise step keeps it. Where branches join, it
is the union: the smallest box that holds the windows of all branches.

A node is what can be computed on one window without looking outside: a convolution or pooling with
the cellwise steps above it, such as BatchNorm, ReLU, 1 x 1 convolutions, and the addition of the
other branch, if that has changed nowhere else. Only what another node reads is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zfnet.fast.locality import (
    inputs_of,
    is_local_cellwise,
    is_local_window,
    keeps_maps,
    overwriting_steps,
    prepare,
    without_padding,
)
from zfnet.graph import Size, Step, UnsupportedNetwork, geometry, spatial_size
from zfnet.receptive_field import Window


@dataclass(eq=False)
class Node:
    """Steps that are computed together on the changed windows.

    Attributes:
        steps: The steps, in order. The first may be a convolution or pooling of any window.
        window: The cells that are computed, for each of P positions.
        core: The first step's module without padding; None if all steps are cellwise.
        below: The cells that `core` reads for them; outside the map where it pads.
        spacing: The distance of the cells that `core` reads, above 1 for strided 1 x 1 filters.
        reads: The values of other nodes that cellwise steps read.
        writes: The values that other nodes read.
        overwrites: The steps that may overwrite what they read.
        ancestors: The nodes that must be computed before.
    """

    steps: list[Step]
    window: Window
    core: nn.Module | None = None
    below: Window | None = None
    spacing: tuple[int, int] = (1, 1)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    overwrites: set[str] = field(default_factory=set)
    ancestors: set[Node] = field(default_factory=set)


class Plan:
    """How to compute what an occluder changes, for images like x and boxes (P, 4).

    Attributes:
        steps: All steps, prepared.
        lead: The cellwise steps on the images, such as a mean image. The occluder comes after them.
        nodes: What is computed on windows, in order.
        tail: The steps that depend on the whole image.
        windows: The changed cells of each value of the lead and the nodes; "" is the image.
        shapes: The shape of each value, (C, H, W) or with more dimensions before the last two.
        owner: The node that computes a value; none for values of the lead.
        stored: The values that nodes and the tail read.
        wanted: The step that completes `layer`, in a chain: it is kept, too.

    Raises:
        UnsupportedNetwork: If nothing can be computed on windows.
    """

    def __init__(self, steps: Sequence[Step], x: Tensor, boxes: Tensor, layer: str | None = None):
        self.steps = prepare(steps, x)
        self.wanted = next((s.name for s in self.steps if layer and s.layer == layer), None)
        self.windows = {"": Window(boxes[:, :2], boxes[:, 2:])}
        self.shapes = {"": x.shape[1:]} | {s.name: s.shape or torch.Size() for s in self.steps}
        self.owner: dict[str, Node] = {}
        self.lead: list[Step] = []
        self.tail: list[Step] = []
        nodes: list[Node] = []
        for step in self.steps:
            self._place(step, nodes)
        # An ancestor of a node has fewer ancestors than the node, so this order is possible.
        self.nodes = sorted(nodes, key=lambda node: len(node.ancestors))
        if not nodes:
            raise UnsupportedNetwork("no step of the network keeps a change local")
        if self.wanted and self.wanted not in self.owner:
            raise UnsupportedNetwork(f"{layer} depends on the whole image")
        self.stored = self._connect()

    def size(self, name: str) -> Size:
        """The height and width of a value."""
        return spatial_size(self.shapes[name])

    def columns(self, name: str) -> int:
        """The numbers in a cell of a value."""
        return self.shapes[name][:-2].numel()

    def order(self) -> Tensor:
        """The positions (P,), those whose windows have the same sizes next to each other."""
        sizes = torch.cat([node.window.size for node in self.nodes], 1)  # (P, 2 nodes)
        return torch.unique(sizes, dim=0, return_inverse=True)[1].argsort(stable=True)

    def _place(self, step: Step, nodes: list[Node]) -> None:
        """Add a step to the lead, to a node, or to the tail."""
        inputs = inputs_of(step)
        if not all(name in self.windows for name in inputs):
            self.tail.append(step)
            return
        window = self._union(inputs)
        owners = list(dict.fromkeys(self.owner[name] for name in inputs if name in self.owner))
        if not owners and keeps_maps(step):
            self.lead.append(step)
        elif is_local_cellwise(step):
            self._join(step, window, owners, nodes)
        elif is_local_window(step):
            window = window.above(step.module, self.size(step.name))  # pyright: ignore
            self._join(step, window, owners, nodes, new=True)
        else:
            self.tail.append(step)
            return
        self.windows[step.name] = window

    def _union(self, names: Sequence[str]) -> Window:
        """The smallest windows that hold those of all these values."""
        first, *others = (self.windows[name] for name in names)
        for other in others:
            first = first.union(other)
        return first

    def _join(
        self, step: Step, window: Window, owners: list[Node], nodes: list[Node], new: bool = False
    ) -> None:
        """Add a step to the node of one of its inputs that computes its window, or to a new one.

        The nodes of the other inputs must come before, so they may not depend on that node.
        """
        fitting = (
            node
            for node in owners
            if same_windows(node.window, window)
            and not any(node in other.ancestors for other in owners)
        )
        node = None if new else next(fitting, None)
        if node is None:
            node = Node([], window)
            nodes.append(node)
        node.steps.append(step)
        self.owner[step.name] = node
        before = {other for other in owners if other is not node}
        before = before.union(*(other.ancestors for other in before))
        for later in nodes:
            if later is node or node in later.ancestors:
                later.ancestors |= before

    def _connect(self) -> set[str]:
        """Find what each node reads and writes; return the values that are stored."""
        readers = Counter(name for step in self.steps for name in inputs_of(step))
        readers.update([self.wanted] if self.wanted else [])
        stored = {name for step in self.tail for name in inputs_of(step) if name in self.windows}
        for node in self.nodes:
            names = {step.name for step in node.steps}
            first, *others = node.steps
            if not is_local_cellwise(first):
                self._add_core(node, first)
                stored |= {inputs_of(first)[0]}
            else:
                others = node.steps
            inputs = (name for step in others for name in inputs_of(step))
            node.reads = tuple(dict.fromkeys(name for name in inputs if name not in names))
            node.overwrites = overwriting_steps(node.steps, readers)
            stored |= set(node.reads)
        for node in self.nodes:
            node.writes = tuple(step.name for step in node.steps if step.name in stored)
        return stored

    def _add_core(self, node: Node, first: Step) -> None:
        module = first.module
        kernel, stride, padding, _ = geometry(module)  # pyright: ignore[reportArgumentType]
        node.core, node.below = without_padding(module), node.window.below(module)  # pyright: ignore
        if isinstance(module, nn.Conv2d) and kernel == [1, 1]:
            low = node.window.low
            low = low * low.new_tensor(stride) - low.new_tensor(padding)
            node.below, node.spacing = Window(low, low + node.window.size), (stride[0], stride[1])


def same_windows(a: Window, b: Window) -> bool:
    """Whether windows (P) are the same at every position."""
    return torch.equal(a.low, b.low) and torch.equal(a.high, b.high)
