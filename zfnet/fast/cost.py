"""Count the operations of full and incremental passes, and predict which is faster."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.fast.head import Head
from zfnet.fast.locality import inputs_of
from zfnet.fast.plan import Node, Plan
from zfnet.graph import IDENTITIES, WEIGHTED, Step

# Multiply-adds in the time of moving one number through memory, on two cores with AVX-512.
VALUE = 160
# Multiply-adds in the time of one call of a layer for one group of windows. A GPU's is an estimate,
# not measured: 0.15 ms to launch its kernels and to send the windows, at 30e12 per second.
CALL = {"cpu": 2e7, "cuda": 5e9}
CHUNK = 30_000_000  # numbers in the largest patches at once


@dataclass(frozen=True)
class Cost:
    """What it costs to occlude one image at P positions.

    Attributes:
        whole: The multiply-adds of P whole passes.
        incremental: The multiply-adds of the incremental pass.
        share: The predicted time of the incremental pass, as a share of that of whole passes.
        positions: How many positions to compute at once.
    """

    whole: float
    incremental: float
    share: float
    positions: int

    @property
    def bound(self) -> float:
        """How many times fewer multiply-adds the incremental pass needs: its highest speed-up."""
        return self.whole / self.incremental


def count(plan: Plan, head: Head, batch: int) -> Cost:
    """Count the operations of both ways to occlude an image.

    The time of each is predicted from its multiply-adds, the numbers that it moves through memory
    (each worth `VALUE` multiply-adds), and its calls of layers (each worth `CALL`).

    Args:
        plan: The incremental pass.
        head: Its last part.
        batch: Whole images at once. The incremental pass takes no more memory than they do.
    """
    boxes = len(plan.windows[""].low)
    steps = [*(step for node in plan.nodes for step in node.steps), *plan.tail]
    work = sum(float(_node_work(node).sum()) for node in plan.nodes)
    work += sum(float(_dense_work(plan, step, name).sum()) for step, name in head.dense)
    work += boxes * sum(multiplications(step) for step in head.rest)
    moved = sum(float(_node_numbers(plan, node).sum()) for node in plan.nodes)
    moved += boxes * sum(_numbers(step) for step in head.rest)
    whole = boxes * sum(multiplications(step) for step in steps)
    whole_moved = boxes * sum(_numbers(step) for step in steps)
    positions = _positions(plan, head, batch)
    groups = sum(len(torch.unique(node.window.size, dim=0)) for node in plan.nodes)
    call = CALL["cpu" if plan.windows[""].low.device.type == "cpu" else "cuda"]
    time = work + VALUE * moved + call * groups * -(-boxes // positions)
    whole_time = whole + VALUE * whole_moved + call * len(plan.nodes) * -(-boxes // batch)
    return Cost(whole, work, time / whole_time, positions)


def multiplications(step: Step) -> int:
    """The multiply-adds of a step for a whole image."""
    shape = step.shape or torch.Size()
    cells = shape[:-1].numel() if isinstance(step.module, nn.Linear) else shape[1:].numel()
    return cells * _per_cell(step)


def _per_cell(step: Step) -> int:
    """The multiply-adds of a convolution for one cell, of a linear step for one vector."""
    return step.module.weight.numel() if isinstance(step.module, WEIGHTED) else 0


def _numbers(step: Step) -> int:
    """The numbers that a step writes for a whole image."""
    return 0 if isinstance(step.module, IDENTITIES) else (step.shape or torch.Size()).numel()


def _node_work(node: Node) -> Tensor:
    """The multiply-adds of a node at each position (P,)."""
    return node.window.size.prod(1) * sum(_per_cell(step) for step in node.steps)


def _node_numbers(plan: Plan, node: Node) -> Tensor:
    """The numbers that a node reads, computes and stores at each position (P,)."""
    computed = (s.name for s in node.steps if not isinstance(s.module, IDENTITIES))
    columns = sum(plan.columns(name) for name in (*node.reads, *computed, *node.writes))
    return node.window.size.prod(1) * columns + _core_numbers(plan, node)


def _core_numbers(plan: Plan, node: Node) -> Tensor:
    """The numbers in the patches that a node's convolution or pooling reads (P,)."""
    if node.below is None:
        return torch.zeros_like(node.window.low[:, 0])
    return node.below.size.prod(1) * plan.columns(inputs_of(node.steps[0])[0])


def _dense_work(plan: Plan, step: Step, name: str) -> Tensor:
    """The multiply-adds of a linear step for the changed cells of the maps below it (P,)."""
    height, width = plan.size(name)
    return plan.windows[name].size.prod(1).double() * _per_cell(step) / (height * width)


def _positions(plan: Plan, head: Head, batch: int) -> int:
    """How many positions at once fit into the memory of whole images, and into the cache."""
    most_whole = max(
        sum(shape.numel() for shape in (step.shape or torch.Size(), *step.input_shapes))
        for step in plan.steps
    )
    patch, stored = 1, 0
    for node in plan.nodes:
        cells = int(node.window.size.prod(1).max())
        widest = max(plan.columns(step.name) for step in node.steps)
        patch = max(patch, int(_core_numbers(plan, node).max()), cells * widest)
        stored += cells * sum(plan.columns(name) for name in node.writes)
    stored += sum(plan.shapes[name].numel() for name in head.whole)
    stored += max((_numbers(step) for step in head.rest), default=0)
    memory = batch * most_whole // (stored + 2 * patch)
    return max(1, min(len(plan.windows[""].low), memory, CHUNK // patch))
