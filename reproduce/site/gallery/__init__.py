"""Write the gallery: the result pages, results.csv, RESULTS.md, LECTURES.md and README's table.

It reads only records and pictures, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from reproduce import FIGURES, REPOSITORY
from reproduce.site.gallery import documents, pages
from reproduce.site.gallery.entries import (
    COMMITTED,
    PAPER,
    Entry,
    command,
    read_entries,
    sections,
)

__all__ = ["COMMITTED", "FIGURES", "PAPER", "command", "read_entries", "sections", "write"]


def write(out: Path, only: Collection[str] | None = None) -> list[Path]:
    """Write the pages of a folder of results.

    The committed corpora share `out/index.html`. Any other corpus has `out/<corpus>/index.html`.
    For the repository's own figures, the Markdown documents are written too.

    Args:
        out: The folder of results, `<corpus>/<id>/result.json`.
        only: Write only the pages with these corpora.

    Returns:
        The written entrances and documents.
    """
    committed = committed_entries(out)
    written = []
    if committed and (only is None or set(only) & set(COMMITTED)):
        written.append(pages.write_pages(out, committed)[0])
    ids = {entry.record.id for entry in committed}
    for name in _folders(out):
        entries = read_entries(out / name, out / name) if name not in COMMITTED else []
        if entries and (only is None or name in only):
            written.append(pages.write_pages(out / name, entries, elsewhere=ids)[0])
    if only is None and committed and out.resolve() == FIGURES.resolve():
        written += documents.write_all(committed, REPOSITORY)
    return written


def committed_entries(out: Path) -> list[Entry]:
    """The results of all committed corpora in a folder of results."""
    names = set(_folders(out))
    return [entry for name in COMMITTED if name in names for entry in read_entries(out / name, out)]


def _folders(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
