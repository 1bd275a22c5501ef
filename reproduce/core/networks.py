"""The network of a run: its differences from the paper's, and its filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from reproduce.core.stages import STAGES, has_stages
from zfnet.graph import UnknownLayer, UnsupportedNetwork, chain, graph_steps, step_layers
from zfnet.model import Network
from zfnet.training.evaluate import first_dense

if TYPE_CHECKING:
    from reproduce.core.context import Context
    from reproduce.core.figure import Figure

PAPER_UNITS = {  # feature maps and units of Fig. 3
    "conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256, "fc6": 4096, "fc7": 4096,
}  # fmt: skip


def differences_from_paper(model: Network) -> str:
    """A sentence on how a network of ours differs from the paper's; "" if it does not."""
    if model.arch != "zfnet":
        return f"This network is not the paper's, but {model.arch}. "
    layers = dict(model.named_children())
    differences = [f"no layer {name[-1]}" for name in PAPER_UNITS if name not in layers]
    for name, count in PAPER_UNITS.items():
        units = len(cast(torch.Tensor, layers[name].weight)) if name in layers else count
        if units != count:
            kind = "maps" if name.startswith("conv") else "units"
            differences.append(f"{units:,} {kind} in layer {name[-1]}")
    if has_shared_fc6(model):
        differences.append("a first dense layer that sees only the mean of each map")
    if not any(name.startswith("norm") for name in layers):
        differences.append("no contrast normalization")
    return f"Unlike the paper's, this network has {', '.join(differences)}. " if differences else ""


def has_shared_fc6(model: Network) -> bool:
    """Whether fc6 has one weight for all positions of a map, so that it sees only its mean."""
    layer = first_dense(model)
    weight = layer.weight.view(
        layer.out_features, model.table[-1].channels, -1
    )  # (units, maps, cells)
    return weight.shape[2] > 1 and bool((weight == weight[..., :1]).all())


def conv_weight(model: Network, layer: str) -> torch.Tensor:
    """The weights of a convolutional layer (maps, slices, rows, columns), on the CPU.

    Args:
        model: A chain of layers, or a network of `stages.name_stages`.
        layer: Name of the layer, such as "conv1".

    Raises:
        UnknownLayer: The network has no convolutional layer of that name.
    """
    weight = None
    for step in graph_steps(model):
        if isinstance(step.module, torch.nn.Conv2d):
            weight = step.module.weight
        # The step whose output is the layer's activation: mostly the ReLU after the convolution.
        if layer in step_layers(step) and weight is not None:
            return weight.detach().cpu()
    raise UnknownLayer(f"no convolutional layer {layer!r}")


def unsupported_network(figure: Figure, context: Context) -> str:
    """Return why a figure cannot be made with a torchvision network; "" if it can."""
    if not (figure.uses_model and context.from_torchvision) or figure.network == "any":
        return ""
    name = context.network_name
    if figure.network == "zfnet":
        return f"It needs a network of this package, and {name} is torchvision's."
    if figure.network == "layers" and has_stages(context.model):
        return ""
    try:
        chain(context.model)
    except UnsupportedNetwork:
        if figure.network == "chain":
            return (
                f"It needs a chain of layers: {name} is not a chain of convolutions, ReLUs and "
                "poolings."
            )
        return (
            f"It needs layers {STAGES[0]} to {STAGES[-1]}: {name} is no chain, and it has not five "
            "stages whose maps halve in size."
        )
    return ""
