"""Hooks of mkdocs: outputs and figures in the course, formulas, and links to the gallery.

`mkdocs.yml` names this file. Only `python -m reproduce site` sets `extra.gallery`, since it puts
the gallery and the atlas next to the documents. Imports no torch.
"""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # mkdocs does not import from the repository

from reproduce.site.course_steps import (  # noqa: E402
    CODE,
    FIGURES_MARK,
    Step,
    colab_url,
    describe,
    figures_section,
    read_steps,
)

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
GALLERY = """
## On this site

- <a href="figures/index.html">The paper's figures and tables</a>, with every number
- <a href="figures/lectures.html">Lectures and benchmarks</a>
{atlas}"""
ATLAS = '- <a href="{url}">The atlas</a>: a page for every feature of the network\n'


def on_files(files: Any, config: Any) -> Any:
    """Add the committed figures, and the pictures in the outputs of the course."""
    folders = [p.parent for p in sorted(ROOT.glob("figures/*/*/result.json"))]
    paths = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    paths += [path for path in (ROOT / "figures").iterdir() if path.is_file()]
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config["site_dir"], config["use_directory_urls"]))
    for step in read_steps():
        for number, outputs in enumerate(read_outputs(step)):
            for name, content in pictures(step, number, outputs).items():
                files.append(File.generated(config, f"course/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Complete a step of the course; link the first page to the gallery, if the site has one."""
    source = page.file.src_uri
    if source == "index.md" and (gallery := config["extra"].get("gallery")) is not None:
        return markdown + GALLERY.format(atlas=ATLAS.format(url=gallery) if gallery else "")
    steps = {f"course/{step.name}.md": step for step in read_steps()}
    if source in steps:
        page.meta["hide"] = ["toc"]  # room for code and pictures
        return step_page(steps[source], len(steps))
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Convert LaTeX to MathML, which browsers render without JavaScript."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]), display=display)

    return FORMULA.sub(mathml, content)


def step_page(step: Step, count: int) -> str:
    """Markdown of a step's page: the source, the notebook's outputs, and the figures."""
    outputs = iter(enumerate(read_outputs(step)))

    def with_outputs(match: re.Match[str]) -> str:
        number, results = next(outputs)
        return match[0] + output_text(step, number, match[1], results)

    text = CODE.sub(with_outputs, step.text)

    def site(path: Path) -> str:
        """The address of a file below figures/, which the site has next to course/."""
        return f"../{path.relative_to(ROOT).as_posix()}"

    figures = figures_section(step, site, site, lambda f: site(f / "index.html"), findings=True)
    heading, _, rest = text.lstrip().partition("\n")
    bar = (
        f"Step {step.number} of {count} · about {step.minutes} minutes · "
        f"[notebook](notebooks/{step.name}.ipynb) · [open in Colab]({colab_url(step)})"
    )
    return f"{heading}\n\n{bar}\n{rest}".replace(FIGURES_MARK, figures)


def read_outputs(step: Step) -> list[list[dict]]:
    """The outputs of each code cell of a step's notebook, without the cell that installs."""
    cells = json.loads(step.notebook.read_text("utf-8"))["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"][1:]


def pictures(step: Step, cell: int, outputs: list[dict]) -> dict[str, bytes]:
    """The pictures in the outputs of a cell, by file name."""
    files = {}
    for output in outputs:
        for kind, suffix in (("image/png", "png"), ("image/jpeg", "jpg")):
            if kind in output.get("data", {}):
                name = f"pictures/{step.name}-{cell + 1}-{len(files) + 1}.{suffix}"
                files[name] = base64.b64decode("".join(output["data"][kind]))
    return files


def output_text(step: Step, cell: int, code: str, outputs: list[dict]) -> str:
    """Markdown of a cell's outputs."""
    texts = ["".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in outputs]
    parts = [f"``` {{.text .no-copy}}\n{text.rstrip()}\n```" for text in texts if text.strip()]
    parts += [f"[![{describe(code)}]({name})]({name})" for name in pictures(step, cell, outputs)]
    return "".join(f"\n{part}\n" for part in parts)
