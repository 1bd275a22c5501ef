"""The record of a result, `result.json`. Imports no torch."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reproduce import REPOSITORY

SCALES = ("paper", "subset", "samples", "smoke")  # the largest first
SOURCES = ("zfnet", "reproduce", "configs", "pyproject.toml")  # what a result depends on
VERDICTS = (
    "reproduced",
    "by construction",  # a diagram or an architecture, which cannot fail
    "partial",
    "differs",
    "not comparable",
    "not run",
)


@dataclass(frozen=True)
class Record:
    """One figure's result, as stored in result.json.

    Attributes:
        measured: The measured numbers by name.
        paper: The paper's numbers, under the same names if they are comparable.
        inputs: Hashes of the checkpoint and the data; the corpus by name.
        key: Hash of id, version, config, seed, inputs and file_hashes.
        files: Names of the pictures.
        version: Version of the figure; 0 in records made before figures had versions.
        file_hashes: Hashes of the figure's declared files.
        finding: As in `Result`.
        reason: As in `Result`.

    Raises:
        ValueError: `scale` is not in SCALES, or `verdict` is not in VERDICTS.
    """

    id: str
    title: str
    claim: str
    scale: str
    verdict: str
    measured: dict[str, Any]
    paper: dict[str, Any]
    n: int
    seed: int
    note: str
    inputs: dict[str, str]
    config: dict[str, Any]
    key: str
    files: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    version: int = 0
    file_hashes: dict[str, str] = field(default_factory=dict)
    finding: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"{self.id}: scale {self.scale!r} is not one of {SCALES}")
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.id}: verdict {self.verdict!r} is not one of {VERDICTS}")


def read_record(folder: str | Path) -> Record | None:
    """Read `folder/result.json`; None if it is missing or unreadable."""
    try:
        return Record(**json.loads((Path(folder) / "result.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(record: Record, folder: str | Path) -> None:
    """Write `folder/result.json` atomically. The folder is created if it is missing."""
    from zfnet.data.io import atomic_write  # imports torch

    text = json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(Path(folder) / "result.json") as partial:
        partial.write_text(text, "utf-8")


def environment(device: str) -> dict[str, str]:
    """Describe how a result was made: commit, versions and device, without host names or paths.

    Args:
        device: A torch device, such as "cpu" or "cuda".

    Returns:
        Texts by name. The commit ends in "-dirty" if sources have uncommitted changes.
    """
    import torch

    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    commit = _git("rev-parse", "HEAD").stdout.strip() or "unknown"
    return {
        "commit": commit + ("-dirty" if sources_changed() else ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": name,
    }


def sources_changed() -> bool:
    """Whether sources have uncommitted changes or new files; False outside a git repository."""
    return bool(_git("status", "--porcelain", "--", *(f":/{name}" for name in SOURCES)).stdout)


def is_committed(folder: Path) -> bool:
    """Whether git tracks files in a folder."""
    return folder.is_dir() and bool(_git("ls-files", ".", folder=folder).stdout.strip())


def _git(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=folder or REPOSITORY, check=False
    )
