"""One forward pass: its activations and pooling switches.

`trace` passes images through a network and keeps every activation. It calls `run`, a loop over the
steps of a network that the deconvnet, occlusion and the top-k search also use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.graph import (
    Call,
    Step,
    UnknownLayer,
    layers_of,
    network_steps,
    sizes_of,
    steps_until,
    with_inputs,
)
from zfnet.model import evaluating
from zfnet.outputs import logits_of as logits_of
from zfnet.outputs import normalizes_by_batch as normalizes_by_batch
from zfnet.receptive_field import ReceptiveField, receptive_field, receptive_field_box
from zfnet.validation import check_input


@dataclass(frozen=True, eq=False)
class Trace(Mapping):
    """The result of one forward pass: a mapping from names to activations.

    `trace["conv3"]` is the rectified map (N, C, H, W) before pooling, `trace["fc7"]` the rectified
    vector (N, C), and `trace["pool5"]` the output of any other step.

    Attributes:
        steps: The steps of the pass.
        outputs: The activations by name of layer or step.
        switches: For each pooling, (N, C, h, w) int64: the flat index of each window's maximum in
            the H x W map below, as PyTorch returns it.
        inputs: The shape that entered each step; a tuple of shapes where several did.
        x: The images (N, 3, H, W).
        output: What the last step returned.
        logits: Logits (N, classes), or None if the pass stopped earlier.
    """

    steps: tuple[Step, ...]
    outputs: dict[str, Tensor]
    switches: dict[str, Tensor]
    inputs: dict[str, Any]
    x: Tensor
    output: Tensor
    logits: Tensor | None = None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.outputs:
            raise UnknownLayer(f"no layer {name!r} in this trace; it has {', '.join(self.layers)}")
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in order: conv1, ..., fc8, or the paths of modules."""
        return tuple(layers_of(self.steps))

    def select(self, rows: Tensor) -> Trace:
        """Return the trace of rows (M,) of the N images, which may repeat.

        It selects only what a projection needs: the switches and the shapes.
        """
        inputs = {name: _repeat_shapes(shapes, len(rows)) for name, shapes in self.inputs.items()}
        switches = {name: index[rows] for name, index in self.switches.items()}
        return replace(self, switches=switches, inputs=inputs)

    def can_repeat(self) -> bool:
        """Whether one image's trace may be repeated: each value's first dimension is the image."""
        return all(
            size[0] == 1
            for sizes in self.inputs.values()
            for size in ([sizes] if isinstance(sizes, torch.Size) else sizes)
        )

    def receptive_field(self, layer: str) -> ReceptiveField:
        """The receptive field of a convolutional layer's units. Raises UnknownLayer."""
        return receptive_field(self.steps, layer)

    def box(self, layer: str, position: Tensor) -> Tensor:
        """The pixels that units see: positions (..., 2) to boxes (..., 4), clipped to the image.

        A box is (top, left, bottom, right). A unit of a dense layer sees the whole image.
        Raises UnknownLayer.
        """
        steps = steps_until(self.steps, layer)
        return receptive_field_box(steps, sizes_of(steps, self.x), position)


def trace(model: nn.Module, x: Tensor, *, until: str | None = None) -> Trace:
    """Pass images through the network once, and keep every activation and pooling switch.

    The network runs in evaluation mode and without gradients; its mode is restored afterwards. In a
    chain from another library, the layers are called conv1 ... convN, fc(N+1), and so on. In a
    network with branches, they are named by the paths of modules, such as "layer3.0.conv2" (see
    `zfnet.list_layers`), and their activations are what forward hooks see. Maps with channels last
    are transposed to (N, C, H, W).

    Args:
        model: Any network that `torch.fx` can trace.
        x: Images (N, 3, H, W), as `zfnet.preprocess` returns them.
        until: The last layer to compute; None computes all.

    Returns:
        The trace. Its `logits` are None if `until` is given.

    Raises:
        UnsupportedNetwork: If the network cannot be traced, or does not return one tensor.
        UnknownLayer: If `until` is not a layer.
        ValueError: If x is not a finite float batch that fits the network.

    Example:
        >>> import torch, zfnet
        >>> t = zfnet.trace(zfnet.load("imagenet65k"), torch.zeros(1, 3, 224, 224))
        >>> t["conv5"].shape, t.switches["pool1"].shape, t.logits.shape
        (torch.Size([1, 256, 13, 13]), torch.Size([1, 96, 55, 55]), torch.Size([1, 1000]))
    """
    check_input(model, x)
    with evaluating(model), torch.no_grad():
        steps = network_steps(model, x, *([until] if until else []))
        t = run(steps, x)
    return t if until else replace(t, logits=t.output)


