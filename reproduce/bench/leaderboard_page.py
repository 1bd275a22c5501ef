"""Write docs/leaderboard.md from the tables in docs/leaderboard."""

from __future__ import annotations

import csv
from pathlib import Path

from reproduce.bench import leaderboard_text as text
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


def write(out: Path) -> None:
    """Write the page from the existing tables."""
    parts = [text.INTRO]
    if rows := read(out / "scenes.csv"):
        parts += [text.SCENES.format(images=rows[0]["images"]), method_table(rows, METRICS)]
    if finding := agreement_ranges(out):
        parts.insert(1, finding)
    if rows := read(out / "shortcut.csv"):
        accuracy = markdown(*split(out / "shortcut-accuracy.csv"))
        parts += [
            text.SHORTCUT.format(images=rows[0]["images"], accuracy=accuracy),
            shortcut_table(out),
        ]
    if (path := out / "metric-agreement.csv").exists():
        parts += [text.METRIC_RANKS, markdown(*split(path))]
    for path in sorted(out.glob("network-agreement-*.csv")):
        metric = path.stem.removeprefix("network-agreement-")
        parts += [
            text.NETWORK_RANKS.format(metric=metric) if metric == "deletion" else f"Under {metric}:"
        ]
        parts.append(markdown(*split(path)))
    parts += photographs(out)
    if rows := read(out / "peers.csv"):
        parts += [text.PEERS.format(images=rows[0]["images"]), peers_table(out)]
    scenes = read(out / "scenes.csv")
    parts.append(text.ADD.format(limit=scenes[0]["images"] if scenes else 100))
    write_text(out.parent / "leaderboard.md", "\n\n".join(part.strip() for part in parts) + "\n")


def agreement_ranges(out: Path) -> str:
    """Return the finding: how far metrics, and networks, agree on the order of the methods."""
    if not (out / "metric-agreement.csv").exists():
        return ""
    names, values = off_diagonal(out / "metric-agreement.csv")
    low, high = min(values), max(values)
    best = best_methods(read(out / "scenes.csv"), names)
    if len(best) == 1:
        title = f"one method is the best under all {len(names)} metrics"
    else:
        title = f"{len(names)} metrics have {len(best)} different best methods"
    lines = [
        f"## The finding: {title}\n",
        f"Each of {len(names)} metrics ranks the methods, on the same scenes and network.\n"
        f"Spearman's correlation of two rankings goes from {low:.2f} to {high:.2f}, and is\n"
        f"negative for {sum(v < 0 for v in values)} of {len(values)} pairs. Best are:\n",
        *(f"- {method}: {', '.join(metrics)}" for method, metrics in best.items()),
        "\nBetween two networks, under one metric, the correlation is:\n",
    ]
    for path in sorted(out.glob("network-agreement-*.csv")):
        metric = label(path.stem.removeprefix("network-agreement-"))
        values = off_diagonal(path)[1]
        lines.append(f"- under {metric}: {min(values):.2f} to {max(values):.2f}")
    return "\n".join(lines)


def best_methods(rows: list[dict[str, str]], metrics: list[str]) -> dict[str, list[str]]:
    """Return the metrics under which each method is the best, controls left out.

    Args:
        rows: The rows of a table.
        metrics: The display names of metrics for which higher or lower is better.
    """
    best: dict[str, list[str]] = {}
    for metric in metrics:
        scored = [
            row
            for row in rows
            if label(row["metric"]) == metric and row["mean"] and row["control"] == "False"
        ]
        choose = max if scored[0]["better"] == "higher" else min
        winner = choose(scored, key=lambda row: float(row["mean"]))
        best.setdefault(label(winner["method"]), []).append(metric)
    return best


def off_diagonal(path: Path) -> tuple[list[str], list[float]]:
    """Return the names of a symmetric matrix, and its values above the diagonal."""
    header, rows = split(path)
    values = [float(cell) for i, row in enumerate(rows) for cell in row[i + 2 :]]
    return header[1:], values


def photographs(out: Path) -> list[str]:
    """Return the section of each network on photographs."""
    parts = []
    for path in sorted(out.glob("images-*.csv")):
        model = path.stem.removeprefix("images-")
        if model.startswith("agreement-"):
            continue
        rows, dogs = read(path), read(out / f"dogs-{model}.csv")
        title = text.PHOTOGRAPHS.format(model=model, images=rows[0]["images"])
        parts += [title, method_table(rows, tuple(dict.fromkeys(r["metric"] for r in rows)))]
        if dogs:
            parts += [text.DOGS.format(images=dogs[0]["images"]), method_table(dogs, METRICS[:2])]
        if (agreement := out / f"images-agreement-{model}.csv").exists():
            parts += ["Rank correlations between the metrics:", markdown(*split(agreement))]
    return parts


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
