"""The table of `--dry-run`: what a run would do for each figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reproduce import costs
from reproduce.core.context import Context
from reproduce.core.corpora import images_root
from reproduce.core.figure import SAMPLES, Figure
from reproduce.core.record import Record, read_record
from reproduce.core.requirements import CORPUS_NAMES, missing_input
from reproduce.core.run import result_folder
from reproduce.site.text import duration
from zfnet.data.cache import DataError
from zfnet.data.tree import scan

ROW = "{:<21}{:<9}{:<9}{:>9}  {:<26}{:<42}{}"


@dataclass(frozen=True)
class Forecast:
    """The actions of a run for one figure.

    Attributes:
        figure: The figure.
        action: "compute", "train" or "not run".
        data: A description of the images.
        scale: The scale of the result.
        folder: The folder of the result.
        seconds: Estimated duration, or None.
        source: The source of the estimate.
        reason: The reason why the figure cannot run, or "".
        record: The existing result.
    """

    figure: Figure
    action: str
    data: str
    scale: str
    folder: Path
    seconds: float | None
    source: str
    reason: str
    record: Record | None

    def __str__(self) -> str:
        result = f" (has a result: {self.record.verdict})" if self.record else ""
        return ROW.format(
            self.figure.id,
            self.action,
            self.scale,
            "" if self.seconds is None else duration(self.seconds),
            self.source,
            self.data,
            self.reason or f"{self.folder}{result}",
        )


def forecast(figure: Figure, context: Context, out: Path) -> Forecast:
    """Forecast a run of one figure by listing files, without decoding images or computing."""
    reason = missing_input(figure, context)
    at_paper_scale = bool(figure.scales) and context.requested_scale == "paper"
    # At paper scale, show the cost even if the image folder is too small.
    seconds, source = (
        costs.estimate(figure, context) if at_paper_scale or not reason else (None, "")
    )
    folder = result_folder(figure, context, out)
    return Forecast(
        figure=figure,
        action="not run" if reason else "train" if figure.trains else "compute",
        data=_data(figure, context),
        scale=_scale(figure, context),
        folder=folder,
        seconds=seconds,
        source=source,
        reason=reason,
        record=read_record(folder),
    )


def show(forecasts: list[Forecast]) -> None:
    """Print the table of a dry run and the total time."""
    print(ROW.format("figure", "would", "scale", "about", "estimated from", "data", "folder"))
    for line in forecasts:
        print(line)
    able = [f for f in forecasts if not f.reason]
    total = duration(sum(f.seconds or 0 for f in able))
    print(
        f"{len(able)} of {len(forecasts)} figures would be made, in about {total} without a cache. "
        "Nothing was computed."
    )


def _data(figure: Figure, context: Context) -> str:
    """Describe the images that a figure would use, counted by listing folders."""
    if "tree" in figure.inputs and context.tree is not None:
        classes, train, val = context.tree_size
        return f"{train:,} + {val:,} images of {classes:,} classes"
    if figure.corpus:
        return CORPUS_NAMES[figure.corpus]
    if not figure.uses_images:
        return "none"
    if context.data is None:
        return "sample photographs"
    return "Imagenette" if context.data == "imagenette" else f"{_count(context.data):,} images"


def _scale(figure: Figure, context: Context) -> str:
    """Return the scale of a figure if it is known in advance."""
    if figure.scales:
        return costs.default_scale(figure, context)
    if figure.corpus or not figure.uses_images:
        return "-"
    return SAMPLES if context.data is None else "subset"


def _count(data: str) -> int:
    """Count the images that a run would search, by listing the folder."""
    if not Path(data).expanduser().is_dir():
        raise DataError(f"{data}: no such folder")
    return len(scan(images_root(data))[1])
