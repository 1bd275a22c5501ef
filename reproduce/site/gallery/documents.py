"""The Markdown documents: RESULTS.md, LECTURES.md, and the README's headline table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from reproduce.site.gallery import contents, headline
from reproduce.site.gallery.entries import PAPER_URL, Entry, command, sections
from reproduce.site.gallery.legend import SCALES, VERDICTS
from reproduce.site.rendering import render

MARKS = ("<!-- results: written by python -m reproduce gallery -->", "<!-- end of results -->")
WITH_TABLES = ("Figures", "Tables", "Benchmarks")  # sections that show numbers
PARTS = {"RESULTS.md": ("Figures", "Tables"), "LECTURES.md": ("Lectures", "Benchmarks")}
TITLES = {"RESULTS.md": "Results", "LECTURES.md": "Lectures and benchmarks"}
INTRODUCTIONS = {
    "RESULTS.md": "Our results next to those of the paper, "
    f"[Visualizing and Understanding Convolutional Networks]({PAPER_URL}). "
    "[LECTURES.md](LECTURES.md) has the lectures and benchmarks. "
    "[figures/results.csv](figures/results.csv) has every number, and `figures/index.html` every "
    "picture. `python -m reproduce gallery` writes all of them from the `result.json` of each "
    "figure.",
    "LECTURES.md": "Pictures and measurements beyond the paper, for lectures on it, and benchmarks "
    "of this package. [RESULTS.md](RESULTS.md) has the paper's figures and tables, and explains "
    "verdicts and scales. "
    "[figures/results.csv](figures/results.csv) has every number. `python -m reproduce gallery` "
    "writes all of them from the `result.json` of each figure.",
}
WHERE = (
    "[RESULTS.md](RESULTS.md) shows them, [LECTURES.md](LECTURES.md) the lectures and benchmarks, "
    "[figures/results.csv](figures/results.csv) every number, and "
    "[figures/index.html](figures/index.html) every picture."
)


def write_all(entries: list[Entry], folder: Path) -> list[Path]:
    """Write the documents of a repository.

    Args:
        entries: The committed results.
        folder: The root of the repository. Its README.md has the marks.

    Returns:
        The written files.
    """
    texts = {name: document(name, entries) for name in PARTS}
    texts["README.md"] = with_headline((folder / "README.md").read_text("utf-8"), entries)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]


def document(name: str, entries: list[Entry]) -> str:
    """The text of RESULTS.md or LECTURES.md."""
    parts = sections(entries, home="imagenet")
    return render(
        "results.md",
        title=TITLES[name],
        introduction=INTRODUCTIONS[name],
        legend=legend() if name == "RESULTS.md" else "",
        sections={part: parts[part] for part in PARTS[name]},
        cover=contents.cover,
        finding=contents.finding,
        reason=contents.reason,
        short_table=contents.markdown_table,
        with_tables=WITH_TABLES,
        command=command,
    )


def legend() -> str:
    """What verdicts, scales and intervals mean."""
    verdicts = "; ".join(f"*{name}*: {meaning}" for name, meaning in VERDICTS.items())
    scales = "; ".join(f"*{name}*: {meaning}" for name, meaning in SCALES.items())
    return (
        f"Verdicts: {verdicts}. Scales: {scales}. `a [b, c]` is a value with its interval, usually "
        "of 95 %. `a ± b` is a mean with its standard deviation. In commands, `python` is "
        "`.venv/bin/python`, `PATH` your copy of the data, and `IMAGENET` the images that the "
        "network was trained on."
    )


def with_headline(readme: str, entries: list[Entry]) -> str:
    """Replace the part of the README between the marks."""
    begin, end = MARKS
    before, _, rest = readme.partition(begin)
    after = rest.partition(end)[2]
    parts = sections(entries, home="imagenet")
    paper = [*parts["Figures"], *parts["Tables"]]
    summary = render(
        "readme.md",
        table=headline.table(entry.record for entry in entries),
        verdicts=VERDICTS,
        tally=Counter(item.verdict for item in paper),
        paper=paper,
        where=WHERE,
        reason=contents.reason,
    )
    return f"{before}{begin}\n{summary}{end}{after}"
