"""Write docs/leaderboard.md from the tables in docs/leaderboard."""

from __future__ import annotations

import csv
from pathlib import Path

from zfnet.benchmarking.table import label
from zfnet.data.io import write_text

METRICS = (
    "pointing",
    "energy",
    "insertion",
    "deletion",
    "road",
    "sensitivity_n",
    "cascading",
    "independent",
)
ARROWS = {"higher": "↑", "lower": "↓", "": ""}
INTRO = """# Leaderboard

<!-- Written by `python -m reproduce.bench.leaderboard page`. Do not edit. -->

Every method of `zfnet.METHODS` under every metric, and controls with a known truth. ↑ means that
higher is better, ↓ that lower is better. Values are means; the CSV files have the 95 % bootstrap
intervals, the number of images, and the number of constant maps. [Benchmark](benchmark.md) explains
the metrics, and how to score a method of your own.
"""
SCENES = """## Drawn scenes

{images} scenes that a small ZFNet classifies correctly. Only the object's shape shows the class.
Intervals and costs: [scenes.csv](leaderboard/scenes.csv). CPU milliseconds are of one thread on a
shared machine, so compare them with each other only.
"""
SHORTCUT = """## A planted shortcut

Scenes with a colored tag. In training the tag shows the class and the object does not. In these
{images} scenes the object has the class's shape too. A faithful method points at the tag; a map on
the object looks plausible, and is wrong. What the network reads:

{accuracy}

[shortcut.csv](leaderboard/shortcut.csv) has the intervals for the tag,
[shortcut-object.csv](leaderboard/shortcut-object.csv) those for the object. The tag is smaller than
one cell of the last feature maps, one reason why class activation maps miss it.
"""
METRIC_RANKS = """## Do the metrics agree?

Spearman's rank correlation of the methods' order, best first, on the scenes. A negative number
means that the methods that one metric prefers are those that the other one rejects.
"""
NETWORK_RANKS = """## Do networks agree?

Spearman's rank correlation of the methods' order under {metric}, between networks trained on the
same scenes: three seeds of ZFNet, and AlexNet's filters.
"""
PEERS = """## Compared with other packages

The same method of other packages on {images} scenes, one thread, in calls of ten images. The
largest difference is between maps scaled to [0, 1]: pytorch-grad-cam and torch-cam scale theirs.
Grad-CAM++ of torch-cam 0.5.0 differs because it divides a copy of its coefficients, so that they
stay undivided. Times are wall-clock, the fastest of three calls or more, on a shared machine.
"""
ADD = """## Add a row

1. Write a function `method(model, x, target)` that returns (N, 1, H, W) or (N, C, H, W).
2. Try it: `zfnet bench --methods my_module:my_function,grad_cam -o bench`.
3. Add it to `METHODS` in `reproduce/bench/leaderboard.py`, and run
   `python -m reproduce.bench.leaderboard scenes --limit {limit}`. Finished rows are not computed
   again.
4. Open a pull request with the code, the CSV files and this page.

## On photographs

`python -m reproduce.bench.leaderboard images --data PATH` writes the table of a bundled network on
a tree of class folders. The project has not run it yet.
"""


def write(out: Path) -> None:
    """Write the page from the existing tables."""
    parts = [INTRO]
    if rows := read(out / "scenes.csv"):
        parts += [SCENES.format(images=rows[0]["images"]), method_table(rows, METRICS)]
    if rows := read(out / "shortcut.csv"):
        accuracy = markdown(*split(out / "shortcut-accuracy.csv"))
        parts += [SHORTCUT.format(images=rows[0]["images"], accuracy=accuracy), shortcut_table(out)]
    if (path := out / "metric-agreement.csv").exists():
        parts += [METRIC_RANKS, markdown(*split(path))]
    for path in sorted(out.glob("network-agreement-*.csv")):
        metric = path.stem.removeprefix("network-agreement-")
        parts += [
            NETWORK_RANKS.format(metric=metric) if metric == "deletion" else f"Under {metric}:"
        ]
        parts.append(markdown(*split(path)))
    if rows := read(out / "peers.csv"):
        parts += [PEERS.format(images=rows[0]["images"]), peers_table(out)]
    scenes = read(out / "scenes.csv")
    parts.append(ADD.format(limit=scenes[0]["images"] if scenes else 100))
    write_text(out.parent / "leaderboard.md", "\n\n".join(part.strip() for part in parts) + "\n")


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, or no rows if it is missing."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def split(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of a CSV file, with display names."""
    with path.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return [label(name) for name in header], [[label(row[0]), *row[1:]] for row in rows]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose first column is text."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def method_table(rows: list[dict[str, str]], metrics: tuple[str, ...]) -> str:
    """Return one line per method and one column per metric; controls in italics."""
    cells = {(row["method"], row["metric"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    header = ["method"]
    for metric in metrics:
        header.append(f"{label(metric)} {ARROWS[cells[methods[0], metric]['better']]}")
    lines = []
    for method in methods:
        metric_cell = cells[method, metrics[0]]
        cpu_ms = f"{1000 * float(metric_cell['cpu_seconds']):.1f}"
        values = [number(cells[method, metric]["mean"]) for metric in metrics]
        lines.append([name_of(metric_cell), *values, cpu_ms])
    return markdown([*header, "CPU ms per image"], lines)


def shortcut_table(out: Path) -> str:
    """Return how often each method points at the tag, and at the object."""
    metrics = ("pointing", "energy")
    tables = [
        {(r["method"], r["metric"]): r for r in read(out / f"{name}.csv")}
        for name in ("shortcut", "shortcut-object")
    ]
    methods = list(dict.fromkeys(method for method, _ in tables[0]))
    header = [
        "method",
        "pointing at the tag",
        "energy in the tag",
        "pointing at the object",
        "energy in the object",
    ]
    rows = [
        [
            name_of(tables[0][m, "pointing"]),
            *(number(t[m, k]["mean"]) for t in tables for k in metrics),
        ]
        for m in methods
    ]
    return markdown(header, rows)


def peers_table(out: Path) -> str:
    """Return the table of packages without the column of image counts."""
    header, rows = split(out / "peers.csv")
    return markdown(header[:-1], [row[:-1] for row in rows])


def name_of(row: dict[str, str]) -> str:
    return f"*{label(row['method'])}*" if row["control"] == "True" else label(row["method"])


def number(text: str) -> str:
    return f"{float(text):.2f}" if text else "–"
