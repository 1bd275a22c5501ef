"""The training state, and the file from which a run resumes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from zfnet.checkpoint import assign
from zfnet.data.tensor_file import read_tensors, write_tensors
from zfnet.model import Network
from zfnet.training.config import Config, Optim, to_dict
from zfnet.training.optim import Schedule, new_average, new_optimizer, new_schedule
from zfnet.training.setup import TrainingError


@dataclass
class TrainState:
    """The network, and the optimizer, schedule and averaged weights of the current cycle."""

    model: Network
    optimizer: torch.optim.SGD
    schedule: Schedule
    average: AveragedModel | None  # None without optim.ema

    @staticmethod
    def new(model: Network, options: Optim, steps: int) -> TrainState:
        """Begin a cycle of `steps` steps with the network's present weights."""
        optimizer = new_optimizer(model, options)
        average = new_average(model, options.ema) if options.ema else None
        return TrainState(model, optimizer, new_schedule(optimizer, options, steps), average)

    @property
    def evaluated(self) -> Network:
        """The network to evaluate and save: the averaged weights, where there are any."""
        return self.model if self.average is None else cast(Network, self.average.module)

    def tensors(self) -> dict[str, Tensor]:
        """Return references to all tensors of the state by name, for saving and restoring."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in values.items()}
        if self.average is not None:
            tensors |= {f"average.{name}": t for name, t in self.average.state_dict().items()}
        return tensors


def save_state(path: Path, config: Config, progress: dict, state: TrainState) -> None:
    """Write a run's state atomically.

    Args:
        path: The file to write.
        config: The run's configuration.
        progress: What the trainer counts; JSON can hold it.
        state: The state.
    """
    meta = {
        "config": to_dict(config),
        "progress": progress,
        "optimizer": state.optimizer.state_dict()["param_groups"],
        "schedule": state.schedule.state_dict(),
    }
    write_tensors(path, state.tensors(), meta)


def read_state(path: Path, config: Config, data: list[str]) -> tuple[dict[str, Tensor], dict]:
    """Read a run's state, and check that it fits the run.

    Args:
        path: The file of `save_state`.
        config: The configuration of the resumed run.
        data: Digests of the training and validation images.

    Returns:
        The tensors and the metadata, for `restore`.

    Raises:
        TrainingError: The file is a network, or the configuration or the images differ.
    """
    tensors, meta = read_tensors(path)
    if "progress" not in meta:
        raise TrainingError(f"{path}: a network, not the state of a run")
    if "schedule" not in meta:
        raise TrainingError(
            f"{path}: the state of an older version; resume with the version that wrote it"
        )
    ours, theirs = json.loads(json.dumps(to_dict(config))), meta["config"]
    ours["data"]["path"] = theirs["data"]["path"]  # the same images may have moved
    changed = [key for key in ours if ours[key] != theirs.get(key)]
    if changed:
        raise TrainingError(
            f"{path}: the configuration has changed ({', '.join(changed)} differ); "
            "resume with the same one"
        )
    if data != meta["progress"]["data"]:
        raise TrainingError(f"{path}: trained on other images; resume with the same ones")
    return tensors, meta


def restore(path: Path, state: TrainState, tensors: dict[str, Tensor], meta: dict) -> None:
    """Copy a saved state into a new one.

    Args:
        path: The file, for messages.
        state: The state of a run at the start of the same cycle.
        tensors: From `read_state`.
        meta: From `read_state`.
    """
    with torch.no_grad():
        weights = {n[6:]: t for n, t in tensors.items() if n.startswith("model.")}
        assign(state.model, weights, str(path))
        for name, tensor in state.tensors().items():
            tensor.copy_(tensors[name])  # in place: keeps device and channels_last
    saved = state.optimizer.state_dict() | {"param_groups": meta["optimizer"]}
    state.optimizer.load_state_dict(saved)
    state.schedule.load_state_dict(meta["schedule"])
