"""Forward passes of receptive fields only, padded only at the border of a map.

Near a border a receptive field reaches outside the image, and there each layer must see its own
padding. Cells that are outside for all M units are padded before the next layer instead of
computed; cells that are outside for some units are set to the padding value.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.fast.padding import PaddingMask
from zfnet.fast.switches import SwitchTable
from zfnet.forward import Trace, layout, run
from zfnet.graph import Size, Step, map_sizes
from zfnet.receptive_field import Window, cut_windows
from zfnet.units import Units


def trace_fields(
    steps: list[Step], x: Tensor, units: Units, *, only_switches: bool = False
) -> tuple[Trace, Window]:
    """Run the network on the receptive fields of M units only.

    The steps end with the units' layer, whose output is (M, C, 1, 1). `only_switches` stops after
    the last pooling, which is enough for the way down. Returns the windows of pixels as well.
    """
    assert units.position is not None
    fields = Fields.of(steps, image_size(x), Window(units.position, units.position + 1))
    pools = [i for i, step in enumerate(fields.steps) if isinstance(step.module, nn.MaxPool2d)]
    end = max(pools, default=-1) + 1 if only_switches else len(fields.steps)
    t = _run_windows(fields, x, units.image, end)
    return fields.trace(x, t.switches, t.output), fields.pixels


def trace_windows(
    steps: list[Step], x: Tensor, image: Tensor, window: Window
) -> dict[str, SwitchTable]:
    """Return the switches below B windows of the last step's maps, for images (B,).

    The windows have the same size. Units of one image share a pass; `cut_switches` returns the
    switches of each unit.
    """
    fields = Fields.of(steps, image_size(x), window)
    above = fields.outputs() | {fields.steps[-1].name: window}
    index = _run_windows(fields, x, image, len(fields.steps)).switches
    return {
        name: SwitchTable.of(
            index[name].int(), above[name].low, fields.inputs[name].low, fields.width(name)
        )
        for name in index
    }


def whole_switches(t: Trace) -> dict[str, SwitchTable]:
    """Return a trace's switches, with the whole maps as windows."""
    origin = torch.zeros(len(t.x), 2, dtype=torch.int64, device=t.x.device)
    return {
        name: SwitchTable.of(index, origin, origin, t.inputs[name][3])
        for name, index in t.switches.items()
    }


def cut_switches(
    steps: list[Step],
    x: Tensor,
    tables: dict[str, SwitchTable],
    row: Tensor,
    position: Tensor | None,
) -> tuple[Trace, Window]:
    """Do as `trace_fields` with `only_switches`, from window row (M,) of the tables."""
    assert position is not None
    sizes = map_sizes(steps, image_size(x))
    fields = Fields.of(steps, image_size(x), Window(position, position + 1))
    pooled, pooled_size = (
        fields.outputs(),
        {a.name: sizes[b.name] for a, b in itertools.pairwise(steps)},
    )
    switches = {}
    for step in fields.steps:
        if isinstance(step.module, nn.MaxPool2d):
            window, below = pooled[step.name], fields.inputs[step.name]
            switch = tables[step.name].cut(row, window, below)  # (M, h, w, C)
            if window.reaches_outside(pooled_size[step.name]):  # such a cell has no switch
                switch.masked_fill_(window.outside(pooled_size[step.name])[..., None], 0)
            switches[step.name] = switch.long().permute(0, 3, 1, 2)
    return fields.trace(x, switches, x), fields.pixels


@dataclass(frozen=True, eq=False)
class Fields:
    """The steps for windows: without padding, with a `PaddingMask` where one reaches outside.

    `inputs` holds the cells that enter each step.
    """

    steps: list[Step]
    inputs: dict[str, Window]

    @staticmethod
    def of(steps: Sequence[Step], size: Size, window: Window) -> Fields:
        """Follow windows of the last step's maps down to the pixels of an image of `size`."""
        sizes = map_sizes(steps, size)
        windowed: list[Step] = []
        inputs: dict[str, Window] = {}
        for step in reversed(steps):
            if not isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
                windowed.append(step)
                inputs[step.name] = window
                continue
            window = window.below(step.module)
            windowed.append(Step(step.name, _without_padding(step.module), step.layer))
            inputs[step.name] = window
            if window.reaches_outside(sizes[step.name]):
                name = f"padding of {step.name}"
                mask, window = padding_mask(step.module, window, sizes[step.name])
                windowed.append(Step(name, mask))
                inputs[name] = window
        return Fields(windowed[::-1], inputs)

    @property
    def pixels(self) -> Window:
        """The windows of pixels that enter the first step."""
        return self.inputs[self.steps[0].name]

    def outputs(self) -> dict[str, Window]:
        """The cells that leave each step but the last."""
        return {
            step.name: self.inputs[above.name] for step, above in itertools.pairwise(self.steps)
        }

    def width(self, name: str) -> int:
        return int(self.inputs[name].size[0, 1])

    def trace(self, x: Tensor, switches: dict[str, Tensor], output: Tensor) -> Trace:
        """The trace that the way down needs: steps, switches, and sizes (h, w)."""
        inputs = {name: torch.Size(window.size[0].tolist()) for name, window in self.inputs.items()}
        return Trace(tuple(self.steps), {}, switches, inputs, x, output)


def _run_windows(fields: Fields, x: Tensor, image: Tensor, end: int) -> Trace:
    """Pass windows of pixels, of image (M,) of x, through the first `end` of the steps."""
    steps = fields.steps[:end]
    windowed = (PaddingMask, nn.Conv2d, nn.MaxPool2d)
    first = next(
        (i for i, step in enumerate(steps) if isinstance(step.module, windowed)), len(steps)
    )
    x = run(
        steps[:first], x, keep=()
    ).output  # pixel by pixel, on the whole image, like a mean image
    if first == len(steps):
        return Trace((), {}, {}, {}, x, x)
    patches = cut_windows(x, fields.inputs[steps[first].name], image)
    patches = patches.contiguous(
        memory_format=layout(x)
    )  # so the switches are those of the whole image
    return run(steps[first:], patches, keep=())


def padding_mask(module: nn.Module, window: Window, size: Size) -> tuple[PaddingMask, Window]:
    """Return the mask for windows that reach outside a map, and the windows left to compute."""
    first, last = window.always_outside(size)
    inner = Window(window.low + first, window.high - last)
    (top, left), (bottom, right) = first.tolist(), last.tolist()
    value = -torch.inf if isinstance(module, nn.MaxPool2d) else 0.0
    outside = inner.outside(size) if inner.reaches_outside(size) else None
    return PaddingMask((left, right, top, bottom), outside, value), inner


def _without_padding(module: nn.Conv2d | nn.MaxPool2d) -> nn.Module:
    """The same module, sharing its weights, for patches that hold their own padding."""
    module = copy.copy(module)
    module.padding, module.ceil_mode = (0, 0), False  # pyright: ignore
    return module


def largest_map(steps: Sequence[Step], size: Size = (1, 1)) -> int:
    """The elements of the largest map below a window of the last map; one unit by default."""
    low = torch.zeros(1, 2, dtype=torch.int64, device="cpu")
    window, most = Window(low, torch.tensor([size], device="cpu")), 1
    for step in reversed(steps):
        if isinstance(step.module, nn.Conv2d):
            most = max(most, int(window.size.prod()) * step.module.out_channels)
        if isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            window = window.below(step.module)
    return most


def image_size(x: Tensor) -> Size:
    """Return the height and width of images (N, C, H, W)."""
    return x.shape[2], x.shape[3]
