"""The methods that a benchmark scores, as functions by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from zfnet.attribution.custom import Method, method_name
from zfnet.attribution.registry import METHODS


def resolve_methods(
    methods: Sequence[str | Method] | Mapping[str, str | Method] | None, batch: int
) -> dict[str, Method]:
    """Return the methods as functions by name.

    Args:
        methods: As for `benchmark`.
        batch: The largest number of images per forward pass of a method of `zfnet.METHODS`.

    Raises:
        ValueError: If a name is unknown, two methods have the same name, or there are none.
    """
    if methods is None:
        methods = list(METHODS)
    if isinstance(methods, str) or callable(methods):
        methods = [methods]
    if not isinstance(methods, Mapping):
        names = [m if isinstance(m, str) else method_name(m) for m in methods]
        if len(set(names)) < len(names):
            raise ValueError(f"two methods have the same name, in {names}; give a mapping")
        methods = dict(zip(names, methods, strict=True))
    if unknown := [m for m in methods.values() if isinstance(m, str) and m not in METHODS]:
        raise ValueError(f"unknown methods: {', '.join(unknown)}; available: {', '.join(METHODS)}")
    if not methods:
        raise ValueError("no methods to score")
    if wrong := [name for name, m in methods.items() if not isinstance(m, str) and not callable(m)]:
        raise ValueError(
            f"{', '.join(wrong)}: not a function of (model, x, target); zfnet.benchmarking has "
            "from_captum, from_grad_cam and from_torchcam for explainers of other packages"
        )
    return {
        name: _bounded(METHODS[m], batch) if isinstance(m, str) else m
        for name, m in methods.items()
    }


def _bounded(method: Callable, batch: int) -> Method:
    """Let a method with an option `batch` pass at most `batch` images at once."""
    option = inspect.signature(method).parameters.get("batch")
    return partial(method, batch=min(batch, option.default)) if option else method
