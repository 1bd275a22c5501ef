"""Trace a forward pass with `torch.fx`: operations, what modules return, and in-place writes."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from zfnet.graph.operations import IDENTITIES, UnsupportedNetwork, overwrites
from zfnet.model import unwrap as inner_network
from zfnet.normalization import LocalResponseNorm, PaperInput

ROOT = "network"  # the traced network's name in the module that calls it
SIZES = (len, "size", "dim", "ndimension", "numel", "shape", "ndim", "dtype", "device", "is_cuda")
SPLITS = (
    torch.chunk, torch.split, torch.tensor_split, torch.unbind, "chunk", "split", "tensor_split",
    "unbind",
)  # fmt: skip
VIEWS = (
    "view", "reshape", "flatten", "transpose", "permute", "contiguous", "squeeze", "unsqueeze",
    "expand", "chunk",
    "split", "unbind", "narrow", "getitem", "detach", "t", "view_as", "select",
)  # fmt: skip
LOCK = threading.RLock()  # tracing replaces `nn.Module.__call__` in the whole process


class TracedRoot(nn.Module):
    """Calls the network as a user does, with its hooks and default arguments."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


class _Proxy(fx.Proxy):
    """A traced value that records `x += y` as an operation in place."""

    def __iadd__(self, other):
        return self._in_place(operator.iadd, other)

    def __isub__(self, other):
        return self._in_place(operator.isub, other)

    def __imul__(self, other):
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other):
        return self._in_place(operator.itruediv, other)

    def _in_place(self, function: Callable, other: object):
        return self.tracer.create_proxy("call_function", function, (self, other), {})


class Tracer(fx.Tracer):
    """Records the module of each operation, what modules return, and operations in place.

    Attributes:
        path: The module whose forward pass is being traced.
        callers: The module that called each operation.
        returned: The outputs of each module's calls.
    """

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()
        self.path = ""
        self.callers: dict[fx.Node, str] = {}
        self.returned: dict[str, list[fx.Node | None]] = {}
        self.replaced: dict[fx.Node, fx.Node] = {}  # by an operation in place
        self.same: dict[fx.Node, fx.Node] = {}  # a dropout's output is the tensor that enters it
        self.stale: dict[fx.Node, fx.Node] = {}  # overwritten through a view
        self.bases: dict[fx.Node, fx.Node] = {}  # of views

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        if threading.get_ident() != self.thread:  # another thread's network
            return forward(*args, **kwargs)
        inner = unwrap(m)
        if inner is not m:
            return inner(*args, **kwargs)
        path = self.path_of_module(m)
        outer, self.path = self.path, path
        try:
            with self._recorded_len(m):
                result = super().call_module(m, forward, args, kwargs)
        finally:
            self.path = outer
        node = self.current(result.node) if isinstance(result, fx.Proxy) else None
        self.returned.setdefault(path, []).append(node)
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    @contextmanager
    def _recorded_len(self, module: nn.Module) -> Iterator[None]:
        """Let the file that defines a module call `len` on traced values, which fx refuses."""
        names = getattr(module.forward, "__globals__", {})
        if "len" in names or is_leaf(module):
            yield
            return

        def recorded_len(value: Any) -> Any:
            if isinstance(value, fx.Proxy):
                return self.create_proxy("call_function", len, (value,), {})
            return len(value)

        names["len"] = recorded_len
        try:
            yield
        finally:
            del names["len"]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *rest, **more) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        self.callers[proxy.node] = self.path
        return proxy

    def create_arg(self, a: Any) -> Any:
        return self.current(super().create_arg(a))

    def create_node(self, kind: str, target: Any, args: tuple, *rest, **more) -> fx.Node:
        node = super().create_node(kind, target, args, *rest, **more)
        first = args[0] if args and isinstance(args[0], fx.Node) else None
        if first is not None and kind != "placeholder":
            is_module = kind == "call_module"
            module = self.root.get_submodule(target) if is_module else None  # pyright: ignore
            if module is not None and isinstance(module, IDENTITIES):
                self.same[node] = self.same.get(first, first)
            elif target_name(target) in VIEWS or isinstance(module, (nn.Flatten, nn.Unflatten)):
                self.bases[node] = first
            if module is not None:
                in_place = bool(getattr(module, "inplace", False)) and node not in self.same
            else:
                in_place = overwrites(target, dict(node.kwargs))
            if in_place:
                self._overwrite(first, node)
        return node

    def current(self, value: Any) -> Any:
        """Return the node that holds a node's value now. Raises UnsupportedNetwork for none."""
        if not isinstance(value, fx.Node):
            return value
        while value in self.replaced:
            value = self.replaced[value]
        if value in self.stale:
            raise UnsupportedNetwork(
                f"{value.name} is used after {self.stale[value].name} overwrote it through a view"
            )
        return value

    def _overwrite(self, old: fx.Node, new: fx.Node) -> None:
        """Let later readers of `old` read `new`. Views of its memory become stale."""
        tensor = self.same.get(old, old)
        for node in (tensor, *(n for n, other in self.same.items() if other is tensor)):
            self.replaced[node] = new
        base = self.bases.get(tensor)
        while base is not None:
            self.stale[base] = new
            base = self.bases.get(base)
        for view, base in self.bases.items():
            if base is tensor:
                self.stale[view] = new


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside its wrappers, as `zfnet.model.unwrap`.

    Raises:
        UnsupportedNetwork: If the network is scripted: TorchScript has no Python forward pass.
    """
    model = inner_network(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedNetwork(
            f"{type(model).__name__} is a TorchScript module, which has no Python forward pass; "
            "pass the network that was scripted"
        )
    return model


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one operation: of torch.nn or this package, with its forward pass."""
    if isinstance(module, nn.Sequential):
        return False
    kind = next(
        kind
        for kind in type(module).__mro__
        if kind in (LocalResponseNorm, PaperInput)
        or kind.__module__.startswith(("torch.nn.", "torch.ao.nn."))
    )
    return kind is not nn.Module and type(module).forward is kind.forward


def target_name(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", "")
