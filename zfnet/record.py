"""result.json: what was measured, from what, on what, beside the paper's value; and pictures, written whole or not at all."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from zfnet.data.io import atomic_write

SCALES = ("paper", "subset", "samples", "smoke")
SOURCES = ("zfnet", "reproduce", "configs", "pyproject.toml")  # what a result depends on: no earlier result does
VERDICTS = ("reproduced", "partial", "differs", "not comparable", "not run")


@dataclass(frozen=True)
class Record:
    """One figure's result. `measured` and `paper` are dicts of numbers under the same names where they can be compared."""

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
    inputs: dict[str, str]  # checkpoint and data, by sha256; corpus by name
    config: dict[str, Any]
    key: str  # hash of id, version, config, seed, inputs and file_hashes
    files: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    version: int = 0  # of the figure; 0 in records that were made before keys had versions
    file_hashes: dict[str, str] = field(default_factory=dict)  # of the files that the figure declares

    def __post_init__(self):
        if self.scale not in SCALES or self.verdict not in VERDICTS:
            raise ValueError(
                f"{self.id}: scale {self.scale!r} or verdict {self.verdict!r} is not one of {SCALES} and {VERDICTS}"
            )


def environment(device: str) -> dict[str, str]:
    """The git commit ("-dirty" where sources are changed), versions and device of a result; no host or path."""
    commit = _git("rev-parse", "HEAD").stdout.strip() or "unknown"
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    return {
        "commit": commit + ("-dirty" if sources_changed() else ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": name,
    }


def sources_changed() -> bool:
    """Whether tracked files of the sources have uncommitted changes; False outside a git repository."""
    return _git("diff", "--quiet", "HEAD", "--", *(f":/{name}" for name in SOURCES)).returncode == 1


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)


def write_record(record: Record, folder: str | Path) -> None:
    """Write `folder/result.json` atomically."""
    write_text(Path(folder) / "result.json", json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(folder: str | Path) -> Record | None:
    """Read a `result.json`, or None where there is none that can be read."""
    try:
        return Record(**json.loads((Path(folder) / "result.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text, "utf-8")


def write_gif(frames: np.ndarray, path: Path, milliseconds: int | Sequence[int] = 100) -> None:
    """Write frames (N, H, W, 3) uint8 atomically as an endless GIF; each has a palette of its own, so that colours stay true.

    `milliseconds` is one time for all or one for each; GIF keeps hundredths of a second, browsers show none below two.
    Equal frames in a row become one that is shown longer.
    """
    images = [Image.fromarray(f).quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE) for f in frames]
    times = milliseconds if isinstance(milliseconds, int) else list(milliseconds)
    with atomic_write(path) as partial:
        images[0].save(partial, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0, optimize=True)


def write_figure(figure: Figure, path: Path, quality: int = 88) -> None:
    """Write a picture atomically; .jpg for photographic ones."""
    options: dict[str, Any] = {"pil_kwargs": {"quality": quality, "optimize": True}} if path.suffix in (".jpg", ".jpeg") else {}
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix[1:] or "png", bbox_inches="tight", pad_inches=0.06, **options)
