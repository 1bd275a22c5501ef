"""The site to publish: documents, gallery, lectures and the atlas in one folder.

Any static server takes the folder. Imports no torch: the pages are written from the records.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from reproduce import FIGURES, REPOSITORY
from reproduce.core.figure import SAMPLES
from reproduce.site.gallery import COMMITTED, committed_entries, pages, read_entries

ATLASES = (COMMITTED[0], SAMPLES)  # corpora whose atlas is published; the first that exists
DOCUMENTS = "sitemap.xml"  # mkdocs writes it into every site


def write_site(out: Path, documents: bool = True) -> Path:
    """Write the site, in place of an earlier one.

    Args:
        out: The folder of the site.
        documents: Build the documents too, which needs the extra `docs`.

    Returns:
        The first page.

    Raises:
        FileExistsError: `out` holds something else.
        ModuleNotFoundError: mkdocs is not installed.
    """
    if out.exists() and any(out.iterdir()) and not (out / DOCUMENTS).exists():
        raise FileExistsError(f"{out} exists and is not a site; name a new folder")
    atlas = next((name for name in ATLASES if (FIGURES / name / "atlas").is_dir()), "")
    if documents:
        build_documents(out, f"figures/{atlas}/atlas/index.html" if atlas else "")
    copy_results(out / "figures", atlas)
    return out / ("index.html" if documents else "figures/index.html")


def build_documents(out: Path, atlas: str) -> None:
    """Build the documents with mkdocs, with warnings as errors.

    Args:
        out: The folder of the site. mkdocs removes what it holds.
        atlas: The address of the atlas on the site, or empty.
    """
    from mkdocs.commands.build import build  # of the extra `docs`
    from mkdocs.config import load_config

    config = load_config(str(REPOSITORY / "mkdocs.yml"), site_dir=str(out), strict=True)
    config["extra"]["gallery"] = atlas
    build(config)


def copy_results(out: Path, atlas: str) -> None:
    """Copy records, pictures and an atlas, and write the gallery's pages beside them.

    Args:
        out: The folder of the results on the site.
        atlas: The corpus of the atlas, or empty.
    """
    shutil.rmtree(out, ignore_errors=True)
    for corpus in COMMITTED:
        for entry in read_entries(FIGURES / corpus, FIGURES):
            target = out / corpus / entry.folder.name
            target.mkdir(parents=True)
            for name in ("result.json", *entry.record.files):
                if (entry.folder / name).exists():
                    shutil.copy(entry.folder / name, target / name)
    if atlas:
        shutil.copytree(FIGURES / atlas / "atlas", out / atlas / "atlas")
    entries = committed_entries(out)
    address = f"{atlas}/atlas/index.html" if atlas else ""
    pages.write_pages(out, entries, documents="../index.html", atlas=address)
