"""The scenes and the small network of the figure on faithfulness."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import zfnet
from reproduce import REPOSITORY
from reproduce.core.context import Context
from zfnet.data.cache import cache_dir, digest
from zfnet.data.scenes import load_scenes
from zfnet.model import Network
from zfnet.training.config import load_config
from zfnet.training.loop import train


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
    """The network of configs/scenes.yaml with a pooling head for CAM; trained once, then cached."""
    recipe = REPOSITORY / "configs" / "scenes.yaml"
    config = load_config(recipe)
    scenes = {"train": load_scenes(config.data.scenes, seed=0), "val": load_scenes(500, seed=1)}
    key = digest(recipe.read_text(), scenes["train"].digest)[:20]
    out = cache_dir() / f"scenes-net-{key}"
    if not (out / "model.safetensors").exists():
        resume = (out / "state.safetensors").exists()
        with torch.enable_grad():
            train(config, lambda split, side: scenes[split], out, resume=resume)
    model = zfnet.load(out / "model.safetensors")
    rows, images = np.arange(1000), scenes["train"]
    pooled = [
        zfnet.trace(model, images.batch(part), until="conv5")["conv5"].mean((2, 3))
        for part in np.split(rows, 10)
    ]
    head = LogisticRegression(max_iter=2000).fit(torch.cat(pooled).numpy(), images.labels[rows])
    weight, bias = (torch.from_numpy(part).float() for part in (head.coef_, head.intercept_))
    model.cam_head = (weight, bias)
    return model


def attribute(
    model: torch.nn.Module, x: Tensor, target: Tensor, method: str, options: Mapping[str, Any]
) -> Tensor:
    """A method's maps (N, 1, H, W) on the CPU, in batches."""
    batches = zip(x.split(25), target.split(25), strict=True)
    maps = [zfnet.explain(model, part, method, of, **options).map.cpu() for part, of in batches]
    return torch.cat(maps)
