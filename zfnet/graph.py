"""The layers of a network, as a list of named steps.

The deconvnet inverts a network step by step, so it needs the modules that a forward pass applies,
in order. `chain` lists them for ZFNet, for any `nn.Sequential`, and for networks such as
torchvision's AlexNet and VGG. It rejects a network that is not its modules one after the other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.model import Network
from zfnet.normalization import LocalResponseNorm, PaperInput
from zfnet.validation import wrap_shape_errors

NORMS = (LocalResponseNorm, nn.LocalResponseNorm)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WEIGHTED = (nn.Conv2d, nn.Linear)
INVERTIBLE = (
    *WEIGHTED, *BATCHNORMS, *NORMS, *IDENTITIES, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.AdaptiveAvgPool2d, PaperInput,
)  # fmt: skip


class UnsupportedNetwork(TypeError):
    """A network that the deconvnet cannot invert. The message names the part at fault."""


class UnknownLayer(KeyError):
    """A layer that the network does not have. The message lists the layers that it has."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Step:
    """One module of the forward pass.

    Attributes:
        name: The name of the module: conv1, relu1, pool1, norm1, ..., fc8.
        module: The module.
        layer: The layer whose activation this module completes, or None. The ReLU completes conv1;
            conv1 itself does where no ReLU follows.
    """

    name: str
    module: nn.Module
    layer: str | None = None


def chain(model: nn.Module, x: Tensor) -> list[Step]:
    """List the modules that the network applies, in order and named by layer.

    A network that is not ours is verified with one forward pass over x and noise: each module must
    receive what the previous one returned, and nothing else may change the signal.

    Args:
        model: The network.
        x: One image (1, 3, H, W).

    Returns:
        The steps, from the input to the logits.

    Raises:
        UnsupportedNetwork: If the network is not a chain of invertible modules.
        ValueError: If x does not fit the network.
    """
    inner = _unwrap(model)
    leaves = _leaves(inner)
    for path, module in leaves:
        _check_invertible(model, path, module)
    named = leaves if type(inner) is Network else _name_as_in_paper(leaves)
    if type(model) is not Network:
        _verify(inner, named, x)
    layers = _completed_layers(named)
    return [Step(name, module, layer) for (name, module), layer in zip(named, layers, strict=True)]


def layer_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    """Return layer names, given as one string or as several, without repetition."""
    return (layers,) if isinstance(layers, str) else tuple(dict.fromkeys(layers))


def layers_of(steps: Sequence[Step]) -> list[str]:
    """Return the names of the layers with weights, in order: conv1, ..., fc8."""
    return [step.layer for step in steps if step.layer]


def conv_layers(steps: Sequence[Step]) -> list[str]:
    """Return the names of the convolutional layers, in order."""
    return [step.name for step in steps if isinstance(step.module, nn.Conv2d)]


def channels_of(steps: Sequence[Step]) -> int:
    """Return the number of features of the last layer with weights."""
    weighted = [step.module for step in steps if isinstance(step.module, WEIGHTED)]
    return weighted[-1].weight.shape[0]


def steps_until(steps: Sequence[Step], *names: str) -> list[Step]:
    """Return the steps up to the highest of the named layers or steps. Raises UnknownLayer."""
    ends = {step.name: i + 1 for i, step in enumerate(steps)}
    ends |= {step.layer: i + 1 for i, step in enumerate(steps) if step.layer}
    for name in names:
        if name not in ends:
            raise unknown_layer(name, layers_of(steps))
    return list(steps[: max(ends[name] for name in names)])


def check_layers(steps: Sequence[Step], layers: Sequence[str]) -> None:
    """Raise UnknownLayer for a name that is not a layer with weights."""
    for layer in layers:
        if layer not in layers_of(steps):
            raise unknown_layer(layer, layers_of(steps))


def unknown_layer(name: str, available: Sequence[str]) -> UnknownLayer:
    """Return the error for a layer that the network does not have."""
    return UnknownLayer(f"no layer {name!r}; the network has {', '.join(available)}")


def module_of(model: nn.Module, layer: str, x: Tensor) -> tuple[nn.Module, int]:
    """Find the module that completes a layer, and which of its calls does.

    Args:
        model: The network.
        layer: A name as in `zfnet.trace`; in a network that is not a chain, the path of a module.
        x: One image (1, 3, H, W).

    Returns:
        The module, and the number of the call, from 0. The number is -1, the last call, for a path.

    Raises:
        UnknownLayer: If there is no such layer or module.
    """
    steps: list[Step] = []
    with suppress(UnsupportedNetwork), torch.no_grad():
        steps = chain(model, x[:1])
    for i, step in reversed(list(enumerate(steps))):
        if layer in (step.layer, step.name):
            return step.module, sum(earlier.module is step.module for earlier in steps[:i])
    try:
        return model.get_submodule(layer or "no name"), -1
    except AttributeError:
        raise unknown_layer(
            layer, layers_of(steps) or [name for name, _ in model.named_children()]
        ) from None


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DistributedDataParallel and torch.compile."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    return getattr(model, "_orig_mod", model)


