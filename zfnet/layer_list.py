"""List the layers of a network, and the functions that support each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from zfnet.graph import (
    IDENTITIES,
    WEIGHTED,
    Call,
    Step,
    UnsupportedNetwork,
    Windowed,
    channels_first,
    channels_last_steps,
    geometry,
    graph_steps,
    meta_shapes,
    spatial_size,
    step_layers,
    unwrap,
    with_inputs,
)
from zfnet.model import Network, evaluating
from zfnet.receptive_field import RESHAPES, ReceptiveField, enclosing, is_cellwise
from zfnet.transpose import why_not_invertible

Axes = tuple[ReceptiveField, ReceptiveField]  # along the rows and along the columns
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Layer:
    """A layer of a network.

    Attributes:
        name: The name that `zfnet.trace` and the other functions take.
        operation: The operation that completes the layer: ReLU, Conv2d, Add, ...
        shape: Its output without the batch: maps (C, H, W), a vector (C,), or tokens (L, C).
        field: The receptive field of its units in pixels; None if they see the whole image.
        uses: The functions that take the layer: trace, top_activations, grad_cam, project and
            project_top.
        reason: Why the deconvnet cannot project from it; None if it can.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    field: ReceptiveField | None
    uses: tuple[str, ...]
    reason: str | None


def list_layers(model: nn.Module, size: int | None = None) -> list[Layer]:
    """List the layers of a network, in the order of the forward pass. Nothing is computed.

    Args:
        model: Any network that `torch.fx` can trace.
        size: The side of the square input in pixels. None takes `model.size`, else 224.

    Returns:
        The layers. In a chain they are conv1, ..., fc8; elsewhere the modules and blocks, by path.

    Raises:
        UnsupportedNetwork: If the network cannot be traced.
        ValueError: If images of this size do not fit the network.

    Example:
        >>> import zfnet
        >>> first, *_, last = zfnet.list_layers(zfnet.mnist())
        >>> first.name, first.shape, first.field.size, first.uses[-1]
        ('conv1', (16, 24, 24), 5, 'project_top')
        >>> last.name, last.shape, last.field
        ('fc4', (10,), None)
    """
    with evaluating(model):
        steps = shaped_steps(model, example_input(model, size))
    fields, reasons = _fields(steps), _reasons(steps)
    layers = []
    by_name = {step.name: step for step in steps}
    for step, (below, *_) in with_inputs(channels_first(steps)):
        source = by_name.get(step.name) or by_name[below]  # maps with channels first
        for name in step_layers(step):
            field, reason = fields[source.name], reasons[source.name]
            layers.append(_layer(name, source.module, step.shape or (), field, reason))
    return layers


def example_input(model: nn.Module, size: int | None = None) -> torch.Tensor:
    """Return an image (1, C, H, W) on the meta device that has the size a network declares."""
    inner = unwrap(model)
    declared = getattr(inner, "size", None)
    side = size or (declared if isinstance(declared, int) else 224)
    channels = inner.options["in_channels"] if isinstance(inner, Network) else 3
    floats = (t.dtype for t in inner.parameters() if t.is_floating_point())
    return torch.empty(1, channels, side, side, device="meta", dtype=next(floats, torch.float32))


def shaped_steps(model: nn.Module, x: torch.Tensor, *, to_result: bool = False) -> list[Step]:
    """Return a network's steps with their shapes for images like x, chains included."""
    return meta_shapes(graph_steps(model, to_result=to_result), x)


def _layer(
    name: str,
    module: nn.Module,
    shape: Sequence[int],
    field: ReceptiveField | None,
    reason: str | None,
) -> Layer:
    """Say what can be done with a layer that a module completes."""
    uses = ["trace"]
    if len(shape) in (1, 3):
        uses.append("top_activations")
    if len(shape) == 3 and spatial_size(shape) != (1, 1):
        uses.append("grad_cam")
    if len(shape) in (1, 3) and reason is None:
        uses += ["project", "project_top"] if field else ["project"]
    operation = module.expression.name if isinstance(module, Call) else type(module).__name__
    return Layer(name, operation, tuple(shape), field, tuple(uses), reason)


def _fields(steps: Sequence[Step]) -> dict[str, ReceptiveField | None]:
    """The receptive field of each step's units, from the images up; None for the whole image."""
    pixel = ReceptiveField(1, 1, 0)
    fields: dict[str, Axes | None] = {"": (pixel, pixel)}
    for step, inputs in with_inputs(steps):
        field = _union([fields[name] for name in inputs])
        if field is None or not (is_cellwise(step) or isinstance(step.module, Windowed)):
            field = None
        elif isinstance(step.module, Windowed):
            field = _field_above(field, step.module)
        fields[step.name] = field
    return {name: field and _square(field) for name, field in fields.items()}


