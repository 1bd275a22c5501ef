"""Trace a forward pass with `torch.fx`, and list its operations as steps."""

from __future__ import annotations

import itertools
import linecache
import operator
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from zfnet.normalization import LocalResponseNorm, PaperInput
from zfnet.operations import (
    IDENTITIES,
    IN_PLACE,
    Call,
    Constant,
    Expression,
    Operand,
    UnsupportedNetwork,
    equivalent_module,
    overwrites,
)

ROOT = "network"  # the traced network's name in the module that calls it
SIZES = (len, "size", "dim", "ndimension", "numel", "shape", "ndim", "dtype", "device", "is_cuda")
SPLITS = (
    torch.chunk, torch.split, torch.tensor_split, torch.unbind, "chunk", "split", "tensor_split", "unbind",
)  # fmt: skip
VIEWS = (
    "view", "reshape", "flatten", "transpose", "permute", "contiguous", "squeeze", "unsqueeze", "expand", "chunk",
    "split", "unbind", "narrow", "getitem", "detach", "t", "view_as", "select",
)  # fmt: skip
_LOCK = threading.RLock()  # tracing replaces `nn.Module.__call__` in the whole process


@dataclass(frozen=True)
class Step:
    """One operation of the forward pass.

    Attributes:
        name: The name of the operation: conv1, relu1, ..., fc8 in a chain; elsewhere the path of
            its module, or of the module that calls a function: "layer1.0.add".
        module: The module that computes it.
        layer: In a chain, the layer whose activation this step completes, or None. The ReLU
            completes conv1; conv1 itself does where no ReLU follows.
        inputs: The steps whose outputs it reads, "" for the images. None in a chain: it reads the
            step before.
        paths: The modules and blocks that return this step's output.
        shape: Without the batch, the shape of its output; None where a chain's arithmetic gives it.
        input_shapes: The shapes of its inputs, likewise.
    """

    name: str
    module: nn.Module
    layer: str | None = None
    inputs: tuple[str, ...] | None = None
    paths: tuple[str, ...] = ()
    shape: torch.Size | None = None
    input_shapes: tuple[torch.Size, ...] = ()


@dataclass(frozen=True)
class Traced:
    """A traced forward pass.

    Attributes:
        steps: The operations that the result depends on, or that a module returns, in order.
        result: The step that returns the result; None where the result is not one tensor.
        kind: What the result is, in words.
    """

    steps: list[Step]
    result: str | None
    kind: str


def trace_steps(model: nn.Module) -> Traced:
    """Trace a network without wrappers, in evaluation mode.

    Raises:
        UnsupportedNetwork: If the forward pass cannot be traced. The message names the line.
    """
    with _LOCK, evaluating(model):
        tracer, root = _Tracer(), _Root(model)
        try:
            graph = tracer.trace(root)
        except Exception as error:  # fx raises many types, and so may the network
            raise UnsupportedNetwork(_untraceable(model, error)) from error
    return _Builder(root, tracer, graph).build()


class _Root(nn.Module):
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


class _Tracer(fx.Tracer):
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
            module = self.root.get_submodule(target) if kind == "call_module" else None  # pyright: ignore
            if module is not None and isinstance(module, IDENTITIES):
                self.same[node] = self.same.get(first, first)
            elif _name(target) in VIEWS or isinstance(module, (nn.Flatten, nn.Unflatten)):
                self.bases[node] = first
            if module is not None:
                in_place = bool(getattr(module, "inplace", False)) and node not in self.same
            else:
                in_place = overwrites(target, dict(node.kwargs))
            if in_place:
                self._overwrite(first, node)
        return node

    def current(self, value: Any) -> Any:
        """Return the node that holds a node's value now. Raises UnsupportedNetwork where none does."""
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
        """Later readers of `old` read `new`; what shares memory with it is out of date."""
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
    """Return the network inside DataParallel, DistributedDataParallel and torch.compile.

    Raises:
        UnsupportedNetwork: If the network is scripted: TorchScript has no Python forward pass.
    """
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    model = getattr(model, "_orig_mod", model)
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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore the mode of each module afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            if type(module).train is not nn.Module.train:
                module.train()  # merged adapters do more than set the flag
        training_modules = set(training)
        for module in model.modules():
            module.training = module in training_modules


