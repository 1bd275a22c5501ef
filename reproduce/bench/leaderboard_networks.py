"""The networks of the leaderboard and of faithfulness, trained on drawn scenes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import zfnet
from reproduce import REPOSITORY
from reproduce.bench import peers
from zfnet.benchmarking import load_shortcut_scenes
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.model import Network
from zfnet.training.config import load_config
from zfnet.training.loop import train

RECIPE = REPOSITORY / "configs" / "scenes.yaml"


def network(
    kind: str, seed: int, overrides: tuple[str, ...], load: Callable[[int, int], Images]
) -> Network:
    """Return a network of configs/scenes.yaml; train it if it is not in the cache."""
    config = load_config(RECIPE, [f"seed={seed}", *overrides])
    splits = {"train": load(config.data.scenes, 0), "val": load(500, 1)}
    key = digest(RECIPE.read_text(), seed, *overrides, splits["train"].digest)[:20]
    out = cache_dir() / f"leaderboard-{kind}-{key}"
    if not (out / "model.safetensors").exists():
        resume = (out / "state.safetensors").exists()
        with torch.enable_grad():
            train(config, lambda split, side: splits[split], out, resume=resume)
    model = zfnet.load(out / "model.safetensors")
    model.cam_head = peers.pooling_head(model, splits["train"])
    return model


def masked_accuracy(model: nn.Module, masked: str | None) -> float:
    """Return the accuracy in percent on shortcut scenes with the tag or object replaced by gray."""
    images = load_shortcut_scenes(500, seed=4, plausible=True, mask=masked or "tag")
    assert images.masks is not None
    border = (images.masks.shape[1] - images.size) // 2
    correct = 0
    for rows in np.array_split(np.arange(len(images)), 10):
        x = images.batch(rows)
        if masked:
            mask = torch.from_numpy(images.masks[rows][:, border:-border, border:-border])
            x = x.masked_fill(mask[:, None], 0.0)
        correct += int((model(x).argmax(1) == torch.from_numpy(images.labels[rows])).sum())
    return 100 * correct / len(images)
