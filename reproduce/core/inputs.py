"""Inputs that figures declare: opened when first used, and refused to a figure without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from reproduce.core.context import Context

T = TypeVar("T")


class UndeclaredInputError(RuntimeError):
    """A script used an input that its FIGURE does not declare, so its cache key would be wrong."""


class Input(Generic[T]):
    """A property of `Context` for an input that figures declare.

    It is opened at the first access, once for all figures. A figure that does not declare it gets
    an UndeclaredInputError.
    """

    def __init__(self, open_input: Callable[[Any], T]):
        self.open_input = open_input
        self.__doc__ = open_input.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, context: None, owner: type) -> Input[T]: ...
    @overload
    def __get__(self, context: Context, owner: type) -> T: ...
    def __get__(self, context: Context | None, owner: type) -> Input[T] | T:
        if context is None:
            return self
        context.require(self.name)
        if self.name not in context.opened:
            context.opened[self.name] = self.open_input(context.unrestricted)
        return context.opened[self.name]
