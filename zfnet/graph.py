"""The layers of a network: its forward pass as a graph of named operations.

`graph_steps` lists the operations of any `nn.Module` that `torch.fx` can trace: modules and
functions, reused and in-place ones. The deconvnet inverts them one by one, from top to bottom.

A network that is a chain, such as ZFNet, AlexNet and VGG, has the layers conv1, ..., convN, and
then fc(N+1), ...: rectified, before pooling. In a network with branches a layer has the path of its
module, such as "layer3.0.conv2" or "features.denseblock2", and is what that module returns, as a
forward hook sees it. A module that is called several times means its last call.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import nn

from zfnet.model import Network
from zfnet.normalization import PaperInput
from zfnet.operations import (
    BATCHNORMS,
    IDENTITIES,
    NORMS,
    WEIGHTED,
    Call,
    UnsupportedNetwork,
)
from zfnet.paper_names import completed_layers, name_as_in_paper
from zfnet.steps import Step, Traced, trace_steps
from zfnet.tracing import is_leaf, unwrap

# What a chain may have, for the receptive-field arithmetic and the accelerations of chains.
CHAIN_MODULES = (
    *WEIGHTED, *BATCHNORMS, *NORMS, *IDENTITIES, nn.ReLU, nn.MaxPool2d, nn.Flatten,
    nn.AdaptiveAvgPool2d, PaperInput,
)  # fmt: skip


class UnknownLayer(KeyError):
    """A layer that the network does not have. The message lists the layers that it has."""

    def __str__(self) -> str:
        return str(self.args[0])


def graph_steps(model: nn.Module, *, to_result: bool = False) -> list[Step]:
    """List the operations of a network's forward pass in evaluation mode, in order.

    Args:
        model: The network. DataParallel and torch.compile are unwrapped.
        to_result: Whether to keep only what the result depends on, and to require that the result
            is one tensor. Otherwise side branches that end in a module's output are kept too.

    Returns:
        The steps. In a chain each reads the one before, and the layers are named as in the paper.

    Raises:
        UnsupportedNetwork: If the forward pass cannot be traced. The message names the line.
    """
    inner = unwrap(model)
    leaves = _sequential_leaves(inner)
    if leaves is not None and any(isinstance(module, WEIGHTED) for _, module in leaves):
        return _name_chain(inner, leaves)
    traced = trace_steps(inner)
    if to_result:
        traced = _only_result(inner, traced)
    steps = traced.steps
    if _is_sequence(traced):
        named = _name_chain(inner, [(step.name, step.module) for step in steps])
        return [replace(new, paths=old.paths) for new, old in zip(named, steps, strict=True)]
    return steps


def chain(model: nn.Module) -> list[Step]:
    """List the operations of a network that is a chain of convolutions, ReLUs and poolings.

    Args:
        model: The network.

    Returns:
        The steps, from the input to the logits.

    Raises:
        UnsupportedNetwork: If the network has branches, or other operations.
    """
    steps = graph_steps(model)
    if not is_chain(steps):
        part = next(
            step for step in steps if step.inputs is not None or not _is_chain_module(step.module)
        )
        raise UnsupportedNetwork(
            f"{type(unwrap(model)).__name__} is not a chain of convolutions, ReLUs and poolings: "
            f"{part.name} is a {_operation(part)}"
        )
    return steps


def is_chain(steps: Sequence[Step]) -> bool:
    """Whether each step reads the one before, and is of a kind that chains have.

    An adaptive pooling is the last of a chain's poolings and convolutions.
    """
    last: nn.Module | None = None
    for step in steps:
        if step.inputs is not None or not _is_chain_module(step.module):
            return False
        if isinstance(step.module, (nn.Conv2d, nn.MaxPool2d)):
            if isinstance(last, nn.AdaptiveAvgPool2d):
                return False
            last = step.module
        elif isinstance(step.module, nn.AdaptiveAvgPool2d):
            last = step.module
    return True


def wired(steps: Sequence[Step]) -> Iterator[tuple[Step, tuple[str, ...]]]:
    """Yield each step with the names of the steps that it reads; "" is what enters the first."""
    below = ""
    for step in steps:
        yield step, (below,) if step.inputs is None else step.inputs
        below = step.name


def layer_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    """Return layer names, given as one string or as several, without repetition."""
    return (layers,) if isinstance(layers, str) else tuple(dict.fromkeys(layers))


def layers_of(steps: Sequence[Step]) -> list[str]:
    """Return the names of the layers, in order: conv1, ..., fc8, or the paths of modules."""
    if all(step.inputs is None for step in steps):
        return [step.layer for step in steps if step.layer]
    return [path for step in steps for path in step.paths]


def names_of(step: Step) -> tuple[str, ...]:
    """Return the layers that a step completes."""
    return (step.layer,) if step.layer else step.paths if step.inputs is not None else ()


def conv_layers(steps: Sequence[Step]) -> list[str]:
    """Return the names of the convolutional layers, in order."""
    return [step.name for step in steps if isinstance(step.module, nn.Conv2d)]


def channels_of(steps: Sequence[Step]) -> int:
    """Return the number of features of the last step."""
    if (shape := steps[-1].shape) is not None:
        return shape[0]
    weighted = [step.module for step in steps if isinstance(step.module, WEIGHTED)]
    return weighted[-1].weight.shape[0]


def steps_until(steps: Sequence[Step], *names: str) -> list[Step]:
    """Return the steps that the named layers or steps depend on. Raises UnknownLayer."""
    targets = {name: find_step(steps, name).name for name in names}
    if all(step.inputs is None for step in steps):
        order = [step.name for step in steps]
        return list(steps[: 1 + max(order.index(target) for target in targets.values())])
    return _ancestors(steps, set(targets.values()))


def find_step(steps: Sequence[Step], name: str) -> Step:
    """Return the step that a layer, step or module path names. Raises UnknownLayer."""
    for match in (
        lambda step: step.layer == name,
        lambda step: name in step.paths,
        lambda step: step.name == name,
    ):
        step = next((step for step in reversed(steps) if name and match(step)), None)
        if step:
            return step
    raise unknown_layer(name, layers_of(steps))


def check_layers(steps: Sequence[Step], layers: Sequence[str]) -> None:
    """Raise UnknownLayer for an unknown name, UnsupportedNetwork for a layer without maps."""
    available = layers_of(steps)
    for layer in layers:
        if layer not in available:
            raise unknown_layer(layer, available)
        shape = find_step(steps, layer).shape
        if shape is not None and len(shape) not in (1, 3):
            raise UnsupportedNetwork(
                f"{layer} returns {('N', *shape)}, neither maps (N, C, H, W) nor vectors (N, C)"
            )


def unknown_layer(name: str, available: Sequence[str]) -> UnknownLayer:
    """Return the error for a layer that the network does not have."""
    top = [layer for layer in available if "." not in layer] or list(available)
    near = difflib.get_close_matches(str(name), [n for n in available if n not in top], 3)
    near = f"; did you mean {' or '.join(near)}?" if near else ""
    return UnknownLayer(f"no layer {name!r}; the network has {', '.join(top)}{near}")


def find_module(model: nn.Module, layer: str) -> tuple[nn.Module, int]:
    """Find the module that completes a layer, and which of its calls does.

    Args:
        model: The network.
        layer: A name as in `zfnet.trace`, or the path of a module.

    Returns:
        The module, and the number of the call, from 0. The number is -1, the last call, for a path.

    Raises:
        UnknownLayer: If there is no such layer or module.
        UnsupportedNetwork: If the network is scripted, so that its modules cannot be observed.
    """
    inner, steps = unwrap(model), []
    with suppress(UnsupportedNetwork):
        steps = [step for step in graph_steps(model) if step.inputs is None]
    for i, step in reversed(list(enumerate(steps))):
        if layer in (step.layer, step.name):
            return step.module, sum(earlier.module is step.module for earlier in steps[:i])
    for network in (inner, model):  # a wrapper's own paths begin with "module." or "_orig_mod."
        with suppress(AttributeError):
            module = network.get_submodule(layer or "no name")
            unwrap(module)  # raises for TorchScript, which has no hooks
            return module, -1
    raise unknown_layer(layer, layers_of(steps) or [name for name, _ in inner.named_children()])


def _operation(step: Step) -> str:
    """The operation of a step, in words."""
    name = step.module.extra_repr() if isinstance(step.module, Call) else type(step.module).__name__
    return name + (f" of {' and '.join(step.inputs)}" if step.inputs and step.inputs[1:] else "")


def _sequential_leaves(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """List the paths and modules of nested `nn.Sequential`s; None for any other network."""
    leaves: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Sequential):
            hooked = module._forward_hooks or module._forward_pre_hooks
            if type(module).forward is not nn.Sequential.forward or hooked:
                return None
        elif is_leaf(module):
            leaves.append((path, module))
        else:
            return None
    return leaves if isinstance(model, nn.Sequential) and leaves else None


def _only_result(model: nn.Module, traced: Traced) -> Traced:
    """Leave out the side branches. Raises UnsupportedNetwork unless the result is one tensor."""
    if traced.result is None:
        raise UnsupportedNetwork(
            f"{type(model).__name__} returns {traced.kind}; wrap it in a module that returns the "
            "logits alone"
        )
    return replace(traced, steps=_ancestors(traced.steps, {traced.result}))


def _is_sequence(traced: Traced) -> bool:
    """Whether each step reads exactly the one before, and one of them has weights."""
    below = ["", *(step.name for step in traced.steps)]
    reads = all(step.inputs == (b,) for step, b in zip(traced.steps, below, strict=False))
    weighted = any(isinstance(step.module, WEIGHTED) for step in traced.steps)
    return reads and weighted and traced.result == below[-1]


def _name_chain(model: nn.Module, leaves: Sequence[tuple[str, nn.Module]]) -> list[Step]:
    """Return the steps of a chain, named as in the paper."""
    named = leaves if type(model) is Network else name_as_in_paper(leaves)
    layers = completed_layers(named)
    return [
        Step(name, module, layer, None, (path,))
        for (name, module), layer, (path, _) in zip(named, layers, leaves, strict=True)
    ]


def _ancestors(steps: Sequence[Step], names: set[str]) -> list[Step]:
    """Return the named steps and what they depend on."""
    needed = set(names)
    for step, inputs in reversed(list(wired(steps))):
        if step.name in needed:
            needed |= set(inputs)
    return [step for step in steps if step.name in needed]


def _is_chain_module(module: nn.Module) -> bool:
    kind = next((kind for kind in CHAIN_MODULES if isinstance(module, kind)), None)
    if isinstance(module, BATCHNORMS) and module.running_mean is None:
        return False  # normalizes by the batch
    return kind is not None and type(module).forward is kind.forward
