"""The Python blocks of the documents run as they are."""

import re

import matplotlib.pyplot as plt
import pytest

import zfnet
from tests.conftest import ROOT

DOCS = ROOT / "docs"
COURSE = DOCS / "course"  # runs as notebooks, in tests/reproduce/test_course.py
PAGES = [ROOT / "README.md", *(p for p in sorted(DOCS.rglob("*.md")) if p.parent != COURSE)]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
SLOW = {"benchmark.md"}


def python_blocks(page):
    """The blocks of a page, without those that load the package from its address."""
    blocks = BLOCK.findall(page.read_text("utf-8"))
    return [block for block in blocks if 'torch.hub.load("OWNER' not in block]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=page.relative_to(ROOT).as_posix(),
            marks=[pytest.mark.slow] if page.name in SLOW else [],
        )
        for page in PAGES
        if python_blocks(page)
    ],
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    folder = tmp_path / "path" / "to" / "val" / "n02123045"
    folder.mkdir(parents=True)
    for target in (folder / "cat.png", tmp_path / "my_cat.jpg"):
        zfnet.photograph("cat").save(target)
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(python_blocks(page)), str(page), "exec"), {})
    plt.close("all")