def _square(field: Axes) -> ReceptiveField | None:
    """The smallest square around a field; None if the strides of rows and columns differ."""
    return enclosing(field) if field[0].stride == field[1].stride else None


def _union(fields: Sequence[Axes | None]) -> Axes | None:
    """The field of a unit that sees all of these; None if one of them is the whole image."""
    axes = [[field[axis] for field in fields if field is not None] for axis in (0, 1)]
    if len(axes[0]) < len(fields) or any(len({f.stride for f in axis}) != 1 for axis in axes):
        return None
    rows, columns = (enclosing(axis) for axis in axes)
    return rows, columns


def _field_above(field: Axes, module: Windowed) -> Axes | None:
    """The field of a convolution's or pooling's units; None if it does not pad with zeros."""
    try:
        parameters = zip(*geometry(module), strict=True)  # of the rows, then of the columns
    except UnsupportedNetwork:
        return None
    rows, columns = (
        ReceptiveField(
            below.size + dilation * (kernel - 1) * below.stride,
            below.stride * stride,
            below.offset - padding * below.stride,
        )
        for below, (kernel, stride, padding, dilation) in zip(field, parameters, strict=True)
    )
    return rows, columns


def _reasons(steps: Sequence[Step]) -> dict[str, str | None]:
    """For each step, why the deconvnet cannot carry a signal down from it; None if it can."""
    reasons: dict[str, str | None] = {"": None}
    for step, inputs in with_inputs(steps):
        below = next(filter(None, (reasons[name] for name in inputs)), None)
        reason = why_not_invertible(step.module)
        reasons[step.name] = below or (reason and f"{step.name}: {reason}")
    return reasons


def last_maps(steps: Sequence[Step], *, pooled: bool = False) -> Step:
    """Find the last maps before the pooling that leads to the logits.

    The walk begins at the logits and goes down through vectors and maps of one position. The first
    maps with several positions that it meets are what the logits are computed from. Side branches,
    decoders and the maps that gate others do not lead there. Then it goes on through poolings,
    normalizations and dropouts.

    Args:
        steps: The steps of a network up to its logits, with their shapes.
        pooled: Whether to keep what the last pooling receives, even if it was pooled before.

    Returns:
        The step that computes the maps.

    Raises:
        UnsupportedNetwork: If the logits do not come from maps, as in a vision transformer.
    """
    by_name = {step.name: (step, inputs) for step, inputs in with_inputs(steps)}
    order = {step.name: i for i, step in enumerate(steps)}
    last = channels_last_steps(steps)
    waiting, maps = {steps[-1].name}, []
    while waiting:
        step, inputs = by_name[waiting.pop()]
        shape = step.shape or torch.Size()
        positions = shape[:2] if step.name in last else shape[-2:]
        if len(shape) == 3 and positions != (1, 1):
            maps.append(step)
        elif len(shape) in (1, 3) or _only_reshapes(step.module):
            waiting |= set(inputs) & set(by_name)
        else:
            raise UnsupportedNetwork(
                f"has no feature maps (N, C, h, w) below its logits: {step.name} returns tokens "
                f"{('N', *shape)}; name a layer of maps"
            )
    if not maps:
        raise UnsupportedNetwork("has no feature maps (N, C, h, w) below its logits")
    return _before_pooling(max(maps, key=lambda step: order[step.name]), by_name, last, pooled)


def _only_reshapes(module: nn.Module) -> bool:
    """Whether a step rearranges values or pools them: maps may be flattened before their mean."""
    if isinstance(module, Call):
        return module.expression.name in RESHAPES
    return isinstance(module, (nn.Flatten, *POOLINGS, *IDENTITIES))


def _before_pooling(
    step: Step, by_name: dict[str, tuple[Step, tuple[str, ...]]], last: set[str], pooled: bool
) -> Step:
    """Follow maps down to what the poolings right below them receive, with channels first."""
    maps = step
    while not isinstance(step.module, WEIGHTED):
        inputs = by_name[step.name][1]
        if len(inputs) != 1 or inputs[0] not in by_name:
            break
        below = by_name[inputs[0]][0]
        pools = isinstance(step.module, POOLINGS) and not pooled
        if len(below.shape or ()) != 3 or spatial_size(below.shape or ()) == (1, 1):
            break
        if pools or maps.name in last:
            maps = below
        step = below
    return maps
