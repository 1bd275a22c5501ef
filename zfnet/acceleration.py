"""Choose between a reference implementation and its exact acceleration in `zfnet.fast`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SPEC = importlib.util.find_spec("zfnet.fast")
# The library is complete without the folder zfnet/fast.
HAS_FAST = _SPEC is not None and _SPEC.origin is not None


def accelerate(reference: Callable[P, R]) -> Callable[P, R]:
    """Return the function that computes what a reference computes, faster where one exists.

    Args:
        reference: A plain implementation, such as `zfnet.deconv.backproject`.

    Returns:
        Its acceleration in `zfnet.fast`, or the reference where accelerations are disabled.

    Example:
        >>> from zfnet.deconv import backproject
        >>> accelerate(backproject).__module__
        'zfnet.fast.kernels'
    """
    if not HAS_FAST:
        return reference
    from zfnet import fast

    return fast.choose(reference)
