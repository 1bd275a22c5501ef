"""The static pages and RESULTS.md, from recorded results only: JSON and pictures. Needs neither torch nor data."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent
REPOSITORY = TEMPLATES.parent.parent
MARKS = ("<!-- results: written by python -m reproduce gallery -->", "<!-- end of results -->")
COMMITTED = ("imagenet65k", "caltech101", "mnist", "scenes")  # on one page; any other corpus has a page of its own


def write(out: Path, only: Collection[str] | None = None) -> list[Path]:
    """Write `out/index.html` for the committed corpora, `out/<corpus>/index.html` for others, RESULTS.md, the README's results.

    `only` limits it to the pages that hold these corpora. Returns the paths written.
    """
    corpora = {folder.name: records(folder) for folder in sorted(out.iterdir()) if folder.is_dir()} if out.is_dir() else {}
    corpora = {name: found for name, found in corpora.items() if found}
    committed = {name: found for name, found in corpora.items() if name in COMMITTED}
    pages = []
    if committed and (only is None or set(only) & set(committed)):
        pages.append(_page(out / "index.html", committed, prefix=True))
    for name, found in corpora.items():
        if name not in committed and (only is None or name in only):
            pages.append(_page(out / name / "index.html", {name: found}, prefix=False))
    if only is None and committed and out.resolve() == (REPOSITORY / "figures").resolve():
        (REPOSITORY / "RESULTS.md").write_text(_render("results.md", committed, prefix=True))
        readme = REPOSITORY / "README.md"
        before, _, rest = readme.read_text().partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        readme.write_text(before + MARKS[0] + "\n" + _render("summary.md", committed, prefix=True) + MARKS[1] + after)
        pages += [REPOSITORY / "RESULTS.md", readme]
    return pages


def records(folder: Path) -> list[SimpleNamespace]:
    """The records of one corpus, by id; those that cannot be read are left out."""
    found = []
    for path in sorted(folder.glob("*/result.json")):
        with contextlib.suppress(ValueError):
            found.append(SimpleNamespace(**json.loads(path.read_text())))
    return found


def _page(path: Path, corpora: dict[str, list[SimpleNamespace]], prefix: bool) -> Path:
    path.write_text(_render("page.html", corpora, prefix))
    return path


def _render(template: str, corpora: dict[str, list[SimpleNamespace]], prefix: bool) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=template.endswith(".html"), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(corpora=corpora, prefix=prefix, rows=rows)


def rows(record: SimpleNamespace) -> list[tuple[str, Any, Any]]:
    """(quantity, ours, the paper's) for a table; nested dicts become "a: b", long lists are left to result.json."""
    paper = _flat(record.paper)
    measured = {name: value for name, value in _flat(record.measured).items() if not isinstance(value, list) or len(value) <= 8}
    return [(name, measured.get(name, ""), paper.get(name, "")) for name in dict.fromkeys([*measured, *paper])]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}: ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def number(value: Any) -> str:
    """A number as a reader wants it: three significant digits, thousands apart."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(number(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value)
