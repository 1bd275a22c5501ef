"""Hooks of mkdocs: the course as a page, and links from the documents to the gallery.

`mkdocs.yml` names this file. Only `python -m reproduce site` sets `extra.gallery`, for it puts the
gallery beside the documents. Imports no torch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "reproduce" / "lectures" / "README.md"
PAGES = {"course.md": COURSE}  # pages of the site that are not in docs/
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
GALLERY = """
## On this site

- <a href="figures/index.html">The paper's figures and tables</a>, with every number
- <a href="figures/lectures.html">Lectures and benchmarks</a>
- [The course](course.md)
{atlas}"""
ATLAS = '- <a href="{url}">The atlas</a>: a page for every feature of the network\n'


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    for name, source in PAGES.items():
        text = site_links(source.read_text("utf-8"), source.parent, config["repo_url"])
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Link the first page to the gallery, where the site has one."""
    gallery = config["extra"].get("gallery")
    if gallery is None or page.file.src_uri != "index.md":
        return markdown
    return markdown + GALLERY.format(atlas=ATLAS.format(url=gallery) if gallery else "")


def site_links(text: str, folder: Path, repository: str) -> str:
    """Point the relative links of a document in the repository to pages of the site.

    Args:
        text: Markdown.
        folder: The folder of the document.
        repository: The address of the repository, for files that the site lacks.
    """

    def replace(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        path, _, anchor = target.partition("#")
        name = Path(os.path.relpath(folder / path, ROOT)).as_posix()
        anchor = f"#{anchor}" if anchor else ""
        if mark:
            return f'<a href="../{name}"><img src="../{name}" alt="{label}"></a>'
        if name.startswith("figures/"):
            page = f"{name}/index.html" if (ROOT / name).is_dir() else name
            return f'<a href="../{page}{anchor}">{label}</a>'
        if name.startswith("docs/"):
            return f"[{label}]({name.removeprefix('docs/')}{anchor})"
        return f"[{label}]({repository}/blob/main/{name}{anchor})"

    return LINK.sub(replace, text)
