"""The cache key of a figure, which recorded results are current, and the cached arrays.

A key consists of what a person can state: the figure's id, version, config and seed, the contents
of its declared files, and the hashes of its declared inputs. It never depends on source text. A
record keeps the parts of its key, so that a stale record can name the parts that differ, even
where the original data are missing. Imports no torch, except to save arrays.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from reproduce.core.figure import Figure, Result
from reproduce.core.record import Record

NOT_COMPARED = ("device",)  # a record from another device is as good
UNVERSIONED = "recorded before keys had versions"


def as_json(config: Mapping[str, Any]) -> Any:
    """A config as JSON stores it: tuples become lists."""
    return json.loads(json.dumps(config))


def file_hashes(figure: Figure, folder: Path) -> dict[str, str]:
    """A hash of the contents of each file that a figure declares; YAML's comments do not count."""
    texts = {name: (folder / name).read_text("utf-8") for name in figure.files}
    return {
        name: _digest(yaml.safe_load(text) if name.endswith(".yaml") else text)
        for name, text in texts.items()
    }


def cache_key(figure: Figure, inputs: Mapping[str, str], files: Mapping[str, str]) -> str:
    """The cache key of a figure.

    Args:
        figure: Its id, version, config and seed count.
        inputs: Hashes of the declared inputs, as in `Context.identity`.
        files: Hashes of the declared files, as in `file_hashes`.

    Returns:
        A sha256 in hexadecimal digits.
    """
    return _digest({
        "id": figure.id, "version": figure.version, "config": as_json(figure.config),
        "seed": figure.seed, "inputs": dict(inputs), "files": dict(files),
    })  # fmt: skip


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode() + b"\0").hexdigest()


@dataclass(frozen=True)
class Status:
    """Whether a record is "current", "stale" or "missing".

    Attributes:
        differs: The parts of the key that changed.
        unchecked: The inputs that could not be compared, because the data are missing.
    """

    state: str
    differs: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = self.state
        if self.differs:
            text += f": {', '.join(self.differs)}"
        if self.unchecked:
            text += f" (not checked, data not available: {', '.join(self.unchecked)})"
        return text


def record_status(
    figure: Figure, folder: Path, record: Record | None, inputs: Mapping[str, str]
) -> Status:
    """Compare a record with the current declaration of its figure.

    Args:
        figure: The figure.
        folder: The folder of its script, to which its declared files are relative.
        record: The recorded result, or None where it is missing.
        inputs: The hashes that can be computed. Other inputs of the record are not compared, and
            listed in `Status.unchecked`.
    """
    if record is None:
        return Status("missing")
    if not record.version:
        return Status("stale", (UNVERSIONED,))
    checked = {name: value for name, value in inputs.items() if name not in NOT_COMPARED}
    files = file_hashes(figure, folder)
    parts = {
        "version": (record.version, figure.version),
        "config": (record.config, as_json(figure.config)),
        "seed": (record.seed, figure.seed),
        "files": (record.file_hashes, files),
        **{name: (record.inputs.get(name), checked[name]) for name in sorted(checked)},
    }
    differs = [name for name, (recorded, now) in parts.items() if recorded != now]
    if not differs and cache_key(figure, record.inputs, files) != record.key:
        differs = ["key"]  # a part of the record was edited
    unchecked = tuple(name for name in record.inputs if name not in (*checked, *NOT_COMPARED))
    return Status("stale" if differs else "current", tuple(differs), unchecked)


def save_result(path: Path, key: str, result: Result) -> None:
    """Save a result and its key as .npz, atomically."""
    from zfnet.data.io import atomic_write  # imports torch

    names = ("measured", "verdict", "n", "note", "scale", "finding", "reason")
    about = json.dumps({name: getattr(result, name) for name in names} | {"key": key})
    arrays: dict[str, Any] = {"__about__": np.array(about), **result.arrays}
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_result(path: Path, key: str) -> Result | None:
    """Load a saved result; None where it is missing, damaged, or has another key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["__about__"]))
            if about.pop("key") != key:
                return None
            arrays = {name: file[name] for name in file.files if name != "__about__"}
            return Result(arrays=arrays, **about)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
