"""The feature maps of a layer, or the last ones, with the logits of the same forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Target, forward, logit_gradient
from zfnet.attribution.gradients import resolve_classes
from zfnet.forward import run
from zfnet.graph import (
    Hook,
    Step,
    UnknownLayer,
    UnsupportedNetwork,
    channels_last_steps,
    find_module,
    find_step,
)
from zfnet.layer_list import last_maps, shaped_steps
from zfnet.model import evaluating, unwrap
from zfnet.outputs import normalizes_by_batch
from zfnet.validation import at_least_float32, check_input, resolve_target


def maps_and_logits(model: nn.Module, x: Tensor, pooled: bool) -> tuple[Tensor, Tensor]:
    """Return the last maps (N, C, h, w), and the logits (N, classes), without gradients.

    The maps are float32 where the network has half precision.

    Args:
        model: The network.
        x: Images (N, C, H, W).
        pooled: Whether to take the input of the last pooling, even if it is pooled itself.
    """
    if _must_split(model, x):
        parts = [maps_and_logits(model, image, pooled) for image in x.split(1)]
        return torch.cat([maps for maps, _ in parts]), torch.cat([logits for _, logits in parts])
    with feature_maps(model, x, pooled=pooled) as (maps, logits):
        return at_least_float32(maps.detach()), logits.detach()


def maps_and_gradient(
    model: nn.Module, x: Tensor, target: Target, layer: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's maps (N, C, h, w), the target logit's gradient, and the targets (N,).

    Maps and gradient are float32 where the network has half precision.

    Args:
        model: The network.
        x: Images (N, C, H, W).
        target: A class, one class per image, or None for the predicted classes.
        layer: The layer's name, or None for the last maps.
    """
    if _must_split(model, x):
        targets = resolve_classes(model, x, target)
        images = zip(x.split(1), targets, strict=True)
        parts = [maps_and_gradient(model, image, target, layer) for image, target in images]
        maps, g, targets = (torch.cat(part) for part in zip(*parts, strict=True))
        return maps, g, targets
    with feature_maps(model, x, layer) as (maps, logits):
        target = resolve_target(target, logits)
        g = logit_gradient(logits, target, maps)
        return at_least_float32(maps.detach()), at_least_float32(g), target


def _must_split(model: nn.Module, x: Tensor) -> bool:
    """Whether images must pass through the network one by one."""
    return isinstance(x, Tensor) and len(x) > 1 and normalizes_by_batch(model)


@contextmanager
def feature_maps(
    model: nn.Module, x: Tensor, layer: str | None = None, *, pooled: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a layer's maps (N, C, h, w) and the logits of one differentiable forward pass.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W).
        layer: A layer name or module path; None for the last feature maps before pooling. A module
            that is called several times yields its last maps.
        pooled: Without a layer, yield the input of the last pooling even if it is pooled itself.

    Yields:
        The maps in the autograd graph, and the logits (N, classes).
    """
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        if layer is None:
            yield _last_maps(model, x, pooled)
            return
        module, call = find_module(model, layer)
        if module not in set(model.modules()):  # stands for a function, such as F.relu
            check_input(model, x)
            steps = shaped_steps(model, x, to_result=True)
            yield _run_keeping(model, steps, find_step(steps, layer).name, x)
            return
        hook = Hook(module, call, channels_last=_has_channels_last(model, x, layer))
        _, logits = forward(model, x, hook)
        if hook.maps is None or hook.maps.ndim != 4 or len(hook.maps) != len(x):
            shape = "" if hook.maps is None else f"; its output is {tuple(hook.maps.shape)}"
            raise UnsupportedNetwork(f"{layer} has no feature maps (N, C, h, w){shape}")
        yield hook.maps, logits


def _last_maps(model: nn.Module, x: Tensor, pooled: bool) -> tuple[Tensor, Tensor]:
    """Return the last maps that the network's logits come from, and the logits."""
    check_input(model, x)
    network_name = type(unwrap(model)).__name__
    try:
        steps = shaped_steps(model, x, to_result=True)
    except UnsupportedNetwork as error:
        untraceable = error.__cause__ is not None
        hint = "; or give a layer, which needs no trace" if untraceable else ""
        raise UnsupportedNetwork(f"{error}{hint}") from None
    if len(steps[-1].shape or ()) != 1:
        shape = ("N", *(steps[-1].shape or ()))
        raise UnsupportedNetwork(f"{network_name} must return logits, got {shape}")
    try:
        name = last_maps(steps, pooled=pooled).name
    except UnsupportedNetwork as error:
        raise UnsupportedNetwork(f"{network_name} {error}; or give a layer") from None
    return _run_keeping(model, steps, name, x)


def _run_keeping(
    model: nn.Module, steps: Sequence[Step], name: str, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the output of one step in the network's graph, and the logits."""
    network = _KeepsMaps(model, steps, name)
    _, logits = forward(network, x)
    maps = network.maps
    if maps is None or maps.ndim != 4:
        shape = "" if maps is None else f"; its output is {tuple(maps.shape)}"
        raise UnsupportedNetwork(f"{name} has no feature maps (N, C, h, w){shape}")
    return maps, logits


class _KeepsMaps(nn.Module):
    """A network that runs as its graph, and keeps the output of one step."""

    def __init__(self, model: nn.Module, steps: Sequence[Step], name: str):
        super().__init__()
        self.network, self.steps, self.name = model, steps, name
        self.maps: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, and keep the layer's maps."""
        t = run(self.steps, x, keep=(self.name,), switches=False)
        self.maps = t[self.name]
        return t.output


def _has_channels_last(model: nn.Module, x: Tensor, layer: str) -> bool:
    """Whether a layer's maps are (N, H, W, C); False where the network cannot be traced."""
    try:
        steps = shaped_steps(model, x)
        return find_step(steps, layer).name in channels_last_steps(steps)
    except (UnsupportedNetwork, UnknownLayer):
        return False
