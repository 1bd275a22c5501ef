"""Train the rows of Table 3, and cache what their networks predict.

A finished row is one file in the cache, named by a hash of its configuration and its images. The
hash does not depend on source text, so hours of training survive a changed comment. The file
records the commit.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.context import Context
from reproduce.core.record import environment
from reproduce.paper.ablations import ENSEMBLE, Plan, recipe
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.data.io import atomic_write
from zfnet.model import Network
from zfnet.training.config import Config, to_dict
from zfnet.training.evaluate import predict
from zfnet.training.loop import DivergedError, train
from zfnet.training.sampling import epoch_order
from zfnet.training.setup import resolve_precision

VERSION = 4  # increase it when the contents of the cached file change
# Seconds between two saved states of a training. Writing up to 1 GB takes as long as an epoch on a
# GPU.
KEEP_EVERY = 240.0


@dataclass(frozen=True, eq=False)
class Row:
    """What a trained network predicts for the N validation images.

    Attributes:
        rank: (N,), the rank of the true class, from 1; larger than all if the training diverged.
        train_rank: (M,), the same for M images that it was trained on, without dropout.
        probability: (N, classes) float32, the mean over the plan's views; empty for networks that
            are in no ensemble.
        label: (N,), the true classes.
        about: How it was trained. `about["diverged"]` says where the training diverged, else "".
    """

    rank: np.ndarray
    train_rank: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    about: dict

    def error(self, k: int = 1) -> float:
        """Top-k validation error in percent."""
        return 100 * float((self.rank > k).mean())

    def train_error(self) -> float:
        """Top-1 training error in percent."""
        return 100 * float((self.train_rank > 1).mean())


def train_row(ctx: Context, plan: Plan, images: dict[str, Images], name: str, seed: int) -> Row:
    """Load a row from the cache, or train it, or resume its training.

    Args:
        ctx: The run.
        plan: The size of the training.
        images: The "train" and "val" images.
        name: One of ROWS.
        seed: Seed of the training.
    """
    config = recipe(plan, name, seed)
    data = (images["train"].digest, images["val"].digest)
    key = digest(json.dumps(to_dict(config)), plan.views, *data, VERSION)
    folder = cache_dir() / f"row-{key[:20]}"
    path = folder.with_suffix(".npz")
    if not path.exists():
        diverged = train_in(folder, config, images, ctx.device)
        if diverged:
            arrays, about = diverged_row(plan, images, folder)
        else:
            arrays, about = _measure(ctx, plan, images, name, folder)
        precision = resolve_precision(config, torch.device(ctx.device)).precision
        about |= {"name": name, "plan": asdict(plan), "diverged": diverged, "precision": precision}
        about |= environment(ctx.device)
        save_arrays(path, about=np.array(json.dumps(about)), **arrays)
        shutil.rmtree(folder)  # up to 2 GB of weights and momenta that no figure reads
    with np.load(path, allow_pickle=False) as file:
        return Row(
            rank=file["rank"],
            train_rank=file["known"],
            probability=file["probability"],
            label=file["label"],
            about=json.loads(str(file["about"])),
        )


def train_in(folder: Path, config: Config, images: dict[str, Images], device: str) -> str:
    """Train in a folder, or resume there.

    Returns:
        Where the training diverged, "" if it did not. A diverged training would diverge again.
    """
    resume = (folder / "state.safetensors").exists()
    with torch.enable_grad():
        try:
            train(
                config,
                lambda split, side: images[split],
                folder,
                resume=resume,
                device=device,
                keep_every=KEEP_EVERY,
            )
        except DivergedError as error:
            return str(error).partition(";")[0]
    return ""


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays to a file of the cache, atomically."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def diverged_row(
    plan: Plan, images: dict[str, Images], folder: Path
) -> tuple[dict[str, np.ndarray], dict]:
    """The row of a diverged training: wrong on every image.

    The log also has the epochs after the last saved state.
    """
    val, epoch = images["val"], epoch_rows(plan, images["train"])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    used = len(epoch) // plan.batch * plan.batch
    seconds = sum(used / line["images_per_second"] for line in log)
    n, classes = len(val), len(val.classes)
    arrays = {
        "rank": np.full(n, classes + 5),
        "known": np.full(min(n, len(epoch)), classes + 5),
        "probability": np.full((n, classes), 1 / classes, dtype=np.float32),
        "label": val.labels,
    }
    return arrays, {"epochs": len(log), "log": log, "seconds": seconds}


def _measure(
    ctx: Context, plan: Plan, images: dict[str, Images], name: str, folder: Path
) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a trained row, and how it was trained.

    It predicts in float32, because bfloat16 rounds different logits to the same number.
    """
    model = zfnet.load(folder / "model.safetensors", folded=False).to(ctx.device)
    val = images["val"]
    training_sample = images["train"].subset(epoch_rows(plan, images["train"])[: len(val)])
    seen_probability, probability = (
        probabilities(model, part, 1) for part in (training_sample, val)
    )
    cached = np.zeros((0, probability.shape[1]), dtype=np.float32)
    if name in ENSEMBLE:
        cached = probability if plan.views == 1 else probabilities(model, val, plan.views)
    arrays = {
        "rank": ranks(probability, val.labels),
        "known": ranks(seen_probability, training_sample.labels),
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


def ranks(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The rank of the true class of each image, from 1; ties go to the lower class.

    Args:
        probability: (N, classes).
        label: (N,).
    """
    true = probability[np.arange(len(label)), label][:, None]
    lower = np.arange(probability.shape[1]) < label[:, None]
    return 1 + ((probability > true) | ((probability == true) & lower)).sum(1)


def paper_scale_note(row: Row, size: int) -> str:
    """A sentence on how long the paper's training would take, from the speed at `size` pixels."""
    speed = training_speed(row)
    if not speed:
        return "ZFNet finished no epoch, so the time at the paper's scale is not estimated."
    with torch.device("meta"):
        macs, paper_macs = (
            sum(layer.macs for layer in zfnet.describe(zfnet.zfnet(1000, size=side)))
            for side in (size, 224)
        )
    hours = 70 * 1.28e6 / speed / 3600 * paper_macs / macs
    return (
        "The paper's 70 epochs of 1.28 million images of 224 pixels would take ZFNet "
        f"{hours:,.0f} h: the {speed:.0f} images/s measured at {size} pixels, in its last epoch on "
        f"{row.about['device']}, scaled by the multiply-adds."
    )


def diverged_trainings(rows: dict[str, list[Row]]) -> dict[str, str]:
    """Where trainings diverged, by row and seed."""
    return {
        f"{name}, seed {seed}": row.about["diverged"]
        for name, seeds in rows.items()
        for seed, row in enumerate(seeds)
        if row.about["diverged"]
    }


def training_speed(row: Row) -> float:
    """Images per second in the last epoch of a training; 0 if it finished none."""
    return row.about["log"][-1]["images_per_second"] if row.about["log"] else 0.0
