"""Files of tensors and JSON metadata in safetensors: replaced atomically, verified when read.

Checkpoints, resume states, search results and soft labels use this format.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from zfnet.data.io import atomic_write, expand_path

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint cannot be used. The message names the file and the reason."""


def write_tensors(path: str | Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Write tensors and JSON metadata atomically.

    A matrix with runs of equal columns, as of a layer with one weight per map, is stored with
    one column per run. The recorded hash is that of the full matrices.

    Args:
        path: The file to write.
        tensors: The tensors by name.
        meta: Metadata that JSON can hold.

    Raises:
        CheckpointError: The file cannot be written, as on a full disk; an old one is unchanged.
    """
    path = expand_path(path)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    meta = json.loads(json.dumps(meta | {"format": FORMAT}))
    meta["sha256"] = sha256(tensors, meta)
    runs = {name: run for name, tensor in tensors.items() if (run := column_run(tensor)) > 1}
    if runs:
        meta["runs"] = runs
        tensors |= {name: tensors[name][:, ::run].contiguous() for name, run in runs.items()}
    try:
        with atomic_write(path) as partial, open(partial, "wb") as file:
            file.write(to_bytes(tensors, metadata={"zfnet": json.dumps(meta)}))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        unchanged = "; the one that was there is unchanged" if path.exists() else ""
        raise CheckpointError(f"{path}: cannot be written ({error}){unchanged}") from None


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read a file of `write_tensors` and verify its hash.

    Args:
        path: The file.

    Returns:
        The tensors by name, and the metadata with its "sha256".

    Raises:
        CheckpointError: The file is missing, damaged, or of another kind.
    """
    with _opened(path) as file:
        meta = _description(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    for name, run in meta.pop("runs", {}).items():
        tensors[name] = tensors[name].repeat_interleave(run, 1)
    if meta.pop("sha256", None) != (sha := sha256(tensors, meta)):
        raise CheckpointError(f"{path}: damaged: its contents do not have the recorded hash")
    meta["sha256"] = sha
    return tensors, meta


def read_metadata(path: str | Path) -> dict:
    """Read only the metadata of a file of `write_tensors`. The hash is not verified.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is missing, damaged, or of another kind.

    Example:
        >>> from zfnet.checkpoint import BUNDLED
        >>> read_metadata(BUNDLED / "imagenet65k.safetensors")["arch"]
        'zfnet'
    """
    with _opened(path) as file:
        return _description(path, file)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file, and turn read errors into CheckpointError."""
    try:
        with (
            _utf8_path(expand_path(path)) as readable,
            safe_open(readable, framework="pt") as file,
        ):
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None


@contextlib.contextmanager
def _utf8_path(path: Path) -> Iterator[Path]:
    """Yield a path to a file that safetensors can open: it takes no name that is not UTF-8."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "link.safetensors"
            link.symlink_to(path.resolve())
            yield link
    else:
        yield path


def _description(path: str | Path, file: Any) -> dict:
    """Return the metadata of an open file of `write_tensors`."""
    text = (file.metadata() or {}).get("zfnet")
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not written by zfnet")
    try:
        meta = json.loads(text)
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path}: damaged: its description is not readable")
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: of format {meta.get('format')}, this version reads format {FORMAT}"
        )
    return meta


def column_run(tensor: Tensor) -> int:
    """Return the largest run length of equal columns that divides a matrix evenly.

    Args:
        tensor: A tensor; the result is 1 unless it is a matrix.

    Example:
        >>> column_run(torch.tensor([[1, 1, 2, 2]]))
        2
    """
    if tensor.ndim != 2 or 0 in tensor.shape:
        return 1
    starts = (tensor[:, 1:] != tensor[:, :-1]).any(0).nonzero()[:, 0] + 1
    return math.gcd(tensor.shape[1], *starts.tolist())


def sha256(tensors: dict[str, Tensor], meta: dict) -> str:
    """Hash tensors, their names and shapes, and JSON metadata.

    Args:
        tensors: The tensors by name.
        meta: Metadata that JSON can hold.

    Returns:
        The hash in hexadecimal digits.
    """
    sha = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return sha.hexdigest()


def pack(state: dict[str, Tensor], precision: str) -> dict[str, Tensor]:
    """Store the weights of a state dict at a lower precision; `unpack` inverts it up to rounding.

    Args:
        state: A state dict of float32 tensors.
        precision: "float32", "float16" or "int8".

    Raises:
        ValueError: `precision` is unknown.

    Example:
        >>> pack({"a.weight": torch.ones(2, 2)}, "int8")["a.weight"].dtype
        torch.int8
    """
    if precision not in ("float32", "float16", "int8"):
        raise ValueError(f"precision must be float32, float16 or int8, got {precision!r}")
    packed = {}
    for name, tensor in state.items():
        if tensor.ndim < 2 or name.startswith("input.") or precision == "float32":
            packed[name] = tensor
        elif precision == "float16":
            packed[name] = tensor.half()
        else:
            scale = tensor.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            shape = (-1,) + (1,) * (tensor.ndim - 1)
            packed[name] = (tensor / scale.view(shape)).round().to(torch.int8)
            packed[f"{name}.scale"] = scale
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert packed tensors to a float32 state dict.

    Args:
        packed: The result of `pack`.

    Example:
        >>> unpack(pack({"a.weight": torch.ones(1, 2)}, "float16"))["a.weight"]
        tensor([[1., 1.]])
    """
    state = {}
    for name, tensor in packed.items():
        if tensor.dtype == torch.int8:
            state[name] = tensor.float() * packed[f"{name}.scale"].view(
                (-1,) + (1,) * (tensor.ndim - 1)
            )
        elif not name.endswith(".weight.scale"):
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state
