"""Make one figure: compute it or take it from the cache, draw it, and write its record."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from matplotlib.figure import Figure as Picture

from reproduce.core.cache import cache_key, file_hashes, load_result, save_result
from reproduce.core.context import Context
from reproduce.core.discovery import script_folder
from reproduce.core.figure import DEFAULT_MODEL, Figure, Result
from reproduce.core.networks import unsupported_network
from reproduce.core.record import (
    SCALES,
    Record,
    environment,
    is_committed,
    read_record,
    sources_changed,
    write_record,
)
from zfnet import plot
from zfnet.checkpoint import CheckpointError
from zfnet.data.cache import DataError
from zfnet.data.formats import ImageError
from zfnet.graph import UnknownLayer, UnsupportedNetwork
from zfnet.plot import write_figure, write_gif
from zfnet.training.distributed import ParallelError

QUALITIES = (78, 64, 50)  # of JPEG: the first whose file is small enough
LARGEST_PICTURE = 400_000  # bytes


class DirtyTreeError(RuntimeError):
    """A committed record would be made from sources with uncommitted changes."""


USER_ERRORS = (  # the user's input cannot be used
    CheckpointError,
    DataError,
    DirtyTreeError,
    ImageError,
    ParallelError,
    UnknownLayer,
    UnsupportedNetwork,
)


@dataclass(frozen=True)
class Outcome:
    """A line of the final table.

    Attributes:
        record: The record of the figure, new or existing.
        seconds: Seconds of this run.
        cached: Whether the record is an earlier one.
        folder: The folder of the record.
        reason: Why the record was not replaced, or why it says "not run".
        ran: Whether the figure could be made.
    """

    record: Record
    seconds: float
    cached: bool
    folder: Path
    reason: str = ""
    ran: bool = True


def run(
    script: ModuleType, context: Context, out: Path, force: bool = False, allow_dirty: bool = False
) -> Outcome:
    """Make one figure in its `result_folder`, unless a record with the same key exists.

    Args:
        script: The module of the figure.
        context: The inputs.
        out: The folder of all results.
        force: Also compute cached figures, and also replace records of a larger scale.
        allow_dirty: Write committed records even from sources with uncommitted changes.

    Raises:
        DirtyTreeError: The corpus is committed, the sources have uncommitted changes, and
            `allow_dirty` is not set.
    """
    figure: Figure = script.FIGURE
    start = time.perf_counter()
    folder = result_folder(figure, context, out)
    inputs = context.identity(figure)
    hashes = file_hashes(figure, script_folder(script))
    key = cache_key(figure, inputs, hashes)
    prior = read_record(folder)
    # What was not run may be possible now: Figure 4 needs a training that the key does not name.
    retry = prior is not None and prior.verdict == "not run"
    if prior and not force and not retry and _is_current(prior, key, folder):
        return _keep(prior, folder, start)
    if not allow_dirty:
        _require_clean_sources(figure, folder)

    result = None if force or retry else load_result(folder / "arrays.npz", key)
    if result is None:
        result = _compute(script, context)
        reason = _reason_to_keep(prior, result, result_scale(result, figure, context), force)
        if prior and reason:
            return _keep(prior, folder, start, reason, ran=result.verdict != "not run")
        save_result(folder / "arrays.npz", key, result)
    files, title = _draw(script, result, folder)
    record = Record(
        id=figure.id,
        title=figure.title,
        claim=figure.claim,
        scale=result_scale(result, figure, context),
        verdict=result.verdict,
        measured=result.measured,
        paper=figure.paper,
        n=result.n,
        seed=figure.seed,
        note=result.note,
        inputs=inputs,
        config=figure.config,
        key=key,
        files=files,
        seconds=round(time.perf_counter() - start, 1),
        environment=environment(context.device),
        version=figure.version,
        file_hashes=hashes,
        finding=result.finding or title,
        reason=result.reason,
    )
    write_record(record, folder)
    return replace(_keep(record, folder, start), cached=False)


def result_folder(figure: Figure, context: Context, out: Path) -> Path:
    """The folder of a figure's result.

    It is `out/<corpus>/<id>`, or `out/<corpus>@<network>/<id>` for figures that use another
    network than the default. Where that folder has results of another checkpoint of the same
    name, the first eight digits of this checkpoint's hash are added to the name.
    """
    folder = out / (figure.corpus or context.corpus)
    if figure.uses_model and context.model_name != DEFAULT_MODEL:
        folder = folder.with_name(f"{folder.name}@{context.network_name}")
        records = [read_record(path.parent) for path in folder.glob("*/result.json")]
        checkpoints = {record.inputs.get("checkpoint") for record in records if record}
        if checkpoints - {None, context.checkpoint}:
            folder = folder.with_name(f"{folder.name}-{context.checkpoint[:8]}")
    return folder / figure.id


def result_scale(result: Result, figure: Figure, context: Context) -> str:
    """Return the scale of a result: its own, else that of the images, else "paper"."""
    return result.scale or (context.scale if figure.uses_images else "paper")


def available_inputs(
    context: Context, figure: Figure, corpus: str, hash_data: bool
) -> dict[str, str]:
    """Return the hashes of a figure's available inputs, to compare with a committed record.

    Args:
        context: The network and the data.
        figure: The figure whose inputs are hashed.
        corpus: The corpus of the record.
        hash_data: Also hash the data. Missing data are left out.
    """
    hashes = {"corpus": corpus}
    if hash_data:
        hashes |= context.identity(figure)
    elif {"model", "top"} & set(figure.inputs):
        hashes["checkpoint"] = context.checkpoint
    return {name: value for name, value in hashes.items() if value != "absent"}


def _is_current(record: Record, key: str, folder: Path) -> bool:
    return record.key == key and all((folder / name).exists() for name in record.files)


def _require_clean_sources(figure: Figure, folder: Path) -> None:
    if is_committed(folder.parent) and sources_changed():
        raise DirtyTreeError(
            f"{figure.id}: sources have uncommitted changes, and {folder.parent.name} is a "
            "committed corpus; commit the changes, or pass --allow-dirty"
        )


def _compute(script: ModuleType, context: Context) -> Result:
    """Compute a figure; "not run" if it does not support the torchvision network."""
    figure: Figure = script.FIGURE
    reason = unsupported_network(figure, context)
    if not reason:
        torch.manual_seed(figure.seed)
        try:
            with torch.no_grad():
                return script.compute(context.for_figure(figure))
        except (UnsupportedNetwork, UnknownLayer) as error:
            if not context.from_torchvision:
                raise
            reason = f"It cannot use {context.network_name}: {error}."
    return Result({}, {}, "not run", n=0, note=reason)


def _reason_to_keep(prior: Record | None, result: Result, scale: str, force: bool) -> str:
    """Return why a result does not replace an earlier record; "" if it does."""
    if prior is None:
        return ""
    if result.verdict == "not run":
        return result.note or "It could not be run."
    smaller = SCALES.index(scale) > SCALES.index(prior.scale)
    if prior.verdict != "not run" and smaller and not force:
        return f"The record's scale is larger than {scale}; --force replaces it."
    return ""


def _keep(
    record: Record, folder: Path, start: float, reason: str = "", ran: bool = True
) -> Outcome:
    """Return the outcome of a figure with a record. A "not run" record's note is its reason."""
    if record.verdict == "not run":
        reason, ran = record.note, False
    seconds = time.perf_counter() - start
    return Outcome(record, seconds, cached=True, folder=folder, reason=reason, ran=ran)


