"""A file that keeps the finished parts of a benchmark, one JSON line per part."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from torch import Tensor, nn

from zfnet.data.cache import digest


class ProgressFile:
    """Finished parts by key. Without a path it keeps nothing.

    Args:
        path: The file, or None.
        fingerprint: What all parts depend on.
    """

    def __init__(self, path: str | Path | None, fingerprint: str):
        self.path = None if path is None else Path(path)
        self.fingerprint = fingerprint
        self.parts: dict[str, dict] = {}
        if self.path:
            _check_writable(self.path)
            text = self.path.read_text("utf-8", errors="replace")
            if text and not text.endswith("\n"):  # end the line of an interrupted write
                self.path.write_text(text + "\n", "utf-8")
            for line in text.splitlines():
                try:
                    part = json.loads(line)
                    self.parts[part["key"]] = part
                except (ValueError, KeyError, TypeError):
                    continue  # an interrupted write

    def key(self, *parts: object) -> str:
        """Hash what a part depends on; tensors by their values."""
        return digest(
            self.fingerprint, *(_values(p) if isinstance(p, Tensor) else p for p in parts)
        )[:32]

    def get(self, key: str) -> dict | None:
        """Return a finished part, or None."""
        return self.parts.get(key)

    def put(self, key: str, part: dict) -> None:
        """Append a part, unless the file has it."""
        if self.path and key not in self.parts:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(part | {"key": key}) + "\n")
            self.parts[key] = part


def _check_writable(path: Path) -> None:
    """Create the file if it is missing. Raises ValueError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None


def fingerprint(model: nn.Module, *parts: object) -> str:
    """Hash a network's layers, weights, buffers and pooling head, and other values."""
    tensors = [*model.state_dict().values(), *(getattr(model, "cam_head", None) or ())]
    return digest(str(model), *map(_values, tensors), *parts)


def _values(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
