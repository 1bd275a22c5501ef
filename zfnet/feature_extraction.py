"""Extract the activations of layers, in any network, with or without gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from zfnet.forward import run
from zfnet.graph import (
    Hook,
    Step,
    UnsupportedNetwork,
    check_layers,
    find_module,
    network_steps,
    with_shapes,
)
from zfnet.model import evaluating
from zfnet.outputs import IndependentImages, normalizes_by_batch
from zfnet.validation import check_input

CHAIN_NEEDED = "rectified=False needs a network that is a chain of modules"
Reader = Callable[[Tensor], dict[str, Tensor]]


def feature_extractor(
    model: nn.Module, x: Tensor, layers: Sequence[str], *, rectified: bool = True
) -> Reader:
    """Return a differentiable function from images to the activations of layers.

    Args:
        model: Any network. In a chain of modules, nothing above the highest layer is computed.
        x: Images (N, 3, H, W) of the size that will be passed to the function.
        layers: Layer names, or module paths in a network with branches.
        rectified: Return activations after the layer's ReLU; False requires a chain.

    Returns:
        A function that maps images (B, 3, H, W) to activations (B, C, h, w) or (B, C) by name.

    Raises:
        UnknownLayer: If a name is not a layer.
        UnsupportedNetwork: If a module does not return maps or vectors.
        ValueError: If x does not fit the network.

    Example:
        >>> import torch, zfnet
        >>> read = feature_extractor(zfnet.mnist(), torch.zeros(1, 3, 28, 28), ("conv1", "conv2"))
        >>> {name: tuple(maps.shape) for name, maps in read(torch.zeros(5, 3, 28, 28)).items()}
        {'conv1': (5, 16, 24, 24), 'conv2': (5, 32, 8, 8)}
    """
    check_input(model, x)
    with evaluating(model), torch.no_grad():
        read = layer_reader(model, x, layers, rectified)
        read(x[:1])  # fail early if a layer cannot be read

    def extract(images: Tensor) -> dict[str, Tensor]:
        with evaluating(model):
            # The copy protects the images from in-place modules. Channels last is faster on CPUs.
            return read(images.clone(memory_format=torch.channels_last))

    return extract


def layer_reader(
    model: nn.Module, x: Tensor, layers: Sequence[str], rectified: bool = True
) -> Reader:
    """Return a function that reads layers: step by step in a chain, by hooks in other networks.

    The caller checks x and puts the network into evaluation mode. Arguments and errors are those of
    `feature_extractor`.
    """
    try:
        steps = network_steps(model, x, *layers)
    except UnsupportedNetwork as error:
        if not rectified:
            raise UnsupportedNetwork(f"{CHAIN_NEEDED}: {error}") from None
        modules = {layer: find_module(model, layer) for layer in layers}
        return partial(_read_by_hooks, model, modules)
    check_layers(steps, layers)
    if any(step.inputs is not None for step in steps):
        if not rectified:
            raise UnsupportedNetwork(f"{CHAIN_NEEDED}; {type(model).__name__} has branches")
        return partial(_read_branches, steps, layers)
    return partial(_read_steps, steps, layers, rectified)


def _read_branches(steps: Sequence[Step], layers: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Return the outputs of layers in a network with branches, and compute nothing above them."""
    t = run(with_shapes(steps, x), x, keep=layers, switches=False)
    return {layer: t[layer] for layer in layers}


def _read_steps(
    steps: Sequence[Step], layers: Sequence[str], rectified: bool, x: Tensor
) -> dict[str, Tensor]:
    """Return the activations of layers in a chain of steps, in the order of the chain."""
    with_shapes(steps, x)  # x may have another size than the images that built the steps
    ends = {step.layer: i for i, step in enumerate(steps) if step.layer and step.layer in layers}
    if not rectified:
        ends = {layer: i - isinstance(steps[i].module, nn.ReLU) for layer, i in ends.items()}
    names = {layer: steps[i].name for layer, i in ends.items()}
    t = run([replace(step, layer=None) for step in steps], x, keep=names.values(), switches=False)
    return {layer: t[name] for layer, name in names.items()}


def _read_by_hooks(
    model: nn.Module, modules: Mapping[str, tuple[nn.Module, int]], x: Tensor
) -> dict[str, Tensor]:
    """Return the outputs of modules in the network's forward pass, by temporary hooks."""
    if len(x) > 1 and normalizes_by_batch(model):
        parts = [_read_by_hooks(model, modules, image) for image in x.split(1)]
        return {layer: torch.cat([part[layer] for part in parts]) for layer in modules}
    with ExitStack() as stack:
        hooks = {layer: stack.enter_context(Hook(*module)) for layer, module in modules.items()}
        stack.enter_context(IndependentImages(model, x))
        model(x)
    for layer, hook in hooks.items():
        if hook.maps is None or hook.maps.ndim not in (2, 4) or len(hook.maps) != len(x):
            output = "no tensor" if hook.maps is None else tuple(hook.maps.shape)
            raise UnsupportedNetwork(
                f"{layer} must return maps (N, C, H, W) or vectors (N, C), got {output}"
            )
    return {layer: hook.maps for layer, hook in hooks.items() if hook.maps is not None}
