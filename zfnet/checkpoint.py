"""Checkpoints: networks in the format of `zfnet.data.tensor_file`.

A checkpoint holds the architecture, its options, the class names and the weights, so
`zfnet.load(path)` needs nothing else. Weights are float32, float16, or int8 with one scale per
output channel.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zfnet.data.io import expand_path
from zfnet.data.tensor_file import (
    CheckpointError,
    pack,
    read_metadata,
    read_tensors,
    unpack,
    write_tensors,
)
from zfnet.model import ARCHITECTURES, Network, fold, unwrap_network

BUNDLED = Path(__file__).parent / "weights"
DEFAULT_NETWORK = "imagenet65k"  # the most accurate bundled network
CAM_HEAD = ("cam.weight", "cam.bias")  # stored with the network's weights
# Option and tensor names of checkpoints written before a renaming, with their names today.
RENAMED = {
    "fc": "fc_units",
    "maps": "channels",
    "without": "drop_layers",
    "start": "init",
    "colour": "color",
    "tied": "shared_fc6",
    "frozen": "frozen_layers",
    "validate": "val_images",
    "input.centre": "input.center",
}


def load(name: str | Path = DEFAULT_NETWORK, *, folded: bool = True) -> Network:
    """Load a network for analysis: eval mode, float32, on the CPU, without gradients.

    Args:
        name: A bundled network's name, or a checkpoint's path. By default the best bundled one.
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
    state, meta = _read(path)
    _check_arch(path, meta)
    # Ignore torch's default device and dtype, and leave its random state unchanged.
    with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        model = ARCHITECTURES[meta["arch"]](**meta["options"]).float()
        state, model.cam_head = _split(state)
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
    meta = rename_options(read_metadata(path))
    _check_arch(path, meta)
    with torch.device("meta"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        model = ARCHITECTURES[meta["arch"]](**meta["options"])
        model.classes, model.wnids, model.info = meta["classes"], meta["wnids"], meta["info"]
        return fold(model).requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read a checkpoint's float32 tensors and metadata, under today's names."""
    tensors, meta = read_tensors(path)
    state = {RENAMED.get(name, name): tensor for name, tensor in unpack(tensors).items()}
    return state, rename_options(meta)


def rename_options(meta: dict) -> dict:
    """Give the options and recorded configurations of an older checkpoint today's names.

    Args:
        meta: Metadata as returned by `read_metadata`. It is not modified.

    Example:
        >>> rename_options({"options": {"fc": 64, "norm": "batch"}})
        {'options': {'fc_units': 64, 'norm': 'batch'}}
    """

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {RENAMED.get(key, key): rename(item) for key, item in value.items()}
        return [rename(item) for item in value] if isinstance(value, list) else value

    meta = dict(meta)
    for key in ("options", "config"):
        if key in meta:
            meta[key] = rename(meta[key])
    for key in ("info", "init"):  # `init` is the `info` of the run that this one started from
        if isinstance(meta.get(key), dict):
            meta[key] = rename_options(meta[key])
    return meta


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
            f"no bundled network {str(name)!r}, and no such file; bundled: {names}"
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
    state, meta = _read(path)
    state, _ = _split(state)
    assign(model, state, str(path))
    pairs = zip(meta.get("wnids", ()), model.wnids, strict=False)
    for i, (theirs, ours) in enumerate(pairs):
        if theirs != ours:
            raise CheckpointError(
                f"{path}: the classes differ: output {i} is {theirs} in the checkpoint, "
                f"{ours} in the network"
            )
    return meta.get("info", {}) | {"sha256": meta["sha256"]}


def _split(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    """Separate the network's weights from its pooling head, or None."""
    weights = {name: tensor for name, tensor in state.items() if name not in CAM_HEAD}
    return weights, (state[CAM_HEAD[0]], state[CAM_HEAD[1]]) if CAM_HEAD[0] in state else None


def assign(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict into a network.

    Args:
        model: The network.
        state: The state dict.
        source: The file it was read from, for messages.

    Raises:
        CheckpointError: The architecture differs. The message names the first such layer.
    """

    def layer_number(name: str) -> int:
        digits = re.search(r"\d+", name)
        return int(digits[0]) if digits else 0

    expected = model.state_dict()
    for name in sorted(dict.fromkeys([*expected, *state]), key=layer_number):
        if name not in expected or name not in state:
            place = "the checkpoint" if name not in state else "the network"
            raise CheckpointError(
                f"{source}: the architecture differs: {name} is missing in {place}"
            )
        if expected[name].shape != state[name].shape:
            raise CheckpointError(
                f"{source}: the architecture differs: {name} is {tuple(state[name].shape)} "
                f"in the checkpoint, {tuple(expected[name].shape)} in the network"
            )
    model.load_state_dict(state)
