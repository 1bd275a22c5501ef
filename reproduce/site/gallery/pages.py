"""The HTML pages of a gallery: two overviews, and a page per result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from reproduce.site.gallery import contents
from reproduce.site.gallery.declarations import declarations
from reproduce.site.gallery.entries import (
    COMMITTED,
    PAPER,
    PAPER_URL,
    Entry,
    Item,
    command,
    sections,
)
from reproduce.site.gallery.legend import SCALES, VERDICTS
from reproduce.site.gallery.spreadsheet import write_csv
from reproduce.site.rendering import render, style_sheet

OVERVIEWS = {"index.html": ("Figures", "Tables"), "lectures.html": ("Lectures", "Benchmarks")}
STYLE = "gallery.css"
SPREADSHEET = "results.csv"


def write_pages(
    out: Path,
    entries: list[Entry],
    elsewhere: Collection[str] = (),
    documents: str = "",
    atlas: str = "",
) -> list[Path]:
    """Write the pages of a folder of results.

    Args:
        out: The folder of the overviews, to which the entries' addresses are relative.
        entries: The results.
        elsewhere: Ids of figures with a committed result, for pages of other corpora.
        documents: The address of the documentation, where the pages are part of a site.
        atlas: The address of the atlas. Default: that of the atlas beside the results, if any.

    Returns:
        The written files; the first is the entrance.
    """
    parts = sections(entries, home=_home(entries))
    links = {"documents": documents, "atlas": atlas or _atlas(out), "elsewhere": set(elsewhere)}
    texts = {out / name: _overview(name, entries, parts, links) for name in OVERVIEWS}
    items = [item for part in parts.values() for item in part]
    ordered = [(item, entry) for item in items for entry in item.entries]
    neighbors = [None, *ordered, None]
    for (item, entry), before, after in zip(ordered, neighbors, neighbors[2:], strict=False):
        texts[entry.folder / "index.html"] = _page(item, entry, before, after)
    texts |= {out / STYLE: style_sheet("gallery.css"), out / SPREADSHEET: write_csv(entries)}
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    return list(texts)


def _home(entries: list[Entry]) -> str:
    """The corpus in the commands of figures without results."""
    corpora = {entry.corpus for entry in entries}
    return corpora.pop() if len(corpora) == 1 else "imagenet"


def _atlas(out: Path) -> str:
    """The address of the atlas beside the results; empty without one."""
    folders = (out / "atlas", out / COMMITTED[0] / "atlas")
    atlas = next((folder for folder in folders if folder.is_dir()), None)
    return f"{atlas.relative_to(out).as_posix()}/index.html" if atlas else ""


def _overview(
    name: str, entries: list[Entry], parts: dict[str, list[Item]], links: dict[str, object]
) -> str:
    """An overview: a card per figure."""
    return render(
        "overview.html",
        **_shared(""),
        page=name,
        sections={part: parts[part] for part in OVERVIEWS[name]},
        tally=Counter(item.verdict for part in ("Figures", "Tables") for item in parts[part]),
        only_samples={entry.corpus for entry in entries} == {"samples"},
        verdicts=VERDICTS,
        scales=SCALES,
        **links,
        cover=contents.cover,
        paper_url=PAPER_URL,
    )


def _page(
    item: Item,
    entry: Entry,
    before: tuple[Item, Entry] | None,
    after: tuple[Item, Entry] | None,
) -> str:
    """The page of one result, with links to those before and after it."""
    record, declared = entry.record, declarations().get(entry.record.id)
    root = "../" * len(entry.url.split("/"))
    shown = contents.pictures(entry)
    links = {
        rel: {"label": _short(other[0]), "url": f"{root}{other[1].url}/index.html"}
        for rel, other in (("prev", before), ("next", after))
        if other
    }
    compared, others = contents.tables(record)
    return render(
        "figure.html",
        **_shared(root),
        item=item,
        entry=entry,
        record=record,
        overview="index.html" if item.id in PAPER else "lectures.html",
        links=links,
        pictures=shown,
        missing=len(record.files) - len(shown),
        claims=contents.claims(record),
        compared=compared,
        others=others,
        published_by=contents.published_by(record),
        script=declared.script if declared else "",
        command=command(record.id, entry.corpus, record.inputs.get("model", "")),
        paper_url=PAPER_URL if item.id in PAPER else "",
    )


def _short(item: Item) -> str:
    """The name of a figure in links: "Figure 5", or its title."""
    return item.title if item.name == item.id else item.name


def _shared(root: str) -> dict[str, object]:
    """What all templates need. `root` is the way from the page to the overviews."""
    return {
        "root": root,
        "style": root + STYLE,
        "spreadsheet": root + SPREADSHEET,
        "finding": contents.finding,
        "reason": contents.reason,
    }
