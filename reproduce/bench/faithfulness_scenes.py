"""The scenes and the small network of the figure on faithfulness."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import zfnet
from reproduce.bench.leaderboard_networks import network as scenes_network
from reproduce.core.context import Context
from zfnet.data.scenes import load_scenes
from zfnet.model import Network


class Scenes(NamedTuple):
    """The first scenes that the network classifies correctly.

    Attributes:
        x: (N, 3, S, S), the inputs.
        target: (N,), the classes.
        mask: (N, S, S), where the object is.
        count: Number of scenes that were classified.
        accuracy: The network's accuracy on them, in percent.
    """

    x: Tensor
    target: Tensor
    mask: Tensor
    count: int
    accuracy: float


def correct_scenes(ctx: Context, model: Network, count: int) -> Scenes:
    """Classify scenes, and keep correct ones: elsewhere there is no evidence to find."""
    device = ctx.device
    images = load_scenes(5 * count, seed=1, size=model.size)
    batches = np.split(np.arange(len(images)), 5)
    logits = [model(images.batch(rows).to(device)) for rows in batches]
    correct = torch.cat(logits).argmax(1).cpu().numpy() == images.labels
    rows = np.flatnonzero(correct)[:count]
    assert images.masks is not None
    border = (images.masks.shape[1] - model.size) // 2
    inner = slice(border, border + model.size)
    return Scenes(
        x=images.batch(rows).to(device),
        target=torch.from_numpy(images.labels[rows]).to(device),
        mask=torch.from_numpy(images.masks[rows][:, inner, inner]),
        count=len(images),
        accuracy=100 * float(correct.mean()),
    )


def network() -> Network:
    """Return the network of configs/scenes.yaml, with a pooling head for CAM."""
    return scenes_network("scenes", 0, (), lambda count, seed: load_scenes(count, seed=seed))


def attribute(
    model: torch.nn.Module, x: Tensor, target: Tensor, method: str, options: Mapping[str, Any]
) -> Tensor:
    """A method's maps (N, 1, H, W) on the CPU, in batches."""
    batches = zip(x.split(25), target.split(25), strict=True)
    maps = [zfnet.explain(model, part, method, of, **options).map.cpu() for part, of in batches]
    return torch.cat(maps)
