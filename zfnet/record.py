"""Records of results: result.json with what was measured, and atomically written pictures."""

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
SOURCES = ("zfnet", "reproduce", "configs", "pyproject.toml")  # what a result depends on
VERDICTS = ("reproduced", "partial", "differs", "not comparable", "not run")


@dataclass(frozen=True)
class Record:
    """One figure's result, as stored in result.json.

    Attributes:
        measured: The measured numbers by name.
        paper: The paper's numbers, under the same names where they can be compared.

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
    inputs: dict[str, str]  # checkpoint and data, by sha256; corpus by name
    config: dict[str, Any]
    key: str  # hash of id, version, config, seed, inputs and file_hashes
    files: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    version: int = 0  # of the figure; 0 in records from before versions
    file_hashes: dict[str, str] = field(
        default_factory=dict
    )  # hashes of the figure's declared files

    def __post_init__(self):
        if self.scale not in SCALES or self.verdict not in VERDICTS:
            raise ValueError(
                f"{self.id}: scale {self.scale!r} or verdict {self.verdict!r} is not one of {SCALES} and {VERDICTS}"
            )


def environment(device: str) -> dict[str, str]:
    """Describe how a result was made: commit, versions and device, without host names or paths.

    Args:
        device: A torch device, such as "cpu" or "cuda".

    Returns:
        Texts by name. The commit ends in "-dirty" where sources have uncommitted changes.

    Example:
        >>> sorted(environment("cpu"))
        ['commit', 'device', 'python', 'torch']
    """
    commit = _git("rev-parse", "HEAD").stdout.strip() or "unknown"
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"CPU, {torch.get_num_threads()} threads"
    )
    return {
        "commit": commit + ("-dirty" if sources_changed() else ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": name,
    }


def sources_changed() -> bool:
    """Whether tracked sources have uncommitted changes; False outside a git repository."""
    return _git("diff", "--quiet", "HEAD", "--", *(f":/{name}" for name in SOURCES)).returncode == 1


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )


def write_record(record: Record, folder: str | Path) -> None:
    """Write `folder/result.json` atomically.

    Args:
        record: The result.
        folder: The figure's folder, created where it is missing.
    """
    write_text(
        Path(folder) / "result.json",
        json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    )


def read_record(folder: str | Path) -> Record | None:
    """Read a `result.json`.

    Args:
        folder: The figure's folder.

    Returns:
        The record, or None where it is missing or unreadable.

    Example:
        >>> read_record("no-such-folder") is None
        True
    """
    try:
        return Record(**json.loads((Path(folder) / "result.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, "utf-8")


def write_gif(frames: np.ndarray, path: Path, milliseconds: int | Sequence[int] = 100) -> None:
    """Write an endless GIF atomically. Each frame has its own palette, which keeps colors true.

    Args:
        frames: (N, H, W, 3) uint8. Equal consecutive frames are merged.
        path: The file to write.
        milliseconds: One duration for all frames, or one per frame. GIF stores hundredths of a
            second, and browsers show none below two.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.gif"
        >>> frames = np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), 255)]).astype(np.uint8)
        >>> write_gif(frames, path)
        >>> Image.open(path).n_frames
        2
    """
    images = [
        Image.fromarray(f).quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        for f in frames
    ]
    times = milliseconds if isinstance(milliseconds, int) else list(milliseconds)
    with atomic_write(path) as partial:
        images[0].save(
            partial,
            "GIF",
            save_all=True,
            append_images=images[1:],
            duration=times,
            loop=0,
            optimize=True,
        )


def write_figure(figure: Figure, path: Path, quality: int = 88) -> None:
    """Write a matplotlib figure atomically.

    Args:
        figure: The figure.
        path: The file to write; .jpg suits photographs.
        quality: JPEG quality, 1 to 95.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "empty.png"
        >>> write_figure(Figure(), path)
        >>> path.is_file()
        True
    """
    options: dict[str, Any] = (
        {"pil_kwargs": {"quality": quality, "optimize": True}}
        if path.suffix in (".jpg", ".jpeg")
        else {}
    )
    with atomic_write(path) as partial:
        figure.savefig(
            partial,
            dpi=150,
            format=path.suffix[1:] or "png",
            bbox_inches="tight",
            pad_inches=0.06,
            **options,
        )
