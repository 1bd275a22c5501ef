"""The course: its sources, its notebooks, and the pages made of both."""

import ast
import base64
import copy
import io
import json
import re
from dataclasses import replace
from urllib.parse import unquote

import pytest
from PIL import Image

from reproduce.core.discovery import discover
from reproduce.site import course
from reproduce.site.course_steps import (
    CODE,
    COURSE,
    FIGURES_MARK,
    NOTEBOOKS,
    colab_url,
    describe,
    notebook_text,
    read_step,
    read_steps,
    repository_url,
)
from tests.conftest import ROOT

STEPS = read_steps()
SECTIONS = [
    "The idea",
    "Try it",
    "What you see",
    "Questions",
    "Exercises",
    "Further reading",
]
NOTEBOOKS_SIZE = 3e6  # bytes that all notebooks may take


each_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


def committed(step):
    return json.loads(step.notebook.read_text("utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def output_pictures(cell):
    """The pictures in a cell's outputs, decoded."""
    for output in cell["outputs"]:
        for kind, data in output.get("data", {}).items():
            if kind.startswith("image/"):
                yield Image.open(io.BytesIO(base64.b64decode("".join(data))))


def test_steps_are_numbered_and_listed():
    assert [int(step.name[:2]) for step in STEPS] == list(range(1, len(STEPS) + 1))
    index = (COURSE / "index.md").read_text("utf-8")
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for number, step in enumerate(STEPS, 1):
        assert step.title.startswith(f"{number}. "), step.title
        question = step.title.removeprefix(f"{number}. ")
        assert f"| [{number}]({step.name}.md) | {question} | {step.minutes} |" in index
        assert f": course/{step.name}.md\n" in navigation
    assert sorted(NOTEBOOKS.glob("*.ipynb")) == [step.notebook for step in STEPS]


def test_plans_of_the_teacher_fill_their_minutes():
    text = (COURSE / "teacher.md").read_text("utf-8")
    plans = re.findall(r"^### (\d+) minutes:.*?\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert [int(minutes) for minutes, _ in plans] == [10, 45, 90]
    for minutes, table in plans:
        assert sum(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == int(minutes)
    assert text.count("<summary>Reveal</summary>") >= 10


@each_step
def test_a_step_is_complete(step):
    assert step.title.endswith("?")
    assert 10 <= step.minutes <= 20
    assert re.findall(r"^## (.+)$", step.text, re.MULTILINE) == SECTIONS
    questions = step.text.partition("## Questions\n")[2].partition("## Exercises")[0]
    headings = re.findall(r"^\*\*\d\. [^*]+?[?.]\*\*$", questions, re.MULTILINE | re.DOTALL)
    answers = re.findall(
        r'^<details markdown="1"><summary>Answer</summary>\n\n.+?\n\n</details>$',
        questions,
        re.MULTILINE | re.DOTALL,
    )
    assert 2 <= len(headings) == len(answers) <= 4
    assert re.search(r"^1\. ", step.text.partition("## Exercises\n")[2], re.MULTILINE)
    assert len(step.code) >= 3
    for cell in step.code:  # the first comment describes the cell's pictures on the page
        assert re.match(r"# \S.{10,}\n", cell), cell[:60]


@each_step
def test_figures_exist_or_can_be_made(step):
    scripts = discover()
    assert step.figures
    for name in [*step.figures, *step.more]:
        corpus, figure = name.split("/")[:2]
        assert figure in scripts, name
        assert scripts[figure].FIGURE.corpus in ("", corpus), name
    assert step.text.count(FIGURES_MARK) == 1


def test_most_figures_are_committed():
    """A step without a committed picture only names the figure: an exception."""
    shown = [name for step in STEPS for name in step.figures]
    present = [name for name in shown if (ROOT / "figures" / name).is_file()]
    assert len(present) >= 0.8 * len(shown), set(shown) - set(present)


@each_step
def test_links_of_sources_lead_to_files(step):
    links = re.findall(r"\]\(([^)\s]+)\)", step.text)
    dead = [
        link
        for link in links
        if not re.match(r"\w+:", link) and not (COURSE / link.partition("#")[0]).is_file()
    ]
    assert not dead


@each_step
def test_the_notebook_has_the_text_and_code_of_its_source(step):
    made, kept = course.notebook(step), committed(step)
    hint = "run: python -m reproduce.site.course (or --text, if only text has changed)"
    assert [(c["cell_type"], c["source"]) for c in made.cells] == [
        (c["cell_type"], "".join(c["source"])) for c in kept["cells"]
    ], hint
    source = CODE.sub("", step.text).replace(FIGURES_MARK, "")
    text = "\n".join(c["source"] for c in made.cells if c["cell_type"] == "markdown")
    for line in source.splitlines():
        assert "](" in line or line in text, line
    assert [c["source"] for c in code_cells(made)][1:] == step.code
    assert len({cell["id"] for cell in kept["cells"]}) == len(kept["cells"])


@each_step
def test_the_notebook_has_outputs(step):
    setup, *cells = code_cells(committed(step))
    assert setup["outputs"] == []
    for number, cell in enumerate(code_cells(committed(step)), 1):
        assert cell["execution_count"] == number
        for output in cell["outputs"]:
            assert output["output_type"] in ("stream", "display_data", "execute_result")
            assert output.get("name") != "stderr", output["text"]
            assert not re.search(r"/(home|root|Users|tmp)/", json.dumps(output))
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    assert output["metadata"][kind]["alt"] == describe("".join(cell["source"]))
        shown = list(output_pictures(cell))
        drawing = bool(
            re.search(
                r"^(figure$|draw\(|plot\.\w+_figure\()", "".join(cell["source"]), re.MULTILINE
            )
        )
        assert len(shown) == drawing
        for picture in shown:
            assert picture.width >= 560, picture.size
    assert any(list(output_pictures(cell)) for cell in cells)


def test_notebooks_are_small():
    assert sum(step.notebook.stat().st_size for step in STEPS) <= NOTEBOOKS_SIZE


def test_the_first_cell_installs_from_the_address_of_the_project():
    assert f"git+{repository_url()}" in course.notebook(STEPS[0]).cells[0]["source"]
    owner = repository_url().removeprefix("https://github.com/")
    assert colab_url(STEPS[0]) == (
        f"https://colab.research.google.com/github/{owner}/blob/main/docs/course/notebooks/"
        f"{STEPS[0].name}.ipynb"
    )


@each_step
def test_links_of_notebooks_work_in_a_clone_and_elsewhere(step):
    blob = f"{repository_url()}/blob/main/"
    for link in re.findall(r"\]\(([^)\s]+)\)", notebook_text(step)):
        if link.startswith(blob):
            assert (ROOT / link.removeprefix(blob).partition("#")[0]).exists(), link
        elif not link.startswith("http"):
            assert (NOTEBOOKS / unquote(link)).is_file(), link


def test_the_first_cell_is_python_with_magics():
    transformer = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()
    setup = course.notebook(STEPS[0]).cells[0]["source"]
    code = transformer.transform_cell(setup)
    tree = ast.parse(code)
    (condition,) = (node for node in tree.body if isinstance(node, ast.If))
    assert "run_line_magic('pip'" in ast.unparse(condition)  # only where zfnet is missing
    assert "pip" not in ast.unparse(tree).replace(ast.unparse(condition), "")


def test_outputs_are_kept_only_for_the_same_code():
    step = STEPS[1]
    old, new = committed(step), course.notebook(step)
    course.keep_outputs(new, old)
    assert [c["outputs"] for c in code_cells(new)] == [c["outputs"] for c in code_cells(old)]
    changed = copy.deepcopy(old)
    code_cells(changed)[1]["source"] = ["1 + 1"]
    with pytest.raises(ValueError, match="run the notebook again"):
        course.keep_outputs(course.notebook(step), changed)


def test_front_matter_is_needed(tmp_path):
    path = tmp_path / "01-x.md"
    path.write_text("# 1. A step?\n")
    with pytest.raises(ValueError, match="needs front matter"):
        read_step(path)


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs", reason="needs the extra: pip install 'zfnet-deconvnet[docs]'")
    from reproduce.site import hooks

    return hooks


@each_step
def test_the_page_shows_code_outputs_and_figures(hooks, step):
    page = hooks.step_page(step, len(STEPS))
    assert page.startswith(f"# {step.title}\n\nStep {int(step.name[:2])} of {len(STEPS)}")
    assert f"(notebooks/{step.name}.ipynb)" in page
    assert colab_url(step) in page
    outputs = hooks.read_outputs(step)
    written = {
        name
        for number, results in enumerate(outputs)
        for name in hooks.pictures(step, number, results)
    }
    images = re.findall(r"\[!\[([^\]]*)\]\(([^)]+)\)\]\(([^)]+)\)", page)
    assert len(images) == page.count("![")  # each picture opens its full size
    for alt, picture, full_size in images:
        assert len(alt) > 10
        assert picture == full_size
        assert picture in written or (ROOT / picture.removeprefix("../")).is_file()
    assert written == {picture for _, picture, _ in images if picture.startswith("pictures/")}
    for results in outputs:
        for output in results:
            for line in "".join(output.get("text", "")).splitlines():
                assert line in page
    committed_figures = [n for n in step.figures if (ROOT / "figures" / n).is_file()]
    assert sum(f"](../figures/{name})](" in page for name in committed_figures) == len(
        committed_figures
    )


def test_a_figure_that_is_not_committed_is_named(hooks):
    step = replace(STEPS[0], figures={"imagenet65k/absent/absent.jpg": "A title"}, more={})
    page = hooks.step_page(step, len(STEPS))
    assert "**A title.** `python -m reproduce run absent` makes it." in page
    assert "absent.jpg" not in page


def test_formulas_become_mathml(hooks):
    page = '<p><span class="arithmatex">\\(a &lt; b_1\\)</span></p><div class="arithmatex">\\[x\\]</div>'
    html = hooks.on_page_content(page)
    assert "arithmatex" not in html
    assert html.count("<math") == 2
    assert 'display="inline"' in html
    assert 'display="block"' in html
    assert "<msub>" in html
    assert "&lt;" in html.replace("&#x0003C;", "&lt;")


@pytest.mark.slow
@each_step
def test_the_notebook_runs(step):
    """In a Jupyter kernel, as a reader runs it: no cell fails, and the same cells show pictures."""
    made = course.notebook(step)
    course.execute(made)
    for cell, kept in zip(code_cells(made), code_cells(committed(step)), strict=True):
        assert len(list(output_pictures(cell))) == len(list(output_pictures(kept)))
        assert not [o for o in cell["outputs"] if o.get("name") == "stderr"]
