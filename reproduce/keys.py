"""The cache key of a figure, and which recorded results are current.

A key is made of what a person can state: the figure's id, version, config and seed, the contents of its declared files, and the
hashes of its declared inputs. It never depends on source text. A record keeps the parts of its key, so that a stale record can
name the parts that differ, even where the original data are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zfnet.data.cache import digest

if TYPE_CHECKING:
    from reproduce.figure import Figure
    from zfnet.record import Record

NOT_COMPARED = ("device",)  # a record that was made on another device is as good


def plain(config: Mapping[str, Any]) -> Any:
    """A config as JSON holds it: tuples become lists."""
    return json.loads(json.dumps(config))


def file_hashes(figure: Figure, folder: Path) -> dict[str, str]:
    """A hash of the contents of each YAML file that a figure declares, by name; comments do not count."""
    parsed = {name: yaml.safe_load((folder / name).read_text("utf-8")) for name in figure.files}
    return {
        name: digest(json.dumps(contents, sort_keys=True, default=str))
        for name, contents in parsed.items()
    }


def key(figure: Figure, inputs: Mapping[str, str], files: Mapping[str, str]) -> str:
    """The cache key of a figure.

    Args:
        figure: its id, version, config and seed count.
        inputs: hashes of the declared inputs, as in `Context.identity`.
        files: hashes of the declared files, as in `file_hashes`.

    Returns:
        A sha256 in hexadecimal.
    """
    parts = {
        "id": figure.id,
        "version": figure.version,
        "config": plain(figure.config),
        "seed": figure.seed,
    }
    return digest(
        json.dumps(parts | {"inputs": dict(inputs), "files": dict(files)}, sort_keys=True)
    )


@dataclass(frozen=True)
class Status:
    """Whether a record is "current", "stale" or "missing"; `differs` names the parts of the key that changed."""

    state: str
    differs: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __str__(self) -> str:
        differs = f": {', '.join(self.differs)}" if self.differs else ""
        unchecked = (
            f" (not checked, data not here: {', '.join(self.unchecked)})" if self.unchecked else ""
        )
        return self.state + differs + unchecked


def status(
    figure: Figure, folder: Path, record: Record | None, inputs: Mapping[str, str]
) -> Status:
    """Compare a record with what its figure declares now.

    Args:
        figure: the figure.
        folder: the folder of its script, where its declared files are.
        record: the recorded result, or None where there is none.
        inputs: the hashes that are known here. Others of the record are taken as they are, and named in `unchecked`.
    """
    if record is None:
        return Status("missing")
    if not record.version:
        return Status("stale", ("recorded before keys had versions",))
    checked = {name: value for name, value in inputs.items() if name not in NOT_COMPARED}
    files = file_hashes(figure, folder)
    differs = [
        name
        for name, then, now in (
            ("version", record.version, figure.version),
            ("config", record.config, plain(figure.config)),
            ("seed", record.seed, figure.seed),
            ("files", record.file_hashes, files),
        )
        if then != now
    ]
    differs += [name for name, value in sorted(checked.items()) if record.inputs.get(name) != value]
    unchecked = tuple(name for name in record.inputs if name not in (*checked, *NOT_COMPARED))
    if not differs and key(figure, record.inputs, files) != record.key:
        differs = ["key"]  # a part of the record was edited
    return Status("stale" if differs else "current", tuple(differs), unchecked)