def _name(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", "")


def _untraceable(model: nn.Module, error: Exception) -> str:
    """Say why a network cannot be traced, and in which line."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    text = f"{type(model).__name__} cannot be traced: {reason}"
    library = (str(Path(torch.__file__).parent), str(Path(__file__).parent / "tracing.py"))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*library, "<"))
    ]
    if frames:
        last = frames[-1]
        code = last.line or linecache.getline(last.filename, last.lineno or 0).strip()
        text += f" ({Path(last.filename).name}, line {last.lineno}: `{code}`)"
    return text


class _Builder:
    """Turns the nodes of a traced graph into steps.

    Only tensors that depend on the images are steps. Sizes, constants and the tuples of a split
    become part of the calls that use them.
    """

    def __init__(self, root: nn.Module, tracer: _Tracer, graph: fx.Graph):
        self.root, self.tracer, self.graph = root, tracer, graph
        self.names: dict[fx.Node, str] = {}
        self.inlined: dict[fx.Node, Expression | Constant] = {}
        self.splits: set[fx.Node] = set()
        self.used: set[str] = set()
        self.modules = {_path(name) for name, _ in root.named_modules(remove_duplicate=False)}

    def build(self) -> Traced:
        steps: list[Step] = []
        result, kind = None, "a tensor"
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.names[node] = ""
            elif node.op == "output":
                value = self.tracer.current(node.args[0])
                result = self.names.get(value) if isinstance(value, fx.Node) else None
                kind = _describe(value)
            elif not self._inline(node):
                steps.append(self._step(node))
        paths = {self.names[n]: tuple(p) for n, p in self._paths().items() if n in self.names}
        steps = [replace(step, paths=paths.get(step.name, ())) for step in steps]
        return Traced(_reachable(steps, result), result, kind)

    def _inline(self, node: fx.Node) -> bool:
        """Whether a node is a part of its readers' calls, rather than a step."""
        if node.op == "get_attr":
            self.inlined[node] = Constant(str(node.target))
            return True
        if node.op == "call_module":
            return False
        inputs = [n for n in node.all_input_nodes if n in self.names or n in self.splits]
        target = node.target if node.op == "call_function" else str(node.target)
        attribute = target is getattr and node.args[1] in SIZES
        if inputs and not attribute and target not in (*SIZES, *SPLITS):
            return False
        if target in SPLITS and inputs:
            self.splits.add(node)
        self.inlined[node] = Expression(target, node.args, dict(node.kwargs))  # pyright: ignore
        return True

    def _step(self, node: fx.Node) -> Step:
        inputs: list[str] = []
        constants: dict[str, torch.Tensor] = {}

        def place(value: Any) -> Any:
            match value:
                case fx.Node() if value in self.names:
                    if self.names[value] not in inputs:
                        inputs.append(self.names[value])
                    return Operand(inputs.index(self.names[value]))
                case fx.Node():
                    return place(self.inlined[value])
                case Constant():
                    name = "constant_" + value.name.replace(".", "_")
                    constants[name] = operator.attrgetter(value.name)(self.root)
                    return Constant(name)
                case Expression():
                    args, kwargs = map_aggregate((value.args, value.kwargs), place)  # pyright: ignore
                    return Expression(value.target, args, kwargs)  # pyright: ignore
            return value

        target: Any = node.target
        if node.op == "call_module":
            target = self.root.get_submodule(target)
        expression = place(Expression(target, node.args, dict(node.kwargs)))
        module = equivalent_module(expression) or Call(expression, constants)
        name = self._unique_name(node)
        self.names[node] = name
        return Step(name, module, None, tuple(inputs))

    def _unique_name(self, node: fx.Node) -> str:
        """A leaf module's path, or the calling module's path and the function; numbered if taken."""
        caller = _path(self.tracer.callers[node])
        if node.op == "call_module":
            base, taken = caller or "module", self.used
        else:
            function = _name(node.target)
            function = IN_PLACE.get(function, function).strip("_")
            base = ".".join(filter(None, (caller, function)))
            taken = self.used | self.modules
        names = itertools.chain([base], (f"{base}_{i}" for i in itertools.count(1)))
        name = next(name for name in names if name not in taken)
        self.used.add(name)
        return name

    def _paths(self) -> dict[fx.Node, list[str]]:
        """The modules that return each node's value.

        A module that is called several times means its last call. Where it has as many names as
        calls, as a ReLU that serves several layers of a Sequential, each name means one call.
        """
        names: dict[nn.Module, list[str]] = {}
        for name, module in self.root.named_modules(remove_duplicate=False):
            names.setdefault(module, []).append(name)
        found: dict[fx.Node, list[str]] = {}
        for path, nodes in self.tracer.returned.items():
            aliases = names[self.root.get_submodule(path)]
            calls = nodes if len(aliases) == len(nodes) else [nodes[-1]] * len(aliases)
            for alias, node in zip(aliases, calls, strict=True):
                if node is not None and _path(alias):
                    found.setdefault(node, []).append(_path(alias))
        return found


def _path(name: str) -> str:
    """The path of a module in the traced network, "" for the network itself."""
    return name.removeprefix(ROOT).removeprefix(".")


def _describe(value: Any) -> str:
    """Say what a forward pass returns."""
    if isinstance(value, dict):
        return f"a dictionary with {', '.join(map(repr, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__.removeprefix('immutable_')} of {len(value)}"
    return "a tensor" if isinstance(value, fx.Node) else f"a {type(value).__name__}"


def _reachable(steps: list[Step], result: str | None) -> list[Step]:
    """Leave out the steps whose outputs neither reach the result nor a named module's output."""
    needed = {result} | {step.name for step in steps if step.paths}
    for step in reversed(steps):
        if step.name in needed:
            needed |= set(step.inputs or ())
    return [step for step in steps if step.name in needed]
