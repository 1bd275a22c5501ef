"""The static pages, RESULTS.md and the README's results, from recorded results only: JSON and pictures. No torch, no data."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import jinja2
from PIL import Image

from reproduce.gallery import text
from reproduce.gallery.text import number

TEMPLATES = Path(__file__).parent
REPOSITORY = TEMPLATES.parent.parent
FIGURES = REPOSITORY / "figures"
MARKS = ("<!-- results: written by python -m reproduce gallery -->", "<!-- end of results -->")
COMMITTED = (
    "imagenet65k",
    "caltech101",
    "caltech256",
    "voc2012",
    "mnist",
    "scenes",
)  # on one page; any other corpus has a page of its own
DATASETS = ("caltech101", "caltech256", "voc2012", "mnist")  # read by torchvision, from the folder that --datasets names
RUN = {"fig4": " --model RUN/model.safetensors"}  # looks at the snapshots of a training; the others for what it has seen
RUN |= dict.fromkeys(("tab4", "tab5", "tab7", "fig9"), " --data IMAGENET")
MADE = ("scenes", "samples")  # need no option: drawn, or installed with a package
PAPER = {  # all that the paper shows, whether we have a result or not
    "fig1": "The deconvnet, and unpooling with switches",
    "fig2": "Visualization of features in a trained model",
    "fig3": "Architecture of ZFNet",
    "fig4": "Evolution of features during training",
    "fig5": "Invariance to translation, scale and rotation",
    "fig6": "Features of layers 1 and 2, before and after the paper's changes",
    "fig7": "Sensitivity to occlusion",
    "fig8": "Images for the correspondence experiments",
    "fig9": "Caltech-256 accuracy against training images per class",
    "tab1": "Correspondence between parts of different images",
    "tab2": "ImageNet 2012 classification error",
    "tab3": "ImageNet 2012 error of changed architectures",
    "tab4": "Caltech-101 classification accuracy",
    "tab5": "Caltech-256 classification accuracy",
    "tab6": "PASCAL VOC 2012 classification",
    "tab7": "What each layer's features can tell apart",
}
OWN = {"fig9": "caltech256", "tab4": "caltech101", "tab5": "caltech256", "tab6": "voc2012", "tab7": "caltech101"}
VERDICTS = {  # of zfnet.record, with what they mean
    "reproduced": "every claim that the figure tests held",
    "partial": "some of them held",
    "differs": "none held, and at least one was refuted; that is a result too",
    "not comparable": "the run is too small, or its measurements leave every claim open",
    "not run": "its data were not there; the command makes a result",
}
SCALES = {
    "paper": "all of the data that the claim is about (the paper's, or MNIST in a lecture), or a result that needs none",
    "subset": "the protocol on a part of these data: claims in words can be tested, accuracies cannot be reproduced",
    "samples": "some five hundred crops of the photographs in scikit-image",
    "smoke": "a run so small that it shows only that the code runs",
}
PARTS = ("Figures", "Tables", "Lectures", "Benchmarks")
FIELDS = (
    "id", "title", "claim", "scale", "verdict", "measured", "paper", "n", "seed", "note", "inputs", "key", "files", "seconds",
    "environment",
)  # fmt: skip
CLAIMS = ("claims", "goals")  # of what was measured, those that were tested: the paper's claims, a benchmark's own goals


@dataclass(frozen=True)
class Item:
    """A figure or table: its results, one for each corpus, or none, and the command that would make the first."""

    id: str
    name: str  # "Figure 5"
    title: str
    results: list[SimpleNamespace]
    command: str

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.id)

    @property
    def verdict(self) -> str:
        return self.results[0].verdict if self.results else "not run"


def write(out: Path, only: Collection[str] | None = None) -> list[Path]:
    """Write `out/index.html` for the committed corpora, `out/<corpus>/index.html` for others, RESULTS.md, the README's results.

    `only` limits it to the pages that hold these corpora. Returns the paths written.
    """
    names = sorted(folder.name for folder in out.iterdir() if folder.is_dir()) if out.is_dir() else []
    committed = [record for name in COMMITTED if name in names for record in records(out / name, out)]
    pages = []
    if committed and (only is None or set(only) & set(COMMITTED)):
        pages.append(_page(out / "index.html", committed))
    for name in names:
        found = records(out / name, out / name) if name not in COMMITTED else []
        if found and (only is None or name in only):
            pages.append(_page(out / name / "index.html", found, elsewhere=committed))
    if only is None and committed and out.resolve() == FIGURES.resolve():
        (REPOSITORY / "RESULTS.md").write_text(_render("results.md", committed), "utf-8")
        readme = REPOSITORY / "README.md"
        before, _, rest = readme.read_text("utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        readme.write_text(before + MARKS[0] + "\n" + _render("summary.md", committed) + MARKS[1] + after, "utf-8")
        pages += [REPOSITORY / "RESULTS.md", readme]
    return pages


def records(folder: Path, page: Path) -> list[SimpleNamespace]:
    """The records of one corpus, by id, with their place as seen from `page`; those that cannot be read are left out."""
    found = []
    for path in sorted(folder.glob("*/result.json")):
        with contextlib.suppress(ValueError):
            values = json.loads(path.read_text("utf-8"))
            if isinstance(values, dict) and all(field in values for field in FIELDS):
                url = "/".join(quote(part) for part in path.parent.relative_to(page).parts)
                values["environment"] = dict.fromkeys(("commit", "device", "torch"), "unknown") | values["environment"]
                found.append(SimpleNamespace(**values | {"corpus": folder.name, "folder": path.parent, "url": url}))
    return found


def sections(found: list[SimpleNamespace], home: str) -> dict[str, list[Item]]:
    """The page's parts: the paper's figures and tables, all of them and in its order, then lectures and benchmarks.

    `home` is the corpus that a figure without a result would be made from, where it has none of its own.
    """
    of: dict[str, list[SimpleNamespace]] = {}
    for record in found:
        of.setdefault(record.id, []).append(record)
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for name, title in PAPER.items():
        figure = name.startswith("fig")
        label = f"{'Figure' if figure else 'Table'} {name[3:]}"
        results = of.pop(name, [])
        item = Item(name, label, results[0].title if results else title, results, command(name, OWN.get(name, home)))
        parts["Figures" if figure else "Tables"].append(item)
    made = scripts()
    for name, results in of.items():
        bench = name.startswith("bench") or made.get(name, "").startswith("reproduce/bench/")
        item = Item(name, name, results[0].title, results, command(name, results[0].corpus))
        parts["Benchmarks" if bench else "Lectures"].append(item)
    return parts


def scripts() -> dict[str, str]:
    """The file of each figure, by id, read from the sources: importing them would need torch."""
    found = {}
    for path in (REPOSITORY / "reproduce").glob("*/*.py"):
        match = re.search(r'^FIGURE = Figure\(\s*(?:id=)?"([^"]+)"', path.read_text("utf-8"), re.MULTILINE)
        if match:
            found[match[1]] = path.relative_to(REPOSITORY).as_posix()
    return found


def command(name: str, corpus: str) -> str:
    """The command that makes a figure from a corpus."""
    option = "" if corpus in MADE else " --datasets PATH" if corpus in DATASETS else " --data PATH"
    return f"python -m reproduce run {name}{RUN.get(name, '')}{option}"


def pictures(record: SimpleNamespace) -> list[SimpleNamespace]:
    """A record's pictures that exist: name, address from the page, width and height, so that the page does not jump."""
    found = []
    for name in record.files:
        with contextlib.suppress(OSError, ValueError), Image.open(record.folder / name) as image:
            width, height = image.size
            found.append(SimpleNamespace(name=name, url=f"{record.url}/{quote(name)}", width=width, height=height))
    return found


