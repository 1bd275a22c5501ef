"""Numbers for readers, and Markdown that is also readable as plain text."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

MAX_LIST = 8  # longer lists are only in result.json
MARKDOWN_WIDTH = 100
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any) -> str:
    """Format a measured value.

    Args:
        value: A number, a text, or a list. Lists [v, low, high] are shown as intervals, and lists
            [mean, deviation] as mean ± deviation.

    Returns:
        Three significant digits and thousands separators; "yes" or "no" for bool.

    Example:
        >>> number(12345.6), number([0.71125, 0.68777, 0.73433])
        ('12,346', '0.711 [0.688, 0.734]')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        short = f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        digits, _, power = short.partition("e")
        return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPT)}" if power else short
    if isinstance(value, list):
        return _list(value)
    return value if isinstance(value, str) else json.dumps(value)


def _list(values: list[Any]) -> str:
    spread = _spread(values)
    if not 1e-4 < spread < 1e6:
        if len(values) > MAX_LIST:
            return f"{len(values)} values"
        return ", ".join(number(value) for value in values)
    # Two significant digits of the spread, and no more decimals than the values have.
    decimals = max(0, 1 - int(f"{spread:e}".partition("e")[2]))
    decimals = min(decimals, max(len(str(value).partition(".")[2]) for value in values))
    first, *others = (f"{value:z,.{decimals}f}" for value in values)  # z: no -0
    return f"{first} ± {others[0]}" if len(others) == 1 else f"{first} [{others[0]}, {others[1]}]"


def _spread(values: list[Any]) -> float:
    """The width of an interval [v, low, high], or a deviation [mean, deviation]; else 0."""
    if is_interval(values):
        return values[2] - values[1]
    return values[1] if is_deviation(values) else 0.0


def is_interval(values: Any) -> bool:
    """Whether a measured value is an interval [v, low, high]."""
    return _are_numbers(values, 3) and values[1] <= values[0] <= values[2]


def is_deviation(values: Any) -> bool:
    """Whether a measured value is [mean, standard deviation]."""
    return _are_numbers(values, 2) and 0 < values[1] <= abs(values[0]) / 4


def _are_numbers(values: Any, count: int) -> bool:
    """Whether a value is a list of so many numbers, one of them a float."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, int | float) for value in values)
        and any(isinstance(value, float) for value in values)
    )


def duration(seconds: float) -> str:
    """Seconds as seconds, minutes or hours.

    Example:
        >>> duration(12), duration(150), duration(7200)
        ('12.0 s', '2 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def columns(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns."""
    lines = [header, *rows]
    widths = [max(3, *(len(row[column]) for row in lines)) for column in range(len(header))]
    first, *rest = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([first, rule, *rest])


def escape_markdown(value: Any) -> str:
    """A text on one line, which Markdown shows literally.

    Example:
        >>> print(escape_markdown("a|b `c`"))
        a\\|b \\`c\\`
    """
    return re.sub(r"([\\`*|<]|\[(?=[^\]]*\][\[(:]))", r"\\\1", " ".join(str(value).split()))


def wrap(value: Any, indent: str = "") -> str:
    """An escaped text in lines of at most MARKDOWN_WIDTH columns."""
    return fill(escape_markdown(value), indent)


def fill(markdown: str, indent: str = "") -> str:
    """Break Markdown into lines of at most MARKDOWN_WIDTH columns."""
    return textwrap.fill(
        markdown,
        MARKDOWN_WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
