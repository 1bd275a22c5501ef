"""Write the gallery: the result pages, RESULTS.md, and the README's table of results.

It reads only records and pictures, and imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from reproduce import FIGURES, REPOSITORY
from reproduce.site.gallery import contents
from reproduce.site.gallery.declarations import declarations
from reproduce.site.gallery.entries import (
    COMMITTED,
    PAPER,
    Entry,
    command,
    read_entries,
    sections,
)
from reproduce.site.rendering import render

__all__ = ["COMMITTED", "FIGURES", "PAPER", "command", "read_entries", "write"]

README_MARKS = (
    "<!-- results: written by python -m reproduce gallery -->",
    "<!-- end of results -->",
)
VERDICTS = {
    "reproduced": "every claim that the figure tests holds",
    "partial": "some of its claims hold",
    "differs": "none of its claims holds, and at least one is refuted",
    "by construction": "a diagram, an architecture or prepared images, which cannot fail as a "
    "measurement can",
    "not comparable": "the run is too small, or its measurements decide no claim",
    "not run": "its data was missing; the command computes it",
}
SCALES = {
    "paper": "all data that the claim is about: the paper's, or MNIST in a lecture. Also a "
    "result that needs no data",
    "subset": "the paper's protocol on part of that data. It can test claims in words, and does "
    "not reproduce accuracies",
    "samples": "about 500 crops of the sample photographs of scikit-image",
    "smoke": "a run so small that it only shows that the code works",
}


def write(out: Path, only: Collection[str] | None = None) -> list[Path]:
    """Write the pages of a folder of results.

    The committed corpora share `out/index.html`. Any other corpus has `out/<corpus>/index.html`.
    For the repository's own figures, RESULTS.md and the README's table are written too.

    Args:
        out: The folder of results, `<corpus>/<id>/result.json`.
        only: Write only the pages with these corpora.

    Returns:
        The written files.
    """
    names = sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []
    committed = [
        entry for name in COMMITTED if name in names for entry in read_entries(out / name, out)
    ]
    pages = []
    if committed and (only is None or set(only) & set(COMMITTED)):
        pages.append(_write_page(out / "index.html", committed))
    for name in names:
        entries = read_entries(out / name, out / name) if name not in COMMITTED else []
        if entries and (only is None or name in only):
            pages.append(_write_page(out / name / "index.html", entries, elsewhere=committed))
    if only is None and committed and out.resolve() == FIGURES.resolve():
        pages += [_write_results(committed), _write_readme(committed)]
    return pages


def _write_page(path: Path, entries: list[Entry], elsewhere: Collection[Entry] = ()) -> Path:
    has_atlas = (path.parent / "atlas" / "index.html").exists()
    page = render(
        "gallery.html",
        **_values(entries),
        elsewhere={entry.record.id for entry in elsewhere},
        atlas="atlas/index.html" if has_atlas else "",
    )
    path.write_text(page, "utf-8")
    return path


def _write_results(entries: list[Entry]) -> Path:
    path = REPOSITORY / "RESULTS.md"
    path.write_text(render("results.md", **_values(entries)), "utf-8")
    return path


def _write_readme(entries: list[Entry]) -> Path:
    """Replace the part of the README between the marks."""
    path = REPOSITORY / "README.md"
    begin, end = README_MARKS
    before, _, rest = path.read_text("utf-8").partition(begin)
    after = rest.partition(end)[2]
    summary = render("summary.md", **_values(entries))
    path.write_text(f"{before}{begin}\n{summary}{end}{after}", "utf-8")
    return path


def _values(entries: list[Entry]) -> dict[str, object]:
    """What the templates need."""
    corpora = sorted({entry.corpus for entry in entries})
    items = sections(entries, home=corpora[0] if len(corpora) == 1 else "imagenet")
    return {
        "sections": items,
        "tally": Counter(item.verdict for part in ("Figures", "Tables") for item in items[part]),
        "corpora": corpora,
        "verdicts": VERDICTS,
        "scales": SCALES,
        "scripts": {id: declared.script for id, declared in declarations().items()},
        "claims": contents.claims,
        "tables": contents.tables,
        "pictures": contents.pictures,
        "command": command,
        "published_by": contents.published_by,
        "verdict_table": contents.verdict_table,
        "number_table": contents.number_table,
    }
