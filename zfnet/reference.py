"""Decorate reference implementations, which `zfnet.fast` may accelerate."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SPEC = importlib.util.find_spec("zfnet.fast")
# The library is complete without the folder zfnet/fast.
HAS_FAST = _SPEC is not None and _SPEC.origin is not None


def reference(function: Callable[P, R]) -> Callable[P, R]:
    """Let `zfnet.fast` replace a function by its exact acceleration in each call.

    The reference implementation remains available as `function.__wrapped__`.
    """
    if not HAS_FAST:
        return function
    from zfnet import fast

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return fast.choose(function)(*args, **kwargs)

    return call
