"""What is kept of a finished training of Table 3: its ranks and probabilities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import zfnet
from reproduce.paper.ablations import ENSEMBLE, Plan
from reproduce.paper.rows import ranks
from zfnet.data.dataset import Images
from zfnet.model import Network
from zfnet.training.evaluate import predict
from zfnet.training.sampling import epoch_order


def diverged_row(
    plan: Plan, images: dict[str, Images], folder: Path
) -> tuple[dict[str, np.ndarray], dict]:
    """The row of a diverged training: wrong on every image.

    Its log has also the epochs after the last saved state.
    """
    val, epoch = images["val"], epoch_rows(plan, images["train"])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    used = len(epoch) // plan.batch * plan.batch
    seconds = sum(used / line["images_per_second"] for line in log)
    n, classes = len(val), len(val.classes)
    arrays = {
        "rank": np.full(n, classes + 5),
        "train_rank": np.full(min(n, len(epoch)), classes + 5),
        "probability": np.full((n, classes), 1 / classes, dtype=np.float32),
        "label": val.labels,
    }
    return arrays, {"epochs": len(log), "log": log, "seconds": seconds}


def measure_row(
    device: str, plan: Plan, images: dict[str, Images], name: str, folder: Path
) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a trained row, and how it was trained.

    It predicts in float32, because bfloat16 rounds different logits to the same number.
    """
    model = zfnet.load(folder / "model.safetensors", folded=False).to(device)
    val = images["val"]
    training_sample = images["train"].subset(epoch_rows(plan, images["train"])[: len(val)])
    of_training, probability = (probabilities(model, part, 1) for part in (training_sample, val))
    cached = np.zeros((0, probability.shape[1]), dtype=np.float32)
    if name in ENSEMBLE:
        cached = probability if plan.views == 1 else probabilities(model, val, plan.views)
    arrays = {
        "rank": ranks(probability, val.labels),
        "train_rank": ranks(of_training, training_sample.labels),
        "probability": cached,
        "label": val.labels,
    }
    about = {key: model.info[key] for key in ("epochs", "log", "seconds")}
    return arrays, about | {"parameters": sum(p.numel() for p in model.parameters())}


def epoch_rows(plan: Plan, images: Images) -> np.ndarray:
    """The rows of an epoch, shuffled. As in training, only a part of large classes."""
    return epoch_order(images.labels, plan.per_class, torch.Generator().manual_seed(0))


def probabilities(model: Network, images: Images, views: int) -> np.ndarray:
    """The mean probability over the views of each image: (N, classes) float32."""
    batches = np.array_split(np.arange(len(images)), -(-len(images) // 100))
    total = torch.cat([p.cpu() for p in predict(model, images, batches, views=views)])
    return (total / views).numpy()
