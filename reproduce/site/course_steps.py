"""The steps of the course, `docs/course/NN-name.md`: their front matter, figures and links.

A step is jupytext Markdown. `reproduce.site.course` makes its notebook, and the hooks of mkdocs
make its page, with the outputs of the notebook. Imports no torch and no mkdocs.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from reproduce import FIGURES, REPOSITORY
from reproduce.core.record import read_record
from reproduce.site.gallery.contents import finding

COURSE = REPOSITORY / "docs" / "course"
NOTEBOOKS = COURSE / "notebooks"
FIGURES_MARK = "<!-- figures -->"  # where a step shows its committed figures
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
RELATIVE_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s]+)(?=\))")


@dataclass(frozen=True)
class Step:
    """A step of the course.

    Attributes:
        name: The file's name without suffix, such as "07-occlusion".
        text: Markdown without the front matter.
        minutes: About how long a student needs.
        figures: Pictures to show, as `corpus/figure/file` below `figures/`, with their titles.
        more: Figures to link, as `corpus/figure`, with their titles.
    """

    name: str
    text: str
    minutes: int
    figures: dict[str, str]
    more: dict[str, str]

    @property
    def number(self) -> int:
        """The number of the step, from 1."""
        return int(self.name[:2])

    @property
    def title(self) -> str:
        """The heading of the step."""
        return self.text.lstrip().partition("\n")[0].removeprefix("# ")

    @property
    def notebook(self) -> Path:
        """The committed notebook."""
        return NOTEBOOKS / f"{self.name}.ipynb"

    @property
    def code(self) -> list[str]:
        """The code of each cell."""
        return [match[1].rstrip("\n") for match in CODE.finditer(self.text)]


def describe(code: str) -> str:
    """The first comment of a cell, which describes its pictures."""
    comment = re.search(r"^# (.+)$", code, re.MULTILINE)
    return comment[1] if comment else ""


def read_step(path: Path) -> Step:
    """Read one source.

    Raises:
        ValueError: The front matter or the place of the figures is missing.
    """
    source = path.read_text("utf-8")
    front_matter = FRONT_MATTER.match(source)
    if front_matter is None or source.count(FIGURES_MARK) != 1:
        raise ValueError(f"{path}: needs front matter and one line {FIGURES_MARK}")
    values = yaml.safe_load(front_matter[1])
    text = source[front_matter.end() :]
    return Step(path.stem, text, values["minutes"], values["figures"], values.get("more", {}))


def read_steps() -> list[Step]:
    """Read all steps, in order."""
    return [read_step(path) for path in sorted(COURSE.glob("[0-9][0-9]-*.md"))]


@functools.cache
def repository_url() -> str:
    """The project's public address, from pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    return project["urls"]["Repository"]


def colab_url(step: Step) -> str:
    """The address at which Colab opens the notebook of a step."""
    owner = repository_url().removeprefix("https://github.com/")
    path = step.notebook.relative_to(REPOSITORY).as_posix()
    return f"https://colab.research.google.com/github/{owner}/blob/main/{path}"


def notebook_text(step: Step) -> str:
    """Markdown of the notebook: figures, links that work from its folder, and the next step."""

    def link(match: re.Match[str]) -> str:
        path, _, anchor = match[1].partition("#")
        if re.fullmatch(r"\d\d-[\w-]+\.md", path):
            return Path(path).with_suffix(".ipynb").name
        return _blob_url(COURSE / path) + (f"#{anchor}" if anchor else "")

    text = RELATIVE_LINK.sub(link, step.text)
    figures = figures_section(
        step,
        lambda path: Path(os.path.relpath(path, NOTEBOOKS)).as_posix(),
        _blob_url,
        lambda folder: _blob_url(folder / "result.json"),
    )
    text = text.replace(FIGURES_MARK, figures)
    following = [s for s in read_steps() if s.number == step.number + 1]
    return text + "".join(f"\n**Next:** [{s.title}]({s.notebook.name})\n" for s in following)


def figures_section(
    step: Step,
    source: Callable[[Path], str],
    full_size: Callable[[Path], str],
    numbers: Callable[[Path], str],
    findings: bool = False,
) -> str:
    """Write the committed figures of a step as Markdown.

    A figure without a committed picture is only named, with the command that makes it.

    Args:
        step: The step.
        source: Gives the address of a picture, from its path.
        full_size: Gives the address that a click on a picture opens.
        numbers: Gives the address of a figure's numbers, from its folder.
        findings: Whether to state what each record found, in its own numbers.
    """
    lines, named = [], set()
    for name, title in step.figures.items():
        picture = FIGURES / name
        folder = picture.parent
        command = f"`python -m reproduce run {folder.name}` makes it."
        if not picture.exists():
            lines += [f"**{title}.** {command}", ""]
            continue
        caption = [f"**{title}.**"]
        if folder not in named:  # once per record
            record = read_record(folder) if findings else None
            caption += [finding(record)] if record else []
            caption += [f"[All numbers]({numbers(folder)}); {command}"]
        named.add(folder)
        lines += [f"[![{title}]({source(picture)})]({full_size(picture)})", ""]
        lines += [" ".join(caption), ""]
    links = [
        f"[{title}]({numbers(FIGURES / name)})" if (FIGURES / name / "result.json").exists()
        else f"{title} (`python -m reproduce run {Path(name).name}`)"
        for name, title in step.more.items()
    ]  # fmt: skip
    if links:
        lines += [f"**More:** {'; '.join(links)}.", ""]
    return "\n".join(lines).rstrip()


def _blob_url(path: Path) -> str:
    name = Path(os.path.relpath(path, REPOSITORY)).as_posix()
    return f"{repository_url()}/blob/main/{name}"
