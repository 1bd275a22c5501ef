"""Call a method without letting it change the images, the classes or the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Attribution
from zfnet.attribution.custom import Method, call_method

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def guarded_call(
    method: Method, name: str, model: nn.Module, x: Tensor, target: Tensor
) -> Attribution:
    """Call a method on copies of x and target, and check that the network stays as it was.

    Raises:
        ValueError: If the method changes the network's weights or leaves hooks.
    """
    with unchanged(model, name):
        return call_method(method, name, model, x.clone(), target.clone())


@contextmanager
def unchanged(model: nn.Module, name: str) -> Iterator[None]:
    """Restore modes, `requires_grad` and hooks; raise ValueError for new hooks or weights."""
    modes = {module: module.training for module in model.modules()}
    trainable = {p: p.requires_grad for p in model.parameters()}
    weights, hooks = _versions(model), _hooks(model)
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):  # restores the mode afterwards
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)
        added = _hooks(model) - hooks
        for layer, kind, number in added:
            del getattr(model.get_submodule(layer), kind)[number]
    if _versions(model) != weights:
        raise ValueError(f"{name} changes the network's weights; let it work on a copy")
    if added:
        layers = ", ".join(sorted({layer or "the network" for layer, _, _ in added}))
        raise ValueError(f"{name} leaves hooks on {layers}; remove them before it returns")


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """Return the storage and the count of in-place changes of each parameter and buffer."""
    tensors = [*model.parameters(), *model.buffers()]
    return [(t.data_ptr(), t._version) for t in tensors if not t.is_inference()]


def _hooks(model: nn.Module) -> set[tuple[str, str, int]]:
    return {
        (layer, kind, number)
        for layer, module in model.named_modules()
        for kind in HOOKS
        for number in getattr(module, kind)
    }


def method_identity(method: Callable) -> str:
    """Describe a method, so that another function of the same name, or edited code, differs.

    Functions that it calls, and values that it encloses, are not part of it.
    """
    if isinstance(method, partial):
        options = sorted(method.keywords.items())
        return f"{method_identity(method.func)} {method.args} {options}"
    module = getattr(method, "__module__", "")
    name = getattr(method, "__qualname__", type(method).__qualname__)
    code: Any = getattr(method, "__code__", None)
    body = hashlib.sha256(_code_text(code).encode()).hexdigest() if code else ""
    return f"{module}.{name} {body}"


def _code_text(code: CodeType) -> str:
    constants = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, constants))