def _leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules without children, with their paths. One ReLU may serve several layers."""
    modules = model.named_modules(remove_duplicate=False)
    return [
        (path, module) for path, module in modules if path and next(module.children(), None) is None
    ]


def _check_invertible(model: nn.Module, path: str, module: nn.Module) -> None:
    """Raise UnsupportedNetwork for a module without a rule on the way down."""
    kind = next((kind for kind in INVERTIBLE if isinstance(module, kind)), None)
    if (
        kind is None or type(module).forward is not kind.forward
    ):  # a subclass may compute something else
        raise UnsupportedNetwork(
            f"{type(model).__name__}: {path} is a {type(module).__name__}, which the deconvnet cannot invert; "
            "it needs convolutions, ReLU modules, max pooling, normalization and dense layers, as in VGG"
        )
    if isinstance(module, BATCHNORMS) and module.running_mean is None:
        raise UnsupportedNetwork(
            f"{type(model).__name__}: {path} normalizes by the batch even in evaluation mode; it needs running statistics"
        )


def _name_as_in_paper(leaves: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Name modules conv1, relu1, ..., unless all layers have such names; flatten before dense ones."""
    kinds = {nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.BatchNorm2d: "bn", nn.BatchNorm1d: "bn"}
    kinds |= {nn.Dropout: "drop", nn.Conv2d: "conv", nn.Linear: "fc"} | dict.fromkeys(NORMS, "norm")

    def kind_of(module: nn.Module) -> str | None:
        return next((name for kind, name in kinds.items() if isinstance(module, kind)), None)

    weighted = [(path, kind_of(module)) for path, module in leaves if isinstance(module, WEIGHTED)]
    keep = all(re.fullmatch(rf"{kind}\d+", path) for path, kind in weighted)
    named: list[tuple[str, nn.Module]] = []
    number, used = 0, set()
    for path, module in leaves:
        if isinstance(module, nn.Linear) and not any(
            isinstance(m, (nn.Flatten, nn.Linear)) for _, m in named
        ):
            named.append(("flatten", nn.Flatten()))
        number += isinstance(module, WEIGHTED)
        kind = kind_of(module)
        name = f"{kind}{number}" if kind and not keep else path
        name = path if name in used else name  # a second dropout of one layer, for example
        used.add(name)
        named.append((name, module))
    return named


def _completed_layers(named: list[tuple[str, nn.Module]]) -> list[str | None]:
    """For each module, return the layer whose activation it completes, or None.

    A layer ends with its ReLU, else with the last of its weights and BatchNorm.
    """
    completed: list[str | None] = [None] * len(named)
    layer, end = None, 0
    for i, (name, module) in enumerate(named):
        if isinstance(module, WEIGHTED):
            layer, end = name, i
        elif layer and isinstance(module, (*BATCHNORMS, nn.ReLU)):
            completed[end] = None
            end = i
        else:
            layer = None  # pooling, normalization and dropout come after the activation
        if layer:
            completed[end] = layer
    return completed


def _verify(model: nn.Module, named: list[tuple[str, nn.Module]], x: Tensor) -> None:
    """Raise UnsupportedNetwork unless the network applies the named modules one after the other.

    All inputs and outputs are compared, because a new last layer may be zero and hide a difference.
    So may a gray image in a network without biases, for which noise is passed too.
    """
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    images = torch.cat([x, noise])
    calls, logits = _record_calls(model, named, images)
    previous: Signal = (images, images)
    waiting = iter(calls)
    call = next(waiting, None)
    for i, (_, module) in enumerate(named):
        if call is None or module is not call[0]:
            if isinstance(
                module, (*IDENTITIES, nn.Flatten)
            ):  # an unused dropout, or our own flattening
                continue
            raise _not_a_chain(model)
        _, received, returned = call
        if not received or not returned or not _same(previous, received, is_input=i == 0):
            raise _not_a_chain(model)
        previous = returned
        call = next(waiting, None)
    if (
        call is not None
        or not isinstance(logits, Tensor)
        or not _same(previous, _with_copy(logits))
    ):
        raise _not_a_chain(model)


Signal = tuple[Tensor, ...]  # a tensor and a copy of its values; empty for anything else


def _record_calls(
    model: nn.Module, named: list[tuple[str, nn.Module]], images: Tensor
) -> tuple[list[tuple[nn.Module, Signal, Signal]], object]:
    """Run the network once; return each module call with its input and output, and the result."""
    calls: list[tuple[nn.Module, Signal, Signal]] = []
    thread = threading.get_ident()

    def before(module: nn.Module, inputs: tuple) -> None:
        if threading.get_ident() == thread:
            calls.append((module, _with_copy(inputs[0] if inputs else None), ()))

    def after(module: nn.Module, inputs: tuple, output: object) -> None:
        if threading.get_ident() == thread:
            calls[-1] = (*calls[-1][:2], _with_copy(output))

    with ExitStack() as hooks, wrap_shape_errors(images[:1]):
        for module in dict.fromkeys(module for _, module in named):
            for handle in (
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after),
            ):
                hooks.callback(handle.remove)
        logits = model(images.clone())  # the network may begin in place
    return calls, logits


def _not_a_chain(model: nn.Module) -> UnsupportedNetwork:
    return UnsupportedNetwork(
        f"{type(model).__name__} cannot be inverted: its forward pass is not its modules one after the other "
        "(residual connections, or functional ReLU or pooling, which leave no switch to follow)"
    )


def _with_copy(value: object) -> Signal:
    return (value, value.clone()) if isinstance(value, Tensor) else ()


def _same(returned: Signal, received: Signal, *, is_input: bool = False) -> bool:
    """Whether a module received the memory that the previous one returned, unchanged.

    Flattening copies a tensor that is not contiguous, so there only the values must agree.
    """
    (memory, before), (other_memory, after) = returned, received
    if before.numel() != after.numel():
        return False
    if not torch.allclose(before.reshape(after.shape), after, rtol=0, atol=0, equal_nan=True):
        return False
    return is_input or memory.data_ptr() == other_memory.data_ptr() or not memory.is_contiguous()
