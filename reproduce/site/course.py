"""Write the notebooks of the course from their sources, `docs/course/NN-name.md`.

    python -m reproduce.site.course                # all of them
    python -m reproduce.site.course 07 08          # some
    python -m reproduce.site.course --text         # new text, old outputs: runs nothing

The notebooks are committed with their outputs, in docs/course/notebooks. The pages of the site take
the outputs from them. Needs the extras `reproduce` and `dev`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import time
from typing import Any

from PIL import Image

from reproduce.site.course_steps import (
    NOTEBOOKS,
    Step,
    describe,
    notebook_text,
    read_steps,
    repository_url,
)

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SETUP = """\
# Install zfnet where it is missing, such as in Colab. In a clone this changes nothing.
import importlib.util

if importlib.util.find_spec("zfnet") is None:
    %pip install -q "zfnet-deconvnet[reproduce] @ git+{url}"
%matplotlib inline"""
QUALITY = 80  # of JPEG


def notebook(step: Step) -> Any:
    """Convert a step to an nbformat notebook without outputs; the first cell installs zfnet."""
    import jupytext  # slow to import
    import nbformat

    cells = jupytext.reads(notebook_text(step), fmt="md").cells
    cells.insert(0, nbformat.v4.new_code_cell(SETUP.format(url=repository_url())))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # replace the random ids
        cell["metadata"] = {}
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def execute(cells: Any) -> None:
    """Run a notebook in place, in a Jupyter kernel, as a reader runs it.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    import nbclient

    client = nbclient.NotebookClient(
        cells,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    client.execute()
    cells.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in cells.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                compress_picture(output["data"])


def keep_outputs(cells: Any, old: Any) -> None:
    """Take the outputs of an older notebook with the same code.

    Raises:
        ValueError: The code differs.
    """
    new_code, old_code = (
        [cell for cell in book["cells"] if cell["cell_type"] == "code"] for book in (cells, old)
    )
    if [cell["source"] for cell in new_code] != ["".join(cell["source"]) for cell in old_code]:
        raise ValueError("the code has changed: run the notebook again")
    for cell, before in zip(new_code, old_code, strict=True):
        cell["outputs"], cell["execution_count"] = before["outputs"], before["execution_count"]


def compress_picture(data: dict[str, str]) -> None:
    """Replace the PNG of an output by a JPEG if that is smaller; drop the text that repeats it."""
    data.pop("text/plain", None)
    png = base64.b64decode(data["image/png"])
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "JPEG", quality=QUALITY, optimize=True)
    if len(file.getvalue()) < len(png):
        del data["image/png"]
        data["image/jpeg"] = base64.b64encode(file.getvalue()).decode("ascii")


def add_alternative_text(cells: Any) -> None:
    """Describe the pictures in the outputs for those who cannot see them."""
    for cell in cells.cells:
        for output in cell.get("outputs", []):
            kinds = [kind for kind in output.get("data", {}) if kind.startswith("image/")]
            if "metadata" in output:
                output["metadata"] = {kind: {"alt": describe(cell["source"])} for kind in kinds}


def write(step: Step, text_only: bool = False) -> None:
    """Write the notebook of a step.

    Args:
        step: The step.
        text_only: Keep the outputs of the existing notebook instead of running the code.
    """
    import nbformat

    cells = notebook(step)
    if text_only:
        keep_outputs(cells, nbformat.read(step.notebook, as_version=4))
    else:
        execute(cells)
    add_alternative_text(cells)
    step.notebook.parent.mkdir(exist_ok=True)
    text = json.dumps(nbformat.from_dict(cells), indent=1, ensure_ascii=False, sort_keys=True)
    step.notebook.write_text(text + "\n", "utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reproduce.site.course", description="Write the notebooks of the course."
    )
    parser.add_argument("steps", nargs="*", help="numbers of steps, such as 07 (default: all)")
    parser.add_argument("--text", action="store_true", help="keep the outputs, and run nothing")
    options = parser.parse_args(arguments)
    chosen = [s for s in read_steps() if not options.steps or s.name[:2] in options.steps]
    if not chosen:
        parser.error(f"no such step: {', '.join(options.steps)}")
    for step in chosen:
        start = time.perf_counter()
        write(step, options.text)
        size = step.notebook.stat().st_size / 1e3
        seconds = time.perf_counter() - start
        print(f"{step.notebook.name}: {size:.0f} kB in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