def _draw(script: ModuleType, result: Result, folder: Path) -> tuple[list[str], str]:
    """Draw a result, write its pictures and remove those of an earlier version.

    A script may also return tables as text, such as "networks.csv".

    Returns:
        The names of the pictures, and the title of the cover picture.
    """
    pictures: dict[str, Picture | np.ndarray | str] = {}
    with plot.style():
        if result.verdict != "not run" or result.arrays:
            pictures = script.draw(result)
        for name, picture in pictures.items():
            if isinstance(picture, str):
                (folder / name).write_text(picture, encoding="utf-8")
            else:
                _write_picture(picture, folder / name)
    for kind in ("png", "jpg", "gif", "csv"):
        for path in folder.glob(f"*.{kind}"):
            if path.name not in pictures:
                path.unlink()
    names = [name for name, picture in pictures.items() if not isinstance(picture, str)]
    cover = script.FIGURE.cover or next(iter(names), "")
    return names, _title(pictures.get(cover))


def _title(picture: Picture | np.ndarray | str | None) -> str:
    """Return a picture's title as a sentence; "" for an animation or a picture without one."""
    if not isinstance(picture, Picture):
        return ""
    title = picture.get_suptitle()
    if not title and len(picture.axes) == 1:
        title = picture.axes[0].get_title()
    title = " ".join(title.replace("\\$", "$").split())  # split() removes no-break spaces, too
    return f"{title}." if title and not title.endswith((".", "?")) else title


def _write_picture(picture: Picture | np.ndarray, path: Path) -> None:
    if isinstance(picture, np.ndarray):
        write_gif(picture, path)
        return
    for quality in QUALITIES:
        write_figure(picture, path, quality=quality)
        if path.stat().st_size <= LARGEST_PICTURE:
            break
