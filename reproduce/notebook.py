"""The course as a notebook: `reproduce/lectures/README.md`, its Python blocks as cells, everything else as text between them.

It is made, not kept: the course has one source, and a copy of it in the repository could only differ. A notebook is JSON, so no
library is needed to write one (https://nbformat.readthedocs.io); pictures are linked, relative to the README.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

COURSE = Path(__file__).parent / "lectures" / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
INLINE = "%matplotlib inline\n"  # so that a figure which ends a cell is shown


def notebook(text: str) -> dict:
    """The notebook (format 4.5) of a Markdown text: a code cell for each Python block, Markdown cells between them."""
    cells = []
    for number, part in enumerate(BLOCK.split(text)):  # text, block, text, ...
        if not part.strip():
            continue
        cell = {"id": f"cell-{number}", "metadata": {}, "cell_type": "code" if number % 2 else "markdown"}
        if number % 2:
            cell |= {"execution_count": None, "outputs": []}
            part = INLINE + part if number == 1 else part
        cells.append(cell | {"source": part.strip("\n").splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def write(path: Path) -> Path:
    """Write the course's notebook, beside the README unless said otherwise; links are relative to there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook(COURSE.read_text("utf-8")), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path
