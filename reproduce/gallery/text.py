"""Numbers as a reader wants them, and Markdown that reads well in a terminal too."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

LONGEST = 8  # longer lists are left to result.json
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any) -> str:
    """A number as a reader wants it: three significant digits, thousands apart; an interval or a deviation as such."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        short = f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        digits, _, power = short.partition("e")
        return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPT)}" if power else short
    if isinstance(value, list):
        return _several(value)
    return value if isinstance(value, str) else json.dumps(value)


def _several(values: list) -> str:
    """A list: an interval if the first lies between the others, ± if the second is small beside it, with digits to match."""
    spread = 0.0
    if any(isinstance(v, float) for v in values) and all(
        isinstance(v, int | float) for v in values
    ):
        if len(values) == 3 and values[1] <= values[0] <= values[2]:
            spread = values[2] - values[1]
        elif len(values) == 2 and 0 < values[1] <= abs(values[0]) / 4:
            spread = values[1]
    if not 1e-4 < spread < 1e6:
        return (
            ", ".join(number(v) for v in values)
            if len(values) <= LONGEST
            else f"{len(values)} values"
        )
    decimals = max(
        0, 1 - int(f"{spread:e}".partition("e")[2])
    )  # two digits of the spread, and no more than were given
    decimals = min(decimals, max(len(str(v).partition(".")[2]) for v in values))
    first, *others = (f"{v:z,.{decimals}f}" for v in values)  # z: no -0
    return f"{first} ± {others[0]}" if len(others) == 1 else f"{first} [{others[0]}, {others[1]}]"


def duration(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def overview(items: list) -> str:
    """A Markdown table of verdicts, with links to the folders."""
    rows = []
    for item in items:
        for record in item.results:
            link = f"[{plain(item.name)}](figures/{record.url})"
            rows.append(
                [link, plain(item.title), plain(record.corpus), record.scale, record.verdict]
            )
        if not item.results:
            rows.append([item.name, item.title, "", "", item.verdict])
    return columns(["", "title", "on", "scale", "verdict"], rows)


def numbers(groups: dict[str, list], theirs: str) -> str:
    """A Markdown table of what was measured, beside others' numbers where there are any; `theirs` says whose."""
    rows = []
    for group, found in groups.items():
        rows += [[f"**{plain(group)}**", "", ""]] if group else []
        rows += [[plain(cell) for cell in row] for row in found]
    width = 3 if any(row[2] for row in rows) else 2
    return columns(["quantity", "ours", theirs][:width], [row[:width] for row in rows])


def columns(header: list[str], rows: list[list[str]]) -> str:
    """Aligned, so that it reads well in a terminal too."""
    widths = [
        max(3, *(len(row[column]) for row in [header, *rows])) for column in range(len(header))
    ]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in [header, *rows]]
    return "\n".join(
        [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
    )


def plain(text: Any) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*|<]|\[(?=[^\]]*\][\[(:]))", r"\\\1", " ".join(str(text).split()))


def wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(
        plain(text), 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
