"""Names of the paper's layers for networks with branches: five stages, and the code of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.fx.proxy import TraceError

from zfnet.graph import UnsupportedNetwork, chain
from zfnet.graph.operations import WEIGHTED

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")
CODE = "fc7"  # what the last layer reads
HALVED = 0.6  # a smaller ratio of two maps' sides begins a stage


class _Called(nn.Module):
    """Holds a network, so that its modules do not have the names of stages."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


def name_stages(model: nn.Module, size: int) -> fx.GraphModule:
    """Name the stages of a network as the paper names its layers.

    A stage ends with the last maps before their side halves. ResNet, DenseNet, GoogLeNet and
    MobileNet have five: conv1 to conv5. What the last layer reads is fc7. The names belong to
    modules that return their input, so that every function of the package finds them.

    Args:
        model: A network with branches, in evaluation mode.
        size: Side of its input in pixels.

    Returns:
        The network with the same parameters and outputs.

    Raises:
        UnsupportedNetwork: The network cannot be traced, or has another number of stages.

    Example:
        >>> from torchvision.models import resnet18
        >>> staged = name_stages(resnet18().eval(), 224)
        >>> [name for name, _ in staged.named_children()]
        ['network', 'conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc7']
    """
    name = type(model).__name__
    try:
        traced = fx.symbolic_trace(_Called(model))
        with torch.no_grad():
            weight = next(model.parameters())
            ShapeProp(traced).propagate(torch.zeros(1, 3, size, size).to(weight))
    except (TraceError, RuntimeError, TypeError) as error:
        raise UnsupportedNetwork(f"{name} cannot be traced: {error}") from None
    ends = _stage_ends(traced)
    if len(ends) != len(STAGES):
        raise UnsupportedNetwork(f"{name} has {len(ends)} stages of maps, not {len(STAGES)}")
    for stage, node in zip(STAGES, ends, strict=True):
        _insert(traced, stage, node)
    last = [node for node in traced.graph.nodes if _is_weighted(traced, node)][-1]
    _insert(traced, CODE, last.args[0], reader=last)
    traced.recompile()
    return traced.eval()


def with_paper_layers(model: nn.Module) -> nn.Module:
    """Name the stages of a network with branches; other networks are returned as they are."""
    network: Any = model
    try:
        chain(model)
        return model
    except UnsupportedNetwork:
        pass
    try:
        staged: Any = name_stages(model, network.size)
    except UnsupportedNetwork:
        return model
    staged.classes, staged.wnids, staged.size = network.classes, network.wnids, network.size
    return staged


def has_stages(model: nn.Module) -> bool:
    """Whether `name_stages` made the network."""
    return isinstance(model, fx.GraphModule) and hasattr(model, CODE)


def _stage_ends(traced: fx.GraphModule) -> list[fx.Node]:
    """The last operation of each stage, by the sides of its maps."""
    ends: list[fx.Node] = []
    side = 0
    for node in traced.graph.nodes:
        shape = getattr(node.meta.get("tensor_meta"), "shape", ())
        if node.op == "placeholder" or len(shape) != 4 or shape[-1] == 1:
            continue
        if not ends or shape[-1] < HALVED * side:
            ends.append(node)
            side = shape[-1]
        elif shape[-1] >= HALVED * side:
            ends[-1] = node
    return ends


def _insert(
    traced: fx.GraphModule, name: str, node: fx.Node, reader: fx.Node | None = None
) -> None:
    """Insert a named module after an operation, for one reader or for all."""
    traced.add_submodule(name, nn.Identity())
    with traced.graph.inserting_after(node):
        named = traced.graph.call_module(name)
    if reader is None:
        node.replace_all_uses_with(named)
    else:
        reader.replace_input_with(node, named)
    named.args = (node,)


def _is_weighted(traced: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), WEIGHTED)
