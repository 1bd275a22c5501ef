"""The operations of a network's graph: its modules, and modules for functional calls.

A forward pass calls modules, functions and methods. Calls with an equivalent module become that
module: `F.relu(x)` becomes `nn.ReLU`, `x + y` becomes `Add`. Every other call becomes a `Call`, so
the rest of the library handles only modules.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from zfnet.normalization import LocalResponseNorm

NORMS = (LocalResponseNorm, nn.LocalResponseNorm)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WEIGHTED = (nn.Conv2d, nn.Linear)
IN_PLACE = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "truediv"}
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU)


class UnsupportedNetwork(TypeError):
    """A network that the library cannot handle. The message names the unsupported part."""


class Add(nn.Module):
    """Add maps, as a residual connection does."""

    def forward(self, *maps: Tensor) -> Tensor:
        return maps[0] + maps[1]


class Concat(nn.Module):
    """Concatenate maps, as Inception and DenseNet do."""

    def __init__(self, dim: int = 0):
        super().__init__()
        self.dim = dim

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class ChannelsFirst(nn.Module):
    """Transpose maps (N, H, W, C) to (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Operand:
    """A placeholder for the tensor that a step receives at this place."""

    place: int


@dataclass(frozen=True)
class Constant:
    """A placeholder for a parameter, buffer or other tensor of the network."""

    name: str


@dataclass(frozen=True)
class Expression:
    """A call with arguments that may hold operands, constants and other expressions.

    `target` is a function or a module; for a method it is its name.
    """

    target: Callable | str
    args: tuple
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the function, method or module class."""
        if isinstance(self.target, nn.Module):
            return type(self.target).__name__
        return self.target if isinstance(self.target, str) else self.target.__name__

    def walk(self) -> Iterator[Any]:
        """Yield this expression, and everything in its arguments."""
        parts: list[Any] = [self]
        map_aggregate((*self.args, self.kwargs), parts.append)  # pyright: ignore[reportArgumentType]
        yield self
        for value in parts[1:]:
            if isinstance(value, Expression):
                yield from value.walk()
            else:
                yield value


class Call(nn.Module):
    """A call of a function or method that has no equivalent module, such as `x.transpose(1, 2)`.

    Args:
        expression: The call.
        constants: The network's tensors in it, by name.
    """

    def __init__(self, expression: Expression, constants: dict[str, Tensor]):
        super().__init__()
        self.expression = expression
        for name, tensor in constants.items():
            self.register_buffer(name, tensor, persistent=False)
        for i, part in enumerate(e.target for e in expression.walk() if isinstance(e, Expression)):
            if isinstance(part, nn.Module):
                self.add_module(f"module{i}", part)

    def forward(self, *inputs: Tensor) -> Any:
        return self._evaluate(self.expression, inputs)

    def _evaluate(self, value: Any, inputs: tuple[Tensor, ...]) -> Any:
        match value:
            case Operand():
                return inputs[value.place]
            case Constant():
                return getattr(self, value.name)
            case Expression():
                args, kwargs = map_aggregate(
                    (value.args, value.kwargs), lambda part: self._evaluate(part, inputs)
                )  # pyright: ignore[reportGeneralTypeIssues]
                if isinstance(value.target, str):
                    return getattr(args[0], value.target)(*args[1:], **kwargs)
                return value.target(*args, **kwargs)
        return value

    def in_place(self) -> bool:
        """Whether the call overwrites its first input."""
        return overwrites(self.expression.target, self.expression.kwargs)

    def extra_repr(self) -> str:
        return self.expression.name


def overwrites(target: Callable | str, kwargs: dict[str, Any]) -> bool:
    """Whether a call of a function or method works in place: `relu_`, `x += y`, `inplace=True`."""
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    in_place = (name.endswith("_") and not name.startswith("_")) or name in IN_PLACE
    return in_place or kwargs.get("inplace") is True


def _clamp(min: object = None, max: object = None) -> nn.Module | None:
    """A clamp at 0 from below is a ReLU."""
    if not isinstance(min, (int, float)) or min != 0:
        return None
    if max is None:
        return nn.ReLU()
    return nn.Hardtanh(0, max) if isinstance(max, (int, float)) and max > 0 else None


def _identity(*_: object, training: bool = False, **__: object) -> nn.Module | None:
    return None if training else nn.Identity()


def _threshold(threshold: float, value: float) -> nn.Module | None:
    return nn.ReLU() if threshold == value == 0 else None


# For each function and method, what builds its module from the arguments after the tensor.
MODULES: dict[Callable | str, Callable[..., nn.Module | None]] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    F.relu6: nn.ReLU6,
    F.leaky_relu: nn.LeakyReLU,
    F.hardtanh: nn.Hardtanh,
    F.threshold: _threshold,
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_"), _clamp),
    **dict.fromkeys((torch.clamp_min, "clamp_min", "clamp_min_"), _clamp),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), nn.MaxPool2d),
    F.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    **dict.fromkeys((F.dropout, F.dropout2d, F.alpha_dropout), _identity),
    **dict.fromkeys(("clone", "detach", torch.clone, torch.detach), _identity),
    **dict.fromkeys((F.silu, "silu"), nn.SiLU),
    F.gelu: nn.GELU,
    F.hardswish: nn.Hardswish,
    F.hardsigmoid: nn.Hardsigmoid,
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid"), nn.Sigmoid),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh"), nn.Tanh),
}
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
FLATTENINGS = (torch.flatten, "flatten")


def equivalent_module(expression: Expression) -> nn.Module | None:
    """Return the module that computes a call of a function or method, or None for a `Call`."""
    target, args, kwargs = expression.target, expression.args, dict(expression.kwargs)
    if isinstance(target, nn.Module):
        simple = args == (Operand(0),) and not kwargs
        return target if simple else None
    if target in ADDITIONS and args == (Operand(0), Operand(1)) and not kwargs:
        return Add()
    if target in CONCATENATIONS and _is_list_of_operands(args[:1]):
        return Concat(*args[1:], *kwargs.values())
    if _flattens_each_image(expression):
        return nn.Flatten()
    kwargs.pop("inplace", None)
    if kwargs.pop("input", args[:1] and args[0]) != Operand(0) or _has_tensors(args[1:], kwargs):
        return None
    if target in FLATTENINGS:
        start, end = {"start_dim": 0, "end_dim": -1} | kwargs, [*args[1:]]
        dims = [*end, *list(start.values())[len(end) :]]
        return nn.Flatten(*dims)
    builder = MODULES.get(target)
    return builder(*args[1:], **kwargs) if builder else None


def _is_list_of_operands(args: tuple) -> bool:
    """Whether the only argument is a list of the step's operands, in order."""
    return (
        len(args) == 1
        and isinstance(args[0], (list, tuple))
        and list(args[0]) == [Operand(i) for i in range(len(args[0]))]
    )


def _has_tensors(*values: Any) -> bool:
    """Whether arguments hold operands, constants or expressions."""
    flags: list[bool] = []
    map_aggregate(
        values, lambda part: flags.append(isinstance(part, (Operand, Constant, Expression)))
    )  # pyright: ignore[reportArgumentType]
    return any(flags)


def _flattens_each_image(expression: Expression) -> bool:
    """Whether a call is `x.view(x.size(0), -1)`, in one of its spellings.

    A number in place of -1 is equivalent: it must equal the number of values per image.
    """
    if expression.target not in ("view", "reshape", torch.reshape):
        return False
    args = expression.args
    sizes = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
    if args[:1] != (Operand(0),) or len(sizes) != 2 or not isinstance(sizes[0], Expression):
        return False
    batch = (
        Expression(len, (Operand(0),), {}),
        Expression("size", (Operand(0), 0), {}),
        Expression(operator.getitem, (Expression("size", (Operand(0),), {}), 0), {}),
        Expression(operator.getitem, (Expression(getattr, (Operand(0), "shape"), {}), 0), {}),
    )
    return sizes[0] in batch