def claims(record: SimpleNamespace) -> list[tuple[str, str, str]]:
    """(claim, what was found, yes | no | partly | untold) of measured["claims"], and of measured["goals"] of a benchmark."""
    found = [(claim, number(said)) for kind in CLAIMS for claim, said in record.measured.get(kind, {}).items()]
    return [(claim, said, _state(said)) for claim, said in found]


def _state(said: str) -> str:
    count = re.fullmatch(r"(\d+) of (\d+)", said)
    if said in ("holds", "reached", "yes") or (count and count[1] == count[2]):
        return "yes"
    if said in ("does not hold", "not reached", "no") or (count and count[1] == "0"):
        return "no"
    return "partly" if count else "untold"


def tables(record: SimpleNamespace) -> tuple[dict[str, list], dict[str, list]]:
    """Rows (quantity, ours, the paper's) by their first key: the groups that the paper has numbers of, and all others.

    Further nested keys become "a: b"; claims and goals are left to `claims`.
    """
    ours, paper = _flat({key: value for key, value in record.measured.items() if key not in CLAIMS}), _flat(record.paper)
    groups: dict[str, list] = {"": []}  # the ungrouped first: below a group they would seem to be of it
    for path in dict.fromkeys([*ours, *paper]):
        group, name = (path[0], ": ".join(path[1:])) if len(path) > 1 else ("", path[0])
        groups.setdefault(group, []).append((name, number(ours.get(path, "")), number(paper.get(path, ""))))
    beside = {group: rows for group, rows in groups.items() if any(row[2] for row in rows)}
    return beside, {group: rows for group, rows in groups.items() if rows and group not in beside}


def theirs(record: SimpleNamespace) -> str:
    """Whose numbers stand beside ours: the paper's, or for lectures and benchmarks those of the work that they follow."""
    return "the paper's" if record.id in PAPER else "published"


def _flat(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        flat |= _flat(value, (*path, name)) if isinstance(value, dict) else {(*path, name): value}
    return flat


def _page(path: Path, found: list[SimpleNamespace], elsewhere: Collection[SimpleNamespace] = ()) -> Path:
    atlas = "atlas/index.html" if (path.parent / "atlas" / "index.html").exists() else ""
    path.write_text(_render("page.html", found, {record.id for record in elsewhere}, atlas), "utf-8")
    return path


def _render(template: str, found: list[SimpleNamespace], elsewhere: Collection[str] = (), atlas: str = "") -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=template.endswith(".html"), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": number, "duration": text.duration, "plain": text.plain, "wrap": text.wrap}
    environment.globals |= {
        "claims": claims, "tables": tables, "pictures": pictures, "command": command, "scripts": scripts(),
        "overview": text.overview, "numbers": text.numbers, "theirs": theirs, "verdicts": VERDICTS, "scales": SCALES,
    }  # fmt: skip
    corpora = sorted({record.corpus for record in found})
    parts = sections(found, home="samples" if corpora == ["samples"] else "imagenet")
    tally = Counter(item.verdict for part in ("Figures", "Tables") for item in parts[part])
    return environment.get_template(template).render(
        parts=parts, tally=tally, corpora=corpora, elsewhere=elsewhere, atlas=atlas
    )  # fmt: skip
