"""What scripts declare about their figures, for the pages.

Most figures have records, which hold all that a page shows. A figure that was never run has none,
and importing its script would import torch. So the literals of `FIGURE = Figure(...)` are parsed.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

from reproduce import REPOSITORY

FIELDS = ("id", "title", "claim", "inputs", "corpus", "labels", "headline", "cover")


@dataclass(frozen=True)
class Declaration:
    """The fields of a `Figure` that the pages need, and the path of its script."""

    id: str
    script: str
    title: str
    inputs: tuple[str, ...]
    claim: str = ""
    corpus: str = ""
    labels: bool = False
    headline: tuple[str, ...] = ()
    cover: str = ""


@functools.cache
def declarations() -> dict[str, Declaration]:
    """The declaration of each figure, by id."""
    scripts = sorted((REPOSITORY / "reproduce").rglob("*.py"))
    parsed = (parse(script) for script in scripts)
    return {declaration.id: declaration for declaration in parsed if declaration}


def parse(script: Path) -> Declaration | None:
    """Parse the declaration in a script; None if it has none.

    Raises:
        ValueError: A field is not a literal.
    """
    for node in ast.parse(script.read_text("utf-8")).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if getattr(node.targets[0], "id", "") == "FIGURE":
            fields = {
                word.arg: ast.literal_eval(word.value)
                for word in node.value.keywords
                if word.arg in FIELDS
            }
            return Declaration(script=script.relative_to(REPOSITORY).as_posix(), **fields)
    return None
