"""Compute logits from changed windows: the layers that depend on the whole image.

Two operations take a change of a few cells as a change of their sum, and need no other cell: the
global average, and the first dense layer above a flattening. Everything else in the tail reads
whole maps, assembled from the unoccluded ones and the changed windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zfnet.fast.evaluate import evaluate
from zfnet.fast.locality import inputs_of
from zfnet.fast.plan import Plan
from zfnet.fast.tables import FIRST_CELL, Table, group_by_shape
from zfnet.graph import IDENTITIES, Call, Operand, Step
from zfnet.receptive_field import Window


class Head:
    """The tail of a plan.

    Attributes:
        averages: The steps that average a value over all positions.
        dense: The linear steps above a flattened value, and that value.
        rest: The other steps that have to be computed.
        whole: The values that they read as whole maps.
        needed: The steps whose unoccluded outputs are needed.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        readers = Counter(name for step in plan.steps for name in inputs_of(step))
        by_name = {step.name: step for step in plan.tail}
        self.averages = [step for step in plan.tail if _averages(step, plan)]
        self.dense: list[tuple[Step, str]] = []
        skipped = {step.name for step in self.averages}
        for step in plan.tail:
            path = _flattened(step, by_name, readers)
            if path and path[-1] in plan.windows and not skipped & set(path):
                self.dense.append((step, path[-1]))
                skipped |= {step.name, *path}
        self.rest = [step for step in plan.tail if step.name not in skipped]
        self.whole = {n for step in self.rest for n in inputs_of(step) if n in plan.windows}
        self.needed = {step.name for step in (*self.averages, *(s for s, _ in self.dense))}
        self.weights: dict[str, Tensor] = {}

    def logits(self, tables: Mapping[str, Table], base: Mapping[str, Tensor]) -> Tensor:
        """The logits (M, classes) of a chunk's positions."""
        values = {name: _assemble(tables[name]) for name in self.whole}
        for step in self.averages:
            values[step.name] = self._average(step, tables[inputs_of(step)[0]], base[step.name])
        for step, name in self.dense:
            values[step.name] = self._dense(step, tables[name], base[step.name])
        last = self.plan.steps[-1].name
        evaluate(self.rest, values, keep={last})
        return values[last]

    def _average(self, step: Step, table: Table, base: Tensor) -> Tensor:
        """The average (M, C, ...): the unoccluded one, and the change of the sum."""
        count = table.size[0] * table.size[1]
        change = table.rows.new_empty(len(table.start), table.rows.shape[1])
        for members, _ in group_by_shape(table.window.size):
            rows = table.row_numbers(members, table.window[members])
            r, c = table.window[members].rows_and_columns()
            old = (FIRST_CELL + r * table.size[1])[:, :, None] + c[:, None]  # (m, h, w)
            difference = table.rows[rows.flatten(1)].sum(1) - table.rows[old.flatten(1)].sum(1)
            change[members] = difference
        return base + (change / count).view(-1, *base.shape[1:])

    def _dense(self, step: Step, table: Table, base: Tensor) -> Tensor:
        """The linear step's output (M, F): the unoccluded one, and what changed cells add."""
        y, window = base.repeat(len(table.start), 1), table.window
        for cell, weight in enumerate(self._weight_by_cell(step, table)):
            position = window.low.new_tensor(divmod(cell, table.size[1]))
            changed = ((window.low <= position) & (position < window.high)).all(1)
            members = changed.nonzero()[:, 0]
            r, c = (position - window.low[members]).unbind(1)
            rows = table.start[members] + r * table.pitch[members] + c
            difference = table.rows[rows] - table.rows[FIRST_CELL + cell]
            y[members] += difference @ weight  # each position once
        return y

    def _weight_by_cell(self, step: Step, table: Table) -> Tensor:
        """A linear step's weights for each cell of the maps below it: (H W, C, F)."""
        if step.name not in self.weights:
            assert isinstance(step.module, nn.Linear)
            weight = step.module.weight.unflatten(1, (-1, table.size[0] * table.size[1]))
            self.weights[step.name] = weight.permute(2, 1, 0).contiguous()
        return self.weights[step.name]


def _averages(step: Step, plan: Plan) -> bool:
    """Whether a step of the tail is the average of a value over all its positions."""
    inputs, module = inputs_of(step), step.module
    if len(inputs) != 1 or inputs[0] not in plan.windows or len(plan.shapes[inputs[0]]) != 3:
        return False
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return step.shape is not None and tuple(step.shape[1:]) == (1, 1)
    if not isinstance(module, Call) or module.expression.name != "mean":
        return False
    first, *args = module.expression.args
    dims = module.expression.kwargs.get("dim", args[0] if args else None)
    is_plain = first == Operand(0) and len(args) <= 2
    options = set(module.expression.kwargs) <= {"dim", "keepdim"}
    if not is_plain or not options or not isinstance(dims, (tuple, list)):
        return False
    return sorted(dim % 4 for dim in dims) == [2, 3]


def _flattened(step: Step, by_name: Mapping[str, Step], readers: Mapping[str, int]) -> list[str]:
    """What a linear step reads, down to the maps that are flattened; empty for other steps."""
    if not isinstance(step.module, nn.Linear):
        return []
    path, flattens = [inputs_of(step)[0]], 0
    while path[-1] in by_name and readers[path[-1]] == 1:
        step = by_name[path[-1]]
        if isinstance(step.module, nn.Flatten) and len(step.shape or ()) == 1:
            flattens += 1
        elif not isinstance(step.module, IDENTITIES):
            break
        path.append(inputs_of(step)[0])
    return path if flattens == 1 else []


def _assemble(table: Table) -> Tensor:
    """The whole maps of a value for each position of a chunk: (M, C, H, W)."""
    members = torch.arange(len(table.start), device=table.start.device)
    zero = torch.zeros_like(table.window.low)
    rows = table.row_numbers(members, Window(zero, zero + zero.new_tensor(table.size)))
    maps = table.rows[rows.flatten()].view(*rows.shape, *table.lead)
    return maps.movedim((1, 2), (-2, -1))
