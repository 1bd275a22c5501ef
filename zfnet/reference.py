"""Mark a function as a reference: the plain computation, which zfnet/fast may accelerate."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SPEC = importlib.util.find_spec("zfnet.fast")
HAS_FAST = (
    _SPEC is not None and _SPEC.origin is not None
)  # the library is complete without the folder


def reference(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a reference: each call asks `zfnet.fast` for its exact acceleration.

    The reference itself remains available as `function.__wrapped__`.
    """
    if not HAS_FAST:
        return function
    from zfnet import fast

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return fast.choose(function)(*args, **kwargs)

    return call