def run(
    steps: Sequence[Step],
    x: Tensor,
    *,
    keep: Collection[str] | None = None,
    switches: bool = True,
    visit: Callable[[Step, Tensor], None] | None = None,
) -> Trace:
    """Pass x through the steps in order.

    Args:
        steps: The steps of a network, from `network_steps`.
        x: Images (N, C, H, W), or maps where the steps are the upper part of a network.
        keep: The layers and steps whose outputs the trace keeps; None keeps all. If given, a
            ReLU overwrites its input if nothing else reads it, and outputs are freed early.
        switches: Whether to record the pooling switches.
        visit: Called as `visit(step, output)` after each step. A later step may overwrite the
            output.

    Returns:
        The trace.
    """
    outputs: dict[str, Tensor] = {}
    index: dict[str, Tensor] = {}
    shapes: dict[str, torch.Size | tuple[torch.Size, ...]] = {}
    layers = set(layers_of(steps))
    readers = Counter(name for _, inputs in with_inputs(steps) for name in inputs)
    values: dict[str, Any] = {"": x}
    signal = x
    for step, inputs in with_inputs(steps):
        read = [values[name] for name in inputs]
        shapes[step.name] = _shapes_of(read)
        readers.subtract(inputs)
        if keep is not None:
            for name in inputs:
                if not readers[name]:
                    values.pop(name, None)
        if switches and isinstance(step.module, (nn.MaxPool2d, nn.AdaptiveMaxPool2d)):
            signal, index[step.name] = max_pool(step.module, read[0])
        elif (
            keep is not None
            and isinstance(step.module, nn.ReLU)
            and not _shared(read[0], x, *outputs.values(), *values.values())
        ):
            signal = read[0].relu_()
        else:
            signal = apply(step.module, *read)
        if readers[step.name]:
            values[step.name] = signal
        for name in output_names(step, layers):
            if keep is None or name in keep:
                outputs[name] = signal
        if visit:
            visit(step, signal)
    return Trace(tuple(steps), outputs, index, shapes, x, signal)


def output_names(step: Step, layers: Collection[str]) -> set[str]:
    """Return the names under which a trace keeps a step's output.

    In a chain "conv1" is the layer's rectified map, not the output of the module of that name.
    """
    if step.inputs is not None:
        return {step.name, *step.paths} if step.name not in layers else set(step.paths)
    names = {step.name, *step.paths} - set(layers)
    return names | {step.layer} if step.layer else names


def apply(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Return a module's output without overwriting its inputs, as torchvision's ReLUs would do."""
    if isinstance(module, nn.ReLU):
        return F.relu(inputs[0])
    if (isinstance(module, Call) and module.in_place()) or getattr(module, "inplace", False):
        return module(inputs[0].clone(), *inputs[1:])
    return module(*inputs)


def _shared(signal: Tensor, *others: object) -> bool:
    """Whether a signal shares memory with another tensor, as a view does."""
    storage = signal.untyped_storage().data_ptr()
    tensors = (other for other in others if isinstance(other, Tensor))
    return any(storage == other.untyped_storage().data_ptr() for other in tensors)


def max_pool(module: nn.MaxPool2d | nn.AdaptiveMaxPool2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return pooled maps and switches (N, C, h, w), flat indices into the H x W maps.

    CPUs pool ten times faster when maps are channels last, so other maps are copied first.
    """
    if isinstance(module, nn.AdaptiveMaxPool2d):
        return F.adaptive_max_pool2d(x, module.output_size, return_indices=True)  # pyright: ignore
    window = (module.kernel_size, module.stride, module.padding, module.dilation)
    memory_format = layout(x)
    if x.device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last)
    pooled, switches = F.max_pool2d(x, *window, module.ceil_mode, return_indices=True)
    return pooled.contiguous(memory_format=memory_format), switches


def layout(x: Tensor) -> torch.memory_format:
    """Return the memory format of maps.

    Convolutions round differently in each, which can move a switch between near-equal cells.
    """
    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


def _repeat_shapes(shapes: Any, count: int) -> Any:
    """The shapes for `count` images in place of one."""
    if isinstance(shapes, torch.Size):
        return torch.Size((count, *shapes[1:]))
    return tuple(_repeat_shapes(shape, count) for shape in shapes)


def _shapes_of(values: Sequence[object]) -> torch.Size | tuple[torch.Size, ...]:
    """The shape of a step's input, or of each input; empty for inputs that are not tensors."""
    shapes = tuple(v.shape if isinstance(v, Tensor) else torch.Size() for v in values)
    return shapes[0] if len(shapes) == 1 else shapes
