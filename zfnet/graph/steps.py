"""The operations of a traced forward pass, as named steps."""

from __future__ import annotations

import itertools
import linecache
import operator
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from zfnet.graph.operations import (
    IN_PLACE,
    Call,
    Constant,
    Expression,
    Operand,
    UnsupportedNetwork,
    equivalent_module,
)
from zfnet.graph.tracing import LOCK, ROOT, SIZES, SPLITS, TracedRoot, Tracer, target_name
from zfnet.model import evaluating


@dataclass(frozen=True)
class Step:
    """One operation of the forward pass.

    Attributes:
        name: The name of the operation: conv1, relu1, ..., fc8 in a chain; elsewhere the path of
            its module, or of the module that calls a function: "layer1.0.add".
        module: The module that computes it.
        layer: In a chain, the layer whose activation this step completes, or None. The ReLU
            completes conv1; conv1 itself does where no ReLU follows.
        inputs: The steps whose outputs it reads, "" for the images. None in a chain, where it
            reads the previous step.
        paths: The modules and blocks that return this step's output.
        shape: Without the batch, the shape of its output; None if a chain's arithmetic gives it.
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
        result: The step that returns the result; None if the result is not one tensor.
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
    with LOCK, evaluating(model):
        tracer, root = Tracer(), TracedRoot(model)
        try:
            graph = tracer.trace(root)
        except Exception as error:  # fx raises many types, and so may the network
            raise UnsupportedNetwork(_untraceable(model, error)) from error
    return _Builder(root, tracer, graph).build()


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

    def __init__(self, root: nn.Module, tracer: Tracer, graph: fx.Graph):
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
        """Whether a node becomes part of the calls that use it, instead of a step."""
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
                    both = (value.args, value.kwargs)
                    args, kwargs = map_aggregate(both, place)  # pyright: ignore
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
        """A leaf module's path, or the caller's path and the function; numbered if taken."""
        caller = _path(self.tracer.callers[node])
        if node.op == "call_module":
            base, taken = caller or "module", self.used
        else:
            function = target_name(node.target)
            function = IN_PLACE.get(function, function).strip("_")
            base = ".".join(filter(None, (caller, function)))
            taken = self.used | self.modules
        names = itertools.chain([base], (f"{base}_{i}" for i in itertools.count(1)))
        name = next(name for name in names if name not in taken)
        self.used.add(name)
        return name

    def _paths(self) -> dict[fx.Node, list[str]]:
        """The modules that return each node's value.

        If a module is called several times, its name refers to the last call. If it has as many
        names as calls, such as a ReLU shared by layers of a Sequential, each name is one call.
        """
        names: dict[nn.Module, list[str]] = {}
        for name, module in self.root.named_modules(remove_duplicate=False):
            names.setdefault(module, []).append(name)
        paths: dict[fx.Node, list[str]] = {}
        for path, nodes in self.tracer.returned.items():
            aliases = names[self.root.get_submodule(path)]
            calls = nodes if len(aliases) == len(nodes) else [nodes[-1]] * len(aliases)
            for alias, node in zip(aliases, calls, strict=True):
                if node is not None and _path(alias):
                    paths.setdefault(node, []).append(_path(alias))
        return paths


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
