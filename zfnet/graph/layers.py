"""Layers by name: which layers a list of steps has, and what each layer depends on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from torch import nn

from zfnet.graph.operations import WEIGHTED, UnsupportedNetwork
from zfnet.graph.steps import Step


class UnknownLayer(KeyError):
    """The network has no such layer. The message lists its layers."""

    def __str__(self) -> str:
        return str(self.args[0])


def with_inputs(steps: Sequence[Step]) -> Iterator[tuple[Step, tuple[str, ...]]]:
    """Yield each step with the names of the steps that it reads; "" is the network's input."""
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


def step_layers(step: Step) -> tuple[str, ...]:
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
    return ancestors(steps, set(targets.values()))


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


def ancestors(steps: Sequence[Step], names: set[str]) -> list[Step]:
    """Return the named steps and what they depend on."""
    needed = set(names)
    for step, inputs in reversed(list(with_inputs(steps))):
        if step.name in needed:
            needed |= set(inputs)
    return [step for step in steps if step.name in needed]
