"""Every measured number as one row of results.csv."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from reproduce.site.gallery.contents import flatten
from reproduce.site.gallery.entries import Entry
from reproduce.site.text import is_deviation, is_interval

FIELDS = ("id", "quantity", "value", "low", "high", "paper", "scale", "verdict", "commit")


def rows(entries: Iterable[Entry]) -> list[dict[str, str]]:
    """One row per measured or published number, in the order of the records.

    An interval [value, low, high] is one row. The standard deviation of [mean, deviation] and the
    items of other lists have rows of their own. Numbers keep all digits.

    Args:
        entries: The results. A figure with results on two corpora has ids "figure (corpus)".
    """
    entries = list(entries)
    count = Counter(entry.record.id for entry in entries)
    return [row for entry in entries for row in _rows(entry, count[entry.record.id] > 1)]


def _rows(entry: Entry, ambiguous: bool) -> Iterator[dict[str, str]]:
    record = entry.record
    ours, published = _cells(record.measured), _cells(record.paper)
    about = {
        "id": f"{record.id} ({entry.corpus})" if ambiguous else record.id,
        "scale": record.scale,
        "verdict": record.verdict,
        "commit": entry.environment["commit"],
    }
    for quantity in dict.fromkeys([*ours, *published]):
        value, low, high = ours.get(quantity, ("", "", ""))
        paper, _, _ = published.get(quantity, ("", "", ""))
        numbers = {"quantity": quantity, "value": value, "low": low, "high": high, "paper": paper}
        yield {field: (about | numbers)[field] for field in FIELDS}


def _cells(values: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """(value, low, high) by quantity."""
    cells: dict[str, tuple[str, str, str]] = {}
    for path, value in flatten(values).items():
        name = ": ".join(path)
        if is_interval(value):
            cells[name] = (_text(value[0]), _text(value[1]), _text(value[2]))
        elif is_deviation(value):
            cells[name] = (_text(value[0]), "", "")
            cells[f"{name}, standard deviation"] = (_text(value[1]), "", "")
        elif isinstance(value, list):
            cells |= {f"{name} [{i}]": (_text(item), "", "") for i, item in enumerate(value)}
        else:
            cells[name] = (_text(value), "", "")
    return cells


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def write_csv(entries: Iterable[Entry]) -> str:
    """The rows as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows(row.values() for row in rows(entries))
    return file.getvalue()


def read_csv(text: str) -> list[dict[str, str]]:
    """The rows of a CSV file that `write_csv` wrote."""
    return list(csv.DictReader(io.StringIO(text)))
