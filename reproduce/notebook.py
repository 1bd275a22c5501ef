"""The course as a notebook: `reproduce/lectures/README.md`, its Python blocks as cells, everything else as text between them.

It is made, not kept: the course has one source, and a copy of it in the repository could only differ. A notebook is JSON, so no
library is needed to write one (https://nbformat.readthedocs.io). Pictures are linked, relative to the notebook.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

COURSE = Path(__file__).parent / "lectures" / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")  # to a file
INLINE = "%matplotlib inline\n"  # so that a figure which ends a cell is shown


def notebook(text: str) -> dict:
    """The notebook (format 4.5) of a Markdown text: a code cell for each Python block, Markdown cells between them."""
    cells = []
    for number, part in enumerate(BLOCK.split(text)):  # text, block, text, ...
        if not part.strip():
            continue
        cell = {
            "id": f"cell-{number}",
            "metadata": {},
            "cell_type": "code" if number % 2 else "markdown",
        }
        if number % 2:
            cell |= {"execution_count": None, "outputs": []}
            part = INLINE + part if number == 1 else part
        cells.append(cell | {"source": part.strip("\n").splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def write(path: Path) -> Path:
    """Write the course as a notebook.

    Args:
        path: The file, or a folder (one that exists, or a name without .ipynb), into which course.ipynb is written.

    Returns:
        The file. Its pictures and links are relative to its own folder.
    """
    if path.is_dir() or path.suffix != ".ipynb":
        path = path / "course.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = relinked(COURSE.read_text("utf-8"), path.parent)
    path.write_text(json.dumps(notebook(text), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def relinked(text: str, folder: Path) -> str:
    """The course's text with its links relative to another folder. Addresses of the web and of sections stay."""

    def relative(match: re.Match) -> str:
        path = os.path.relpath((COURSE.parent / match[1]).resolve(), folder.resolve())
        return f"]({Path(path).as_posix()})"

    return LINK.sub(relative, text)
