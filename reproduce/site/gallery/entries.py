"""The records of a page, in the order of its sections, and the commands that reproduce them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from reproduce.core.record import Record, read_record
from reproduce.site.gallery.declarations import Declaration, declarations

COMMITTED = ("imagenet65k", "caltech101", "caltech256", "voc2012", "mnist", "scenes")
BUNDLED_DATA = ("scenes", "samples")  # drawn, or installed with a package: need no --data
OWN_DATASETS = ("caltech101", "caltech256", "voc2012 train", "digits")  # inputs of --datasets
PAPER = (*(f"fig{n}" for n in range(1, 10)), *(f"tab{n}" for n in range(1, 8)))
PAPER_URL = "https://arxiv.org/abs/1311.2901"
SECTIONS = ("Figures", "Tables", "Lectures", "Benchmarks")
UNKNOWN = {"commit": "unknown", "device": "unknown", "torch": "unknown"}


@dataclass(frozen=True)
class Entry:
    """A record on a page.

    Attributes:
        corpus: Name of its corpus, which is the folder above the record's.
        folder: Where its pictures are.
        url: Address of the folder, relative to the page.
    """

    record: Record
    corpus: str
    folder: Path
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The record's environment, with "unknown" for missing parts."""
        return UNKNOWN | self.record.environment


@dataclass(frozen=True)
class Item:
    """A figure or table with its results, one per corpus.

    Attributes:
        name: What the paper calls it, such as "Figure 5"; the id of a figure that is not in it.
        command: How to compute it, for a figure without results.
    """

    id: str
    name: str
    title: str
    entries: list[Entry]
    command: str

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.id)

    @property
    def label(self) -> str:
        """The heading, such as "Figure 5: Invariance"; the title of one not in the paper."""
        return self.title if self.name == self.id else f"{self.name}: {self.title}"

    @property
    def verdict(self) -> str:
        return self.entries[0].record.verdict if self.entries else "not run"


def read_entries(corpus: Path, page: Path) -> list[Entry]:
    """Read the records of one corpus, in the order of their ids. Unreadable records are left out.

    Args:
        corpus: The folder of the corpus.
        page: The folder of the page.
    """
    entries = []
    for path in sorted(corpus.glob("*/result.json")):
        record = read_record(path.parent)
        if record:
            url = "/".join(quote(part) for part in path.parent.relative_to(page).parts)
            entries.append(Entry(record, corpus.name, path.parent, url))
    return entries


def sections(entries: Iterable[Entry], home: str) -> dict[str, list[Item]]:
    """Sort entries into the sections of a page.

    Args:
        entries: The results.
        home: The corpus in the command of a figure without results.

    Returns:
        Items by section. The paper's figures and tables are all listed, in the paper's order.
    """
    by_id: dict[str, list[Entry]] = {}
    for entry in entries:
        by_id.setdefault(entry.record.id, []).append(entry)
    items: dict[str, list[Item]] = {section: [] for section in SECTIONS}
    for id in PAPER:
        section = "Figures" if id.startswith("fig") else "Tables"
        declared = declarations()[id]
        reproduce = command(id, declared.corpus or home)
        item = Item(id, f"{section[:-1]} {id[3:]}", declared.title, by_id.pop(id, []), reproduce)
        items[section].append(item)
    for id, results in by_id.items():
        declared = declarations().get(id)
        title = declared.title if declared else results[0].record.title
        item = Item(id, id, title, results, command(id, results[0].corpus))
        items["Benchmarks" if is_benchmark(id) else "Lectures"].append(item)
    return items


def is_benchmark(id: str) -> bool:
    """Whether a figure's script is in `reproduce/bench/`."""
    declared = declarations().get(id)
    return id.startswith("bench") or (
        declared is not None and declared.script.startswith("reproduce/bench/")
    )


def command(id: str, corpus: str, model: str = "") -> str:
    """The command that computes a figure, with the options that it uses.

    Args:
        id: The figure.
        corpus: The corpus of the result, or `<corpus>@<network>`.
        model: The network in the figure's record.
    """
    corpus, _, network = corpus.partition("@")
    declared = declarations().get(id) or Declaration(id, "", "", ("model", "images"))
    inputs = set(declared.inputs)
    options = ""
    if network and {"model", "top"} & inputs:
        options += f" --model {model if ':' in model else 'MODEL'}"
    needs_images = {"images", "top"} & inputs and corpus not in BUNDLED_DATA
    if "pretraining" in inputs:
        options += " --data IMAGENET"
    elif "tree" in inputs or declared.labels or needs_images:
        options += " --data PATH"
    if set(OWN_DATASETS) & inputs:
        options += " --datasets PATH"
    return f"python -m reproduce run {id}{options}"
