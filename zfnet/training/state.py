"""The resume state of a run: weights, momentum, averaged weights and progress in one safetensors file."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from zfnet.checkpoint import assign, read_tensors, write_tensors
from zfnet.model import Network
from zfnet.training.config import Config, to_dict
from zfnet.training.setup import TrainingError


def store(
    path: Path, config: Config, progress: dict, model: Network, optimizer: torch.optim.SGD, average
) -> None:
    tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.detach().cpu().contiguous()
    for name, value in (average or {}).items():
        tensors[f"average.{name}"] = value.detach().cpu().contiguous()
    write_tensors(
        path,
        tensors,
        {"config": to_dict(config), "progress": progress | {"best": _finite(progress["best"])}},
    )


def restore(
    path: Path, config: Config, data: list[str], model: Network, optimizer: torch.optim.SGD, average
) -> dict:
    tensors, meta = read_tensors(path)
    if "progress" not in meta:
        raise TrainingError(f"{path}: a network, not the state of a run")
    now, then = json.loads(json.dumps(to_dict(config))), meta["config"]
    now["data"]["path"] = then["data"]["path"]  # the images count, not where they lie
    changed = [key for key in now if now[key] != then.get(key)]
    if changed:
        raise TrainingError(
            f"{path}: made with another config ({', '.join(changed)} differ); resume with the same one"
        )
    if data != meta["progress"].get("data", data):
        raise TrainingError(
            f"{path}: trained on other images than these; resume with the same ones"
        )
    assign(model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, str(path))
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(
                tensors[f"momentum.{name}"]
            )
    for name in average or {}:
        average[name].copy_(tensors[f"average.{name}"])
    progress = meta["progress"]
    return progress | {
        "data": data,
        "best": math.inf if progress["best"] is None else progress["best"],
    }


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move the exponential moving average of a network's weights and buffers a step towards what they are."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def averaged_copy(model: Network, average: dict[str, Tensor] | None) -> Network:
    """The network that is evaluated and released: a copy, with the averaged weights where there are any."""
    evaluated = copy.deepcopy(model)
    if average is not None:
        evaluated.load_state_dict(average)
    return evaluated


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
