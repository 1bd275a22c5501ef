"""The HTML page of `zfnet bench`: one table, one plot, and the settings of the run."""

from __future__ import annotations

import math
from html import escape

from zfnet.benchmarking.table import BenchmarkTable, Row, label

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5rem; line-height: 1.25 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .3em .8em; text-align: right; vertical-align: baseline }
th, td { border-bottom: 1px solid light-dark(#ddd, #444) }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas }
th small, td small { display: block; font-weight: normal }
th small, td small, tr.control td { color: light-dark(#666, #aaa) }
td.best { font-weight: bold }
img { width: 100%; min-width: 840px; background: white }
.wide { overflow-x: auto; margin: 1.5em 0 }
"""
CLASSES = {"label": "labeled class", "predicted": "predicted class"}


def bench_page(table: BenchmarkTable, model: str) -> str:
    """Return the page of a benchmark.

    Args:
        table: The result.
        model: The network's name.
    """
    info = table.info
    title = f"Attribution methods of {model} on {info['data']}"
    notes = [
        f"{info['images']} images, explained for the {CLASSES[info['target']]}; "
        f"batch {info['batch']}, seed {info['seed']}.",
        f"PyTorch {info['torch']}, threads: {info['threads']}; this run took "
        f"{info['seconds']:.0f} s ({info['cpu_seconds']:.0f} s of CPU time).",
        "Means and 95 % bootstrap intervals over images. Bold: the best mean of the methods. "
        "Gray: controls with a known truth.",
    ]
    if info["empty_masks"]:
        notes.append(f"{info['empty_masks']} images have an empty mask and no localization score.")
    notes += [f"{name} was skipped: {reason}" for name, reason in table.skipped.items()]
    notes += failures(table)
    paragraphs = "".join(f"<p>{escape(note)}</p>\n" for note in notes)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n{paragraphs}"
        f'<div class="wide">{html_table(table)}</div>\n'
        '<div class="wide"><img src="results.png" alt="Means and intervals of all methods"></div>\n'
        '<p><a href="results.csv">All rows as CSV</a></p>\n</html>\n'
    )


def failures(table: BenchmarkTable) -> list[str]:
    """Return a sentence for each method with constant maps, or maps that are not finite."""
    notes = []
    for method in table.methods:
        row = next(row for row in table.rows if row.method == method)
        if row.constant and not row.control:
            notes.append(f"{row.constant} of {row.images} maps of {label(method)} are constant.")
        if row.not_finite:
            notes.append(
                f"{row.not_finite} of {row.images} maps of {label(method)} are not finite."
            )
    return notes


def html_table(table: BenchmarkTable) -> str:
    """Return one line per method and one column per metric."""
    rows = {(row.method, row.metric): row for row in table.rows}
    header = "".join(f"<th>{column(rows, metric)}</th>" for metric in table.metrics)
    lines = []
    for method in table.methods:
        control = rows[method, table.metrics[0]].control
        cells = "".join(cell(rows[method, m], best(table, m)) for m in table.metrics)
        lines.append(
            f"<tr{' class=control' if control else ''}><td>{escape(label(method))}</td>{cells}</tr>"
        )
    return f"<table>\n<tr><th>method</th>{header}</tr>\n" + "\n".join(lines) + "\n</table>"


def column(rows: dict[tuple[str, str], Row], metric: str) -> str:
    """Return a column's title as HTML: the metric, its unit and direction."""
    row = next(row for (_, name), row in rows.items() if name == metric)
    details = [part for part in (row.unit, row.better and f"{row.better} is better") if part]
    lines = "".join(f"<small>{escape(part)}</small>" for part in details)
    return escape(label(metric)) + lines


def best(table: BenchmarkTable, metric: str) -> float:
    """Return the best mean of the methods without controls, NaN where neither end is better."""
    better = next(row.better for row in table.rows if row.metric == metric)
    means = table.means(metric).values()
    if not means or not better:
        return math.nan
    return max(means) if better == "higher" else min(means)


def cell(row: Row, top: float) -> str:
    """Return a cell with the mean and its interval."""
    if math.isnan(row.mean):
        return "<td></td>"
    interval = "" if math.isnan(row.low) else f" <small>{row.low:.3g} to {row.high:.3g}</small>"
    kind = " class=best" if row.mean == top and not row.control else ""
    return f"<td{kind}>{row.mean:.3g}{interval}</td>"
