"""The static pages, RESULTS.md and the README's results, from recorded results only: JSON and pictures. No torch, no data."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
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
SETS = (
    "caltech101",
    "caltech256",
    "voc2012 train",
    "digits",
)  # inputs from the folder that --datasets names
MADE = ("scenes", "samples")  # need no option: drawn, or installed with a package
PAPER = (
    *(f"fig{i}" for i in range(1, 10)),
    *(f"tab{i}" for i in range(1, 8)),
)  # all that the paper shows, in its order
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
CLAIMS = (
    "claims",
    "goals",
)  # of what was measured, those that were tested: the paper's claims, a benchmark's own goals


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
    names = (
        sorted(folder.name for folder in out.iterdir() if folder.is_dir()) if out.is_dir() else []
    )
    committed = [
        record for name in COMMITTED if name in names for record in records(out / name, out)
    ]
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
        readme.write_text(
            before + MARKS[0] + "\n" + _render("summary.md", committed) + MARKS[1] + after, "utf-8"
        )
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
                values["environment"] = (
                    dict.fromkeys(("commit", "device", "torch"), "unknown") | values["environment"]
                )
                found.append(
                    SimpleNamespace(
                        **values | {"corpus": folder.name, "folder": path.parent, "url": url}
                    )
                )
    return found


def sections(found: list[SimpleNamespace], home: str) -> dict[str, list[Item]]:
    """The page's parts: the paper's figures and tables, all of them and in its order, then lectures and benchmarks.

    `home` is the corpus that a figure without a result would be made from, where it has none of its own.
    """
    of: dict[str, list[SimpleNamespace]] = {}
    for record in found:
        of.setdefault(record.id, []).append(record)
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    made = declarations()
    for name in PAPER:
        figure = name.startswith("fig")
        label = f"{'Figure' if figure else 'Table'} {name[3:]}"
        results, declared = of.pop(name, []), made[name]
        item = Item(name, label, declared.title, results, command(name, declared.corpus or home))
        parts["Figures" if figure else "Tables"].append(item)
    for name, results in of.items():
        bench = name.startswith("bench") or (
            name in made and made[name].file.startswith("reproduce/bench/")
        )
        title = made[name].title if name in made else results[0].title
        item = Item(name, name, title, results, command(name, results[0].corpus))
        parts["Benchmarks" if bench else "Lectures"].append(item)
    return parts


@dataclass(frozen=True)
class Declaration:
    """What the source of a figure declares, as far as pages need it."""

    file: str
    title: str
    inputs: tuple[str, ...]
    corpus: str = ""
    labels: bool = False


@functools.cache
def declarations() -> dict[str, Declaration]:
    """The declaration of each figure, by id, read from the sources: importing them would need torch."""
    found, aliases = {}, {}
    for path in sorted((REPOSITORY / "reproduce").glob("*/*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
                continue
            if getattr(node.targets[0], "id", "") != "FIGURE":
                continue
            values = {word.arg: _literal(word.value) for word in node.value.keywords}
            inputs = values["inputs"]
            if inputs is None:  # of another table: TABLE5.inputs
                aliases[values["id"]] = values["corpus"]
            found[values["id"]] = Declaration(
                path.relative_to(REPOSITORY).as_posix(), values["title"], inputs or (), values.get("corpus") or "",
                bool(values.get("labels")),
            )  # fmt: skip
    for name, corpus in aliases.items():
        twin = next(other for other in found.values() if other.corpus == corpus and other.inputs)
        found[name] = replace(found[name], inputs=twin.inputs)
    return found


def _literal(node: ast.expr) -> Any:
    """The value of a literal, None for any other expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def scripts() -> dict[str, str]:
    """The file of each figure, by id."""
    return {name: declared.file for name, declared in declarations().items()}


def command(name: str, corpus: str, model: str = "") -> str:
    """The command that makes a figure from a corpus, with the options that the figure uses.

    `model` is the network in the figure's record, for a corpus like imagenet@resnet18.
    """
    corpus, _, network = corpus.partition("@")
    declared = declarations().get(name, Declaration("", "", ("model", "images")))
    inputs, options = set(declared.inputs), ""
    if "snapshots" in inputs:
        options += " --model RUN/model.safetensors"
    elif network and {"model", "top"} & inputs:
        options += f" --model {model if ':' in model else 'MODEL'}"
    if "pretraining" in inputs:
        options += " --data IMAGENET"
    elif "tree" in inputs or declared.labels or ({"images", "top"} & inputs and corpus not in MADE):
        options += " --data PATH"
    if set(SETS) & inputs:
        options += " --datasets PATH"
    return f"python -m reproduce run {name}{options}"


def pictures(record: SimpleNamespace) -> list[SimpleNamespace]:
    """A record's pictures that exist: name, address from the page, width and height, so that the page does not jump."""
    found = []
    for name in record.files:
        with contextlib.suppress(OSError, ValueError), Image.open(record.folder / name) as image:
            width, height = image.size
            found.append(
                SimpleNamespace(
                    name=name, url=f"{record.url}/{quote(name)}", width=width, height=height
                )
            )
    return found


def claims(record: SimpleNamespace) -> list[tuple[str, str, str]]:
    """(claim, what was found, yes | no | partly | untold) of measured["claims"], and of measured["goals"] of a benchmark."""
    found = [
        (claim, number(said))
        for kind in CLAIMS
        for claim, said in record.measured.get(kind, {}).items()
    ]
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
    ours, paper = (
        _flat({key: value for key, value in record.measured.items() if key not in CLAIMS}),
        _flat(record.paper),
    )
    groups: dict[str, list] = {
        "": []
    }  # the ungrouped first: below a group they would seem to be of it
    for path in dict.fromkeys([*ours, *paper]):
        group, name = (path[0], ": ".join(path[1:])) if len(path) > 1 else ("", path[0])
        groups.setdefault(group, []).append(
            (name, number(ours.get(path, "")), number(paper.get(path, "")))
        )
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


def _page(
    path: Path, found: list[SimpleNamespace], elsewhere: Collection[SimpleNamespace] = ()
) -> Path:
    atlas = "atlas/index.html" if (path.parent / "atlas" / "index.html").exists() else ""
    path.write_text(
        _render("page.html", found, {record.id for record in elsewhere}, atlas), "utf-8"
    )
    return path


def _render(
    template: str, found: list[SimpleNamespace], elsewhere: Collection[str] = (), atlas: str = ""
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=template.endswith(".html"), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "number": number,
        "duration": text.duration,
        "plain": text.plain,
        "wrap": text.wrap,
    }
    environment.globals |= {
        "claims": claims, "tables": tables, "pictures": pictures, "command": command, "scripts": scripts(),
        "overview": text.overview, "numbers": text.numbers, "theirs": theirs, "verdicts": VERDICTS, "scales": SCALES,
    }  # fmt: skip
    corpora = sorted({record.corpus for record in found})
    parts = sections(found, home=corpora[0] if len(corpora) == 1 else "imagenet")
    tally = Counter(item.verdict for part in ("Figures", "Tables") for item in parts[part])
    return environment.get_template(template).render(
        parts=parts, tally=tally, corpora=corpora, elsewhere=elsewhere, atlas=atlas
    )  # fmt: skip
