"""Parse the parameters of a request, and reject invalid ones with a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zfnet.explorer.errors import BadRequest

DIGITS = 7  # of a number in a request
MAX_PINS = 8


@dataclass(frozen=True)
class Unit:
    """One unit of a layer; `at` is its (row, column), or None for the map's strongest position."""

    layer: str
    channel: int
    at: tuple[int, int] | None = None


class Query:
    """The parameters of one request, as texts."""

    def __init__(self, values: Mapping[str, str]):
        self.values = values

    def text(self, name: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """A text, one of `choices` if there are any."""
        value = self.values.get(name, default)
        if value is None:
            raise BadRequest(f"the request lacks {name}=")
        if choices and value not in choices:
            raise BadRequest(f"{name} must be one of {', '.join(choices)}, got {_shown(value)}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        return self.text(name, "1" if default else "0", ("0", "1")) == "1"

    def integer(self, name: str, default: int | None = None, low: int = 0, high: int = 0) -> int:
        """A whole number from `low` to `high`."""
        value = parse_integer(self.text(name, None if default is None else str(default)), name)
        if not low <= value <= high:
            raise BadRequest(f"{name} must be from {low} to {high}, got {value}")
        return value

    def integers(self, name: str, count: int) -> tuple[int, ...] | None:
        """`count` numbers separated by commas, or None if the request has none."""
        if name not in self.values:
            return None
        parts = self.values[name].split(",")
        if len(parts) != count:
            raise BadRequest(f"{name} must be {count} numbers, got {_shown(self.values[name])}")
        return tuple(parse_integer(part, name) for part in parts)

    def unit(self) -> Unit:
        """The unit of layer=, unit= and at=."""
        at = self.integers("at", 2)
        channel = parse_integer(self.text("unit"), "unit")
        return Unit(self.text("layer"), channel, None if at is None else (at[0], at[1]))

    def pins(self) -> list[Unit]:
        """The units of pins=, such as conv5/17@6,4;conv3/2@1,1."""
        text = self.values.get("pins", "")
        pins = [parse_unit(part) for part in text.split(";") if part]
        if len(pins) > MAX_PINS:
            raise BadRequest(f"at most {MAX_PINS} units can be pinned, got {len(pins)}")
        return pins

    def target(self) -> int | None:
        """The class of target=, or None for the predicted class. The library checks its range."""
        return parse_integer(self.values["target"], "target") if "target" in self.values else None


def parse_unit(text: str) -> Unit:
    """Read a unit such as conv5/17@6,4."""
    name, _, at = text.partition("@")
    layer, _, channel = name.rpartition("/")
    row, _, column = at.partition(",")
    if not layer or not at:
        raise BadRequest(f"a unit is written like conv5/17@6,4, not {_shown(text)}")
    position = (parse_integer(row, "row"), parse_integer(column, "column"))
    return Unit(layer, parse_integer(channel, "unit"), position)


def parse_integer(text: str, name: str) -> int:
    """Read a whole number. Raises BadRequest for anything else, and for absurdly long ones."""
    if len(text) > DIGITS or not text.isascii() or not text.removeprefix("-").isdecimal():
        raise BadRequest(f"{name} must be a whole number, got {_shown(text)}")
    return int(text)


def _shown(text: str) -> str:
    """A text as a message quotes it: short, and on one line."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
