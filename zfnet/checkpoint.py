"""Checkpoints in safetensors with metadata: verified when read and replaced atomically.

A checkpoint holds the architecture, its options, the class names and the weights, so that
`zfnet.load(path)` needs nothing else. Weights are float32, float16, or int8 with one scale
per output channel. The trainer's resume state uses the same format.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from zfnet.data.io import atomic_write, expand_path
from zfnet.model import ARCHITECTURES, Network, fold, unwrap_network

BUNDLED = Path(__file__).parent / "weights"
FORMAT = 1
CAM_HEAD = ("cam.weight", "cam.bias")  # stored with the network's weights


class CheckpointError(ValueError):
    """A checkpoint cannot be used. The message names the file and the reason."""


def load(name: str | Path, *, folded: bool = True) -> Network:
    """Load a network for analysis: eval mode, float32, on the CPU, without gradients.

    Args:
        name: A bundled network's name, or a checkpoint's path.
        folded: Fold BatchNorm into the convolutions, so that the layers are the paper's. False
            keeps it, and gradients, for further training.

    Returns:
        The network. `classes` and `wnids` name its outputs; `info` holds the recorded recipe
        and accuracy.

    Raises:
        CheckpointError: The name or file does not exist, or the file is damaged.

    Example:
        >>> model = load("imagenet65k")
        >>> len(model.classes)
        1000
    """
    path = _path(name)
    tensors, meta = read_tensors(path)
    _check_arch(path, meta)
    # Ignore torch's default device and dtype, and leave its random state unchanged.
    with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        model = ARCHITECTURES[meta["arch"]](**meta["options"]).float()
        state, model.cam_head = _split(unpack(tensors))
        assign(model, state, str(path))
        model.classes, model.wnids, model.info = meta["classes"], meta["wnids"], meta["info"]
        model.info["sha256"] = meta["sha256"]
        model = (fold(model) if folded else model).eval()
        return model.requires_grad_(False) if folded else model


def structure(name: str | Path) -> Network:
    """Build the network of `load` on the meta device, from the checkpoint's metadata alone.

    Args:
        name: A bundled network's name, or a checkpoint's path.

    Raises:
        CheckpointError: The name or file does not exist, or the file has no metadata.

    Example:
        >>> structure("imagenet65k").conv1.weight.device
        device(type='meta')
    """
    path = _path(name)
    meta = read_metadata(path)
    _check_arch(path, meta)
    with torch.device("meta"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        model = ARCHITECTURES[meta["arch"]](**meta["options"])
        model.classes, model.wnids, model.info = meta["classes"], meta["wnids"], meta["info"]
        return fold(model).requires_grad_(False)


def _check_arch(path: Path, meta: dict) -> None:
    if meta.get("arch") not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: not a zfnet checkpoint (no known architecture in its metadata)"
        )


def _path(name: str | Path) -> Path:
    """Return a bundled network's file, or the given path."""
    path = BUNDLED / f"{name}.safetensors"
    if Path(name).name == str(name) and path.is_file():
        return path
    path = expand_path(name)
    if path.suffix != ".safetensors" and not path.is_file():
        names = ", ".join(sorted(p.stem for p in BUNDLED.glob("*.safetensors")))
        raise CheckpointError(
            f"no bundled network {str(name)!r} (there are: {names}), nor a file of that name"
        )
    return path


def save(model: nn.Module, path: str | Path, *, precision: str = "float32") -> None:
    """Write a network atomically.

    int8 rounds w / s to -127..127 with s = max |w| / 127 per output channel. Biases and
    BatchNorm stay float32.

    Args:
        model: The network, possibly inside DataParallel or torch.compile.
        path: The file to write.
        precision: The weights' precision: "float32", "float16" or "int8".

    Raises:
        ValueError: `precision` is unknown.
        TypeError: The network was not built by `zfnet`, `alexnet` or `mnist`.
        CheckpointError: A layer was replaced, so that `load` could not build the network; or the
            file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "small.safetensors"
        >>> save(ARCHITECTURES["mnist"](), path)
        >>> load(path).arch
        'mnist'
    """
    model = unwrap_network(model)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        rebuilt = ARCHITECTURES[model.arch](**model.options)
    state = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    assign(rebuilt, state, f"cannot save to {path}")
    state = model.state_dict() | dict(zip(CAM_HEAD, model.cam_head or (), strict=False))
    state = {name: t.detach().float().cpu().contiguous() for name, t in state.items()}
    meta = {
        "arch": model.arch,
        "options": model.options,
        "classes": list(model.classes),
        "wnids": list(model.wnids),
        "info": {k: v for k, v in model.info.items() if k != "sha256"},
    }
    write_tensors(path, pack(state, precision), meta)


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
    if "input.centre" in state:  # its name in files written before it was spelled "center"
        state["input.center"] = state.pop("input.centre")
    return state


def initialize(model: nn.Module, name: str | Path) -> dict:
    """Copy a checkpoint's weights into a network, as `zfnet train --init` does.

    Args:
        model: A network of the checkpoint's architecture and classes.
        name: A bundled network's name, or a checkpoint's path.

    Returns:
        The checkpoint's `info`.

    Raises:
        CheckpointError: The architecture or the classes differ. The message names the first
            layer or output that differs.

    Example:
        >>> info = initialize(load("imagenet65k"), "imagenet65k")  # doctest: +SKIP
    """
    path, model = _path(name), unwrap_network(model)
    tensors, meta = read_tensors(path)
    state, _ = _split(unpack(tensors))
    assign(model, state, str(path))
    for i, (there, here) in enumerate(zip(meta.get("wnids", ()), model.wnids, strict=False)):
        if there != here:
            raise CheckpointError(
                f"{path}: of other classes: output {i} is {there} in the checkpoint, {here} in the network"
            )
    return meta.get("info", {}) | {"sha256": meta["sha256"]}


def _split(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    """Separate the network's weights from its pooling head, or None."""
    own = {name: tensor for name, tensor in state.items() if name not in CAM_HEAD}
    return own, (state[CAM_HEAD[0]], state[CAM_HEAD[1]]) if CAM_HEAD[0] in state else None


def assign(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict into a network.

    Args:
        model: The network.
        state: The state dict.
        source: The file it was read from, for messages.

    Raises:
        CheckpointError: The architecture differs. The message names the first such layer.
    """

    def layer(name: str) -> int:
        found = re.search(r"\d+", name)
        return int(found[0]) if found else 0

    own = model.state_dict()
    for name in sorted(dict.fromkeys([*own, *state]), key=layer):
        if name not in own or name not in state:
            where = "the checkpoint" if name not in state else "the network"
            raise CheckpointError(
                f"{source}: of another architecture: {name} is missing in {where}"
            )
        if own[name].shape != state[name].shape:
            raise CheckpointError(
                f"{source}: of another architecture: {name} is {tuple(state[name].shape)} in the checkpoint, "
                f"{tuple(own[name].shape)} in the network"
            )
    model.load_state_dict(state)


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
    path = Path(path)
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
        kept = "; the one that was there is unchanged" if path.exists() else ""
        raise CheckpointError(f"{path}: cannot be written ({error}){kept}") from None


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
        >>> read_metadata(BUNDLED / "imagenet65k.safetensors")["arch"]
        'zfnet'
    """
    with _opened(path) as file:
        return _description(path, file)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file, and turn read errors into CheckpointError."""
    try:
        with safe_open(expand_path(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None


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
