"""Read a module's output in a network's own forward pass."""

from __future__ import annotations

import itertools
import threading
from contextlib import AbstractContextManager

from torch import Tensor, nn


class Hook(AbstractContextManager):
    """A context that keeps a module's output at one of its calls, in the thread that entered it.

    `call` counts from 0; -1 is the last. The network continues with a copy, which an in-place ReLU
    may overwrite. `maps` is the output, or None where the module was not called or returned no
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
