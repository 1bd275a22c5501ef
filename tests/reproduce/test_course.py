"""The course: ten steps that are whole, links and commands that exist; and, slowly, its notebook from beginning to end."""

import json
import re
import shlex

import pytest

from reproduce.figure import discover
from reproduce.notebook import COURSE, notebook, write
from tests.conftest import ROOT
from tests.reproduce.test_figures import command

TEXT = COURSE.read_text("utf-8")
STEPS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


def test_there_are_ten_steps_each_with_its_question_picture_command_code_and_a_question_to_the_reader():
    assert [int(step.split(".")[0]) for step in STEPS] == list(range(1, 11))
    for step in STEPS:
        title = step.splitlines()[0]
        assert title.endswith("?"), title
        assert len(re.findall(r"^!\[.+\]\(\.\./\.\./figures/.+\)$", step, re.MULTILINE)) == 1, title
        assert re.search(r"^    python -m reproduce run ", step, re.MULTILINE), title
        assert re.search(r"^```python$", step, re.MULTILINE), title
        asked = step.partition("**To you:**")[2]
        assert "?" in asked, title
    assert "layer 1 look for" in STEPS[0].splitlines()[0]
    assert "fool" in STEPS[-1].splitlines()[0]


def test_every_link_exists():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(links) >= 11
    missing = [link for link in links if not link.startswith("http") and not (COURSE.parent / link).exists()]
    assert not missing


def test_every_command_names_figures_that_exist_and_the_picture_beside_it():
    scripts = discover()
    for step in STEPS:
        (line,) = re.findall(r"^    python -m reproduce run (.+)$", step, re.MULTILINE)
        words = [word for word in shlex.split(line) if word not in ("--data", "PATH")]
        assert set(words) <= set(scripts), line
        assert re.search(r"figures/imagenet65k/(\w+)/", step)[1] == words[0]
        needs_images = {"images", "top"} & set(scripts[words[0]].FIGURE.inputs)
        assert ("--data PATH" in line) == bool(needs_images), line
    for name in re.findall(r"`(\w+)` counts", TEXT):
        assert name in scripts


def test_the_notebook_is_the_readme():
    made = notebook(TEXT)
    code = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    assert len(code) == 1 + len(STEPS)
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])
    assert "".join(code[0]["source"]).startswith("%matplotlib inline\nimport torch")
    together = []
    for cell in made["cells"]:
        source = "".join(cell["source"])
        together.append(
            f"```python\n{source.removeprefix('%matplotlib inline' + chr(10))}\n```" if cell["cell_type"] == "code" else source
        )
    assert [line for line in "\n".join(together).splitlines() if line] == [line for line in TEXT.splitlines() if line]


def test_the_command_writes_it(tmp_path):
    done = command("reproduce", "notebook", "--out", str(tmp_path / "deep" / "course.ipynb"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "deep" / "course.ipynb").read_text("utf-8")) == notebook(TEXT)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """In a Jupyter kernel, as a reader runs it: no cell fails, and the figures are shown."""
    nbformat = pytest.importorskip("nbformat", reason="nbclient and ipykernel, of the dev extra, are not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient and ipykernel, of the dev extra, are not installed")
    made = nbformat.read(write(tmp_path / "course.ipynb"), as_version=4)
    nbformat.validate(made)
    nbclient.NotebookClient(made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    shown = [cell for cell in code if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    drawing = [cell for cell in code if "_figure(" in cell.source]
    assert len(shown) == len(drawing) >= 6
