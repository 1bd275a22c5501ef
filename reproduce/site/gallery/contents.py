"""What a page shows of a record: pictures, claims, and numbers beside published ones."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from PIL import Image

from reproduce.core.record import Record
from reproduce.site.gallery.entries import PAPER, Entry, Item
from reproduce.site.text import columns, escape_markdown, number

CLAIMS = ("claims", "goals")  # keys of `measured`: the paper's claims, and a benchmark's goals
Rows = list[tuple[str, str, str]]  # quantity, ours, published


@dataclass(frozen=True)
class Picture:
    """A picture file. Its size in pixels keeps the page from jumping while it loads."""

    name: str
    url: str
    width: int
    height: int


def pictures(entry: Entry) -> list[Picture]:
    """The pictures of an entry that can be read."""
    readable = []
    for name in entry.record.files:
        with contextlib.suppress(OSError, ValueError), Image.open(entry.folder / name) as image:
            readable.append(Picture(name, f"{entry.url}/{quote(name)}", *image.size))
    return readable


def claims(record: Record) -> list[tuple[str, str, str]]:
    """The tested claims as (claim, outcome, state); the state is yes, no, partly or undecided."""
    outcomes = [
        (claim, number(outcome))
        for kind in CLAIMS
        for claim, outcome in record.measured.get(kind, {}).items()
    ]
    return [(claim, outcome, _state(outcome)) for claim, outcome in outcomes]


def _state(outcome: str) -> str:
    count = re.fullmatch(r"(\d+) of (\d+)", outcome)
    if outcome in ("holds", "reached", "yes") or (count and count[1] == count[2]):
        return "yes"
    if outcome in ("does not hold", "not reached", "no") or (count and count[1] == "0"):
        return "no"
    return "partly" if count else "undecided"


def tables(record: Record) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """The measured numbers, in groups by their first key.

    Returns:
        The groups with published numbers, and all others. Numbers without a group come first, in
        group "". Further nested keys become "a: b". Claims are left to `claims`.
    """
    measured = {key: value for key, value in record.measured.items() if key not in CLAIMS}
    ours, published = _flatten(measured), _flatten(record.paper)
    groups: dict[str, Rows] = {"": []}
    for path in dict.fromkeys([*ours, *published]):
        group, name = (path[0], ": ".join(path[1:])) if len(path) > 1 else ("", "".join(path))
        row = name, number(ours.get(path, "")), number(published.get(path, ""))
        groups.setdefault(group, []).append(row)
    compared = {group: rows for group, rows in groups.items() if any(row[2] for row in rows)}
    others = {group: rows for group, rows in groups.items() if rows and group not in compared}
    return compared, others


def _flatten(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        flat |= _flatten(value, (*path, name)) if nested else {(*path, name): value}
    return flat


def published_by(record: Record) -> str:
    """The header of the column of published numbers."""
    return "the paper's" if record.id in PAPER else "published"


def verdict_table(items: list[Item]) -> str:
    """A Markdown table of verdicts, with links to the folders of the results."""
    rows = []
    for item in items:
        for entry in item.entries:
            link = f"[{escape_markdown(item.name)}](figures/{entry.url})"
            title, corpus = escape_markdown(item.title), escape_markdown(entry.corpus)
            rows.append([link, title, corpus, entry.record.scale, entry.record.verdict])
        if not item.entries:
            rows.append([item.name, item.title, "", "", item.verdict])
    return columns(["", "title", "on", "scale", "verdict"], rows)


def number_table(groups: dict[str, Rows], published: str) -> str:
    """A Markdown table of measured numbers.

    Args:
        groups: Rows by group, as `tables` returns them.
        published: Header of the column of published numbers. It is left out if there are none.
    """
    rows = []
    for group, members in groups.items():
        rows += [[f"**{escape_markdown(group)}**", "", ""]] if group else []
        rows += [[escape_markdown(cell) for cell in row] for row in members]
    width = 3 if any(row[2] for row in rows) else 2
    header = ["quantity", "ours", published]
    return columns(header[:width], [row[:width] for row in rows])
