"""Read the output of a module during the network's forward pass."""

from __future__ import annotations

import itertools
import threading
from contextlib import AbstractContextManager, suppress

from torch import Tensor, nn

from zfnet.graph.build import graph_steps
from zfnet.graph.layers import layers_of, unknown_layer
from zfnet.graph.operations import UnsupportedNetwork
from zfnet.graph.tracing import unwrap


class Hook(AbstractContextManager):
    """A context that keeps a module's output at one of its calls, in the thread that entered it.

    `call` counts from 0; -1 is the last. The network continues with a copy, which an in-place ReLU
    may overwrite. `maps` is the output, or None if the module was not called or returned no
    tensor; with `channels_last` it is transposed from (N, H, W, C) to (N, C, H, W).
    """

    def __init__(self, module: nn.Module, call: int = -1, *, channels_last: bool = False):
        self.module, self.call, self.channels_last = module, call, channels_last
        self.maps: Tensor | None = None

    def __enter__(self):
        calls, thread = itertools.count(), threading.get_ident()

        def keep(module, inputs, output):
            if threading.get_ident() != thread or self.call not in (-1, next(calls)):
                return None
            if not isinstance(output, Tensor):
                self.maps = None
                return None
            if not self.channels_last:
                self.maps = output
                return output.clone()
            self.maps = output.permute(0, 3, 1, 2)
            return self.maps.permute(0, 2, 3, 1).clone()

        self.handle = self.module.register_forward_hook(keep)
        return self

    def __exit__(self, *error) -> None:
        self.handle.remove()


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
    for network in (inner, model):  # paths of a wrapper begin with "module." or "_orig_mod."
        with suppress(AttributeError):
            module = network.get_submodule(layer or "no name")
            unwrap(module)  # raises for TorchScript, which has no hooks
            return module, -1
    raise unknown_layer(layer, layers_of(steps) or [name for name, _ in inner.named_children()])
