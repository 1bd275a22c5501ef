"""The result of a benchmark: one row per method and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from zfnet.analysis.extra import import_extra
from zfnet.data.io import atomic_write


@dataclass(frozen=True)
class Row:
    """The score of one method for one metric.

    Attributes:
        method: The method's name.
        metric: The metric's name.
        mean: The mean over images; NaN where no image has a score.
        low: Lower end of the 95 % bootstrap interval of the mean over images, and of speed over
            batches; NaN below two of them.
        high: Upper end.
        n: The number of images with a score.
        images: The number of images.
        constant: Maps with one value only. They score like a random order of the pixels.
        not_finite: Maps with NaN or infinity. They are replaced by zeros, which are constant.
        seconds: Wall-clock seconds per image to explain.
        cpu_seconds: CPU seconds per image to explain, of all threads.
        peak_memory_mb: Peak memory in MiB of the tensors while one image is explained; NaN without
            the metric "memory".
        scoring_seconds: Wall-clock seconds that the metric took for all images.
        unit: The unit of the mean.
        better: "higher", "lower" or "".
        control: Whether the method is a control with a known truth.
    """

    method: str
    metric: str
    mean: float
    low: float
    high: float
    n: int
    images: int
    constant: int
    not_finite: int
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    scoring_seconds: float
    unit: str
    better: str
    control: bool


@dataclass(frozen=True, eq=False)
class BenchmarkTable:
    """All rows of a benchmark.

    Attributes:
        rows: One row per method and metric.
        values: The value of each image, (images,) by (method, metric).
        skipped: Methods that do not apply to the network, with the reason.
        info: The data, the explained class, the number of images, empty masks, the seed, total
            seconds and versions.
    """

    rows: tuple[Row, ...]
    values: dict[tuple[str, str], np.ndarray] = field(repr=False)
    skipped: dict[str, str]
    info: dict[str, Any]

    @property
    def methods(self) -> list[str]:
        """The methods in order, controls last."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def metrics(self) -> list[str]:
        """The metrics in order."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def row(self, method: str, metric: str) -> Row:
        """Return one row. Raises KeyError if there is none."""
        for row in self.rows:
            if (row.method, row.metric) == (method, metric):
                return row
        raise KeyError(f"no row {method!r}, {metric!r}; methods: {self.methods}")

    def means(self, metric: str, *, controls: bool = False) -> dict[str, float]:
        """Return each method's mean under a metric, without methods that have none.

        Args:
            metric: The metric's name.
            controls: Whether to include the controls.
        """
        return {
            row.method: row.mean
            for row in self.rows
            if row.metric == metric and (controls or not row.control) and np.isfinite(row.mean)
        }

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV, and write them to a file.

        Args:
            path: The file to write; None writes none.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: _cell(v) for k, v in asdict(row).items()})
        if path is not None:
            with atomic_write(Path(path)) as partial:
                partial.write_text(text.getvalue(), "utf-8")
        return text.getvalue()

    def to_pandas(self) -> Any:
        """Return the rows as a pandas.DataFrame. Raises ImportError where pandas is missing."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("pandas is missing; install it with: pip install pandas") from error
        return pandas.DataFrame([asdict(row) for row in self.rows])

    def plot(self) -> Any:
        """Return a matplotlib figure: one panel per metric, means with 95 % intervals."""
        from zfnet.plot import style  # matplotlib, which `import zfnet` does not need

        with style():
            return self._draw()

    def _draw(self) -> Any:
        from zfnet.plot import LINES, new_figure

        methods, metrics = self.methods[::-1], self.metrics
        columns = min(3, len(metrics))
        lines = -(-len(metrics) // columns)
        figure = new_figure(2.0 + 2.6 * columns, lines * (1.1 + 0.24 * len(methods)))
        panels = np.atleast_1d(figure.subplots(lines, columns, sharey=True, squeeze=False).ravel())
        for axes, metric in zip(panels, metrics, strict=False):
            rows = [row for row in self.rows if row.metric == metric]
            for row in rows:
                y, color = methods.index(row.method), "0.5" if row.control else LINES[0]
                axes.plot([row.low, row.high], [y, y], color=color, linewidth=1.5)
                axes.plot([row.mean], [y], "o", color=color, markersize=5)
            axes.set_yticks(range(len(methods)), [label(name) for name in methods])
            axes.grid(axis="x", color="0.9")
            axes.set_xlabel(axis_label(rows[0]))
            axes.set_title(label(metric))
        for axes in panels[len(metrics) :]:
            axes.set_axis_off()
        return figure

    def __str__(self) -> str:
        """Return a table of means, one line per method and one column per metric."""
        width = max(map(len, self.methods))
        lines = [" ".join([" " * width, *(f"{metric:>15}" for metric in self.metrics)])]
        means = {(row.method, row.metric): row.mean for row in self.rows}
        for method in self.methods:
            cells = [means.get((method, metric), np.nan) for metric in self.metrics]
            texts = [f"{'' if np.isnan(v) else format(v, '.3f'):>15}" for v in cells]
            lines.append(" ".join([f"{method:<{width}}", *texts]))
        lines += [f"skipped {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def rank_agreement(tables: Sequence[BenchmarkTable], metric: str) -> np.ndarray:
    """Compare how tables rank the methods that all of them have, without controls.

    Args:
        tables: Results for several networks or seeds.
        metric: The metric to rank by.

    Returns:
        Spearman's rank correlation of each pair of tables, (tables, tables).

    Raises:
        ValueError: If fewer than two methods are in all tables.
    """
    return rank_correlations([table.means(metric) for table in tables])


def metric_agreement(table: BenchmarkTable, metrics: Sequence[str]) -> np.ndarray:
    """Compare how metrics rank the methods, best first, without controls.

    Args:
        table: A result.
        metrics: Metrics for which higher or lower is better.

    Returns:
        Spearman's rank correlation of each pair of metrics, (metrics, metrics).

    Raises:
        ValueError: If fewer than two methods have a score under all metrics.
    """
    better = {row.metric: row.better for row in table.rows}
    signs = {"higher": 1.0, "lower": -1.0}
    columns = [
        {method: signs[better[metric]] * mean for method, mean in table.means(metric).items()}
        for metric in metrics
    ]
    return rank_correlations(columns)


def rank_correlations(columns: Sequence[dict[str, float]]) -> np.ndarray:
    """Return Spearman's rank correlation of each pair of columns over the names in all of them."""
    names = sorted(set.intersection(*(set(column) for column in columns)))
    if len(names) < 2:
        raise ValueError(f"ranks need at least two common methods, got {names}")
    values = np.array([[column[name] for name in names] for column in columns])
    return np.corrcoef(import_extra("scipy.stats").rankdata(values, axis=1))


def label(name: str) -> str:
    """Return a name as it is shown: "grad_cam_plus_plus" as "grad cam++"."""
    return name.replace("_plus_plus", "++").replace("_", " ")


def axis_label(row: Row) -> str:
    parts = [row.unit, f"{row.better} is better" if row.better else ""]
    return "\n".join(part for part in parts if part)


def _cell(value: Any) -> Any:
    """Return a CSV cell: floats with six significant digits, NaN as an empty cell."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value
