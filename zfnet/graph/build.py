"""List the operations of a network: chains by their modules, other networks by tracing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from zfnet.graph.layers import ancestors
from zfnet.graph.operations import (
    BATCHNORMS,
    IDENTITIES,
    NORMS,
    WEIGHTED,
    Call,
    UnsupportedNetwork,
)
from zfnet.graph.paper_names import completed_layers, name_as_in_paper
from zfnet.graph.steps import Step, Traced, trace_steps
from zfnet.graph.tracing import is_leaf, unwrap
from zfnet.model import Network
from zfnet.normalization import PaperInput

# What a chain may have, for the receptive-field arithmetic and the accelerations of chains.
CHAIN_MODULES = (
    *WEIGHTED, *BATCHNORMS, *NORMS, *IDENTITIES, nn.ReLU, nn.MaxPool2d, nn.Flatten,
    nn.AdaptiveAvgPool2d, PaperInput,
)  # fmt: skip


def graph_steps(model: nn.Module, *, to_result: bool = False) -> list[Step]:
    """List the operations of a network's forward pass in evaluation mode, in order.

    Args:
        model: The network. DataParallel and torch.compile are unwrapped.
        to_result: Whether to keep only what the result depends on, and to require that the result
            is one tensor. Otherwise side branches that end in a module's output are kept too.

    Returns:
        The steps. In a chain, each reads the previous one, and layers are named as in the paper.

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
    """Whether each step reads the previous one and is of a type that chains support.

    In a chain, no convolution or pooling follows an adaptive pooling.
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
    return replace(traced, steps=ancestors(traced.steps, {traced.result}))


def _is_sequence(traced: Traced) -> bool:
    """Whether each step reads exactly the previous one, and one of them has weights."""
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


def _is_chain_module(module: nn.Module) -> bool:
    kind = next((kind for kind in CHAIN_MODULES if isinstance(module, kind)), None)
    if isinstance(module, BATCHNORMS) and module.running_mean is None:
        return False  # normalizes by the batch
    return kind is not None and type(module).forward is kind.forward
