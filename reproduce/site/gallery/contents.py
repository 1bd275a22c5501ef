"""What a page shows of a record: pictures, findings, and numbers beside published ones."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from PIL import Image

from reproduce.core.claims import CLAIMS, outcomes, shortfall, summary
from reproduce.core.record import Record
from reproduce.site.gallery.declarations import declarations
from reproduce.site.gallery.entries import PAPER, Entry
from reproduce.site.text import columns, escape_markdown, is_deviation, is_interval, number

MAX_ROWS = 8  # of a short table
Rows = list[tuple[str, str, str]]  # quantity, ours, published
Path = tuple[str, ...]  # keys of a measured number


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


def cover(entry: Entry) -> Picture | None:
    """The picture that stands for an entry, or None without readable pictures."""
    declared = declarations().get(entry.record.id)
    name = declared.cover if declared else ""
    readable = pictures(entry)
    return next((p for p in readable if p.name == name), readable[0] if readable else None)


def finding(record: Record) -> str:
    """What was found, in a sentence: the record's own, or a summary of the tested claims."""
    if record.verdict == "not run":
        return ""
    return record.finding or summary(record.measured) or record.claim


def reason(record: Record) -> str:
    """Why the verdict is not better; empty for a figure that is reproduced."""
    if record.verdict in ("reproduced", "by construction"):
        return ""
    default = record.note if record.verdict == "not run" else shortfall(record.measured)
    return record.reason or default


def tables(record: Record) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """The measured numbers, in groups by their first key.

    Returns:
        The groups with published numbers, and all others. Numbers without a group come first, in
        group "". Further nested keys become "a: b". Claims are left to `outcomes`.
    """
    ours, published = _numbers(record)
    groups: dict[str, Rows] = {"": []}
    for path in dict.fromkeys([*ours, *published]):
        group, name = (path[0], ": ".join(path[1:])) if len(path) > 1 else ("", "".join(path))
        row = name, number(ours.get(path, "")), number(published.get(path, ""))
        groups.setdefault(group, []).append(row)
    compared = {group: rows for group, rows in groups.items() if any(row[2] for row in rows)}
    others = {group: rows for group, rows in groups.items() if rows and group not in compared}
    return compared, others


def short_table(record: Record) -> tuple[str, Rows]:
    """The numbers that say most about a figure.

    They are those that the figure declares as its headline; else those with published numbers,
    then those with intervals, then the other numbers.

    Returns:
        What all rows have in common, as "group: subgroup", and at most MAX_ROWS rows.
    """
    ours, published = _numbers(record)
    declared = declarations().get(record.id)
    every = {": ".join(path): path for path in [*published, *ours]}
    chosen = [every[name] for name in (declared.headline if declared else ()) if name in every]
    chosen = (chosen or _default_rows(ours, published))[:MAX_ROWS]
    common = _common(chosen)
    rows = [
        (": ".join(path[common:]), number(ours.get(path, "")), number(published.get(path, "")))
        for path in chosen
    ]
    return ": ".join(chosen[0][:common]) if chosen else "", rows


def _numbers(record: Record) -> tuple[dict[Path, Any], dict[Path, Any]]:
    measured = {key: value for key, value in record.measured.items() if key not in CLAIMS}
    return flatten(measured), flatten(record.paper)


def _default_rows(ours: dict[Path, Any], published: dict[Path, Any]) -> list[Path]:
    """The numbers of a figure that declares no headline, the most telling first."""
    if not ours:
        return list(published)
    compared = [path for path in published if path in ours]
    intervals = [path for path in ours if is_interval(ours[path]) or is_deviation(ours[path])]
    plain = [path for path, value in ours.items() if isinstance(value, int | float)]
    return list(dict.fromkeys([*compared, *intervals])) or plain


def _common(paths: list[Path]) -> int:
    """How many first keys all paths share; each keeps its last."""
    if len(paths) < 2:
        return 0
    shared = takewhile(lambda keys: len(set(keys)) == 1, zip(*paths, strict=False))
    return min([len(list(shared)), *(len(path) - 1 for path in paths)])


def flatten(values: dict[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Nested measured numbers by their keys."""
    flat: dict[Path, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, (*path, name)) if nested else {(*path, name): value}
    return flat


def claims(record: Record) -> list[tuple[str, str, str]]:
    """The tested claims as (claim, outcome, state); the state is yes, no, partly or undecided."""
    return outcomes(record.measured)


def published_by(record: Record) -> str:
    """The header of the column of published numbers."""
    return "paper" if record.id in PAPER else "published"


def markdown_table(record: Record) -> str:
    """The short table of a record in Markdown; empty without numbers."""
    common, rows = short_table(record)
    if not rows:
        return ""
    width = 3 if any(row[2] for row in rows) else 2
    header = [escape_markdown(common), "ours", published_by(record)]
    cells = [[escape_markdown(cell) for cell in row] for row in rows]
    return columns(header[:width], [row[:width] for row in cells])
