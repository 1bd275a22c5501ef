"""Write the course, `lectures/README.md`, as a Jupyter notebook.

The notebook is generated and never committed, so that the course has a single source.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

COURSE = Path(__file__).parent / "lectures" / "README.md"
FILE_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")
INLINE = "%matplotlib inline\n"  # shows the figure at the end of a cell
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook(text: str) -> Any:
    """Convert Markdown to a notebook.

    Args:
        text: Markdown. Its fenced Python blocks become code cells, the rest Markdown cells.

    Returns:
        An nbformat notebook.
    """
    import jupytext  # slow to import

    cells = jupytext.reads(text, fmt="md")
    cells.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(cells.cells):
        cell["id"] = f"cell-{number}"  # replace the random ids of jupytext
    first = next((cell for cell in cells.cells if cell.cell_type == "code"), None)
    if first is not None:
        first.source = INLINE + first.source
    return cells


def write(path: Path) -> Path:
    """Write the course as a notebook.

    Args:
        path: A file that ends in .ipynb, or a folder for `course.ipynb`.

    Returns:
        The written file. Its links are relative to its own folder.
    """
    import jupytext

    if path.is_dir() or path.suffix != ".ipynb":
        path = path / "course.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = notebook(relink(COURSE.read_text("utf-8"), path.parent))
    path.write_text(jupytext.writes(cells, fmt="ipynb") + "\n", "utf-8")
    return path


def relink(text: str, folder: Path) -> str:
    """Make the file links of the course relative to another folder; URLs do not change."""

    def relative(match: re.Match[str]) -> str:
        target = (COURSE.parent / match[1]).resolve()
        return f"]({Path(os.path.relpath(target, folder.resolve())).as_posix()})"

    return FILE_LINK.sub(relative, text)
