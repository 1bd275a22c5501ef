"""Exact accelerations of the references, and the switch that turns them off.

Each acceleration equals its reference up to the rounding of floating-point sums. Without this
folder, the library is complete but slower.

Example:
    >>> import zfnet.fast
    >>> with zfnet.fast.disabled():
    ...     zfnet.fast.is_enabled()
    False
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Each reference, and the function that replaces it.
ACCELERATIONS = {
    "zfnet.deconv.backproject": "zfnet.fast.kernels.backproject",
    "zfnet.backprojection.project_units": "zfnet.fast.patches.project_units",
    "zfnet.projection.project_search": "zfnet.fast.batched.project_search",
    "zfnet.occlusion.pass_images": "zfnet.fast.kernels.pass_images",
    "zfnet.occlusion.measure_covered": "zfnet.fast.incremental.measure_covered",
    "zfnet.top.strongest_positions": "zfnet.fast.kernels.strongest_positions",
}

_enabled: ContextVar[bool] = ContextVar(
    "zfnet.fast", default=os.environ.get("ZFNET_FAST", "1").lower() not in ("0", "false", "no")
)


def is_enabled() -> bool:
    """Whether accelerations are used. The environment variable `ZFNET_FAST=0` turns them off."""
    return _enabled.get()


@contextmanager
def disabled() -> Iterator[None]:
    """Use only the references inside this context, but not in threads that it starts."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def choose(reference: Callable) -> Callable:
    """Return the acceleration of a reference, or the reference if accelerations are disabled."""
    if not is_enabled():
        return reference
    module, _, name = ACCELERATIONS[f"{reference.__module__}.{reference.__qualname__}"].rpartition(
        "."
    )
    return getattr(importlib.import_module(module), name)
