"""Train the rows of Table 3, and cache what their networks predict.

A finished row is one file in the cache, named by a hash of its configuration and its images. The
hash does not depend on source text, so hours of training survive a changed comment. The file
records the commit. A training that is interrupted continues from its last state, which is at most
a few minutes old. On a CPU several rows are trained side by side, each in its own process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zfnet
from reproduce.core.context import Context
from reproduce.core.record import environment
from reproduce.paper.ablation_images import load_images
from reproduce.paper.ablations import Plan, recipe
from reproduce.paper.row_arrays import diverged_row, measure_row
from reproduce.paper.rows import Row
from reproduce.paper.side_by_side import exit_without_parent, run_side_by_side
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.data.io import atomic_write
from zfnet.model import ARCHITECTURES
from zfnet.training.config import Config, to_dict
from zfnet.training.loop import DivergedError, train
from zfnet.training.setup import resolve_precision

VERSION = 5  # raise it when the cached file holds something else
KEEP_EVERY = 240.0  # seconds between two saved states; writing up to 1 GB takes some
Training = tuple[str, int]  # a row of Table 3, and a seed


def train_rows(
    ctx: Context, plan: Plan, images: dict[str, Images], trainings: Sequence[Training]
) -> dict[str, list[Row]]:
    """Load rows from the cache; train those that are missing, or resume their trainings.

    Args:
        ctx: The run.
        plan: The size of the trainings.
        images: The "train" and "val" images.
        trainings: The rows and seeds.

    Returns:
        The rows by name, in the order of their seeds.
    """
    missing = [t for t in trainings if not row_path(plan, images, *t).exists()]
    if plan.parallel > 1 and len(missing) > 1 and ctx.device_type == "cpu":
        missing.sort(key=lambda training: -_multiply_adds(plan, training))  # the longest first
        tasks = [(ctx.model_name, ctx.data, plan, *training) for training in missing]
        run_side_by_side(_train_missing, tasks, plan.parallel, ctx.progress)
    rows: dict[str, list[Row]] = {}
    for name, seed in ctx.progress(trainings, total=len(trainings), desc="rows"):
        rows.setdefault(name, []).append(train_row(ctx, plan, images, name, seed))
    return rows


def row_path(plan: Plan, images: dict[str, Images], name: str, seed: int) -> Path:
    """The file of a trained row in the cache."""
    data = (images["train"].digest, images["val"].digest)
    config = json.dumps(to_dict(recipe(plan, name, seed)))
    return cache_dir() / f"row-{digest(config, plan.views, *data, VERSION)[:20]}.npz"


def snapshot_paths(path: Path) -> dict[float, Path]:
    """The kept snapshots of a row by epoch; `path` is its file in the cache."""
    paths = path.with_suffix("").with_name(f"{path.stem}-snapshots").glob("*.safetensors")
    return {float(p.stem.removeprefix("epoch-")): p for p in sorted(paths)}


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
    path = row_path(plan, images, name, seed)
    folder = path.with_suffix("")
    if not path.exists():
        diverged = train_in(folder, config, images, ctx.device)
        if diverged:
            arrays, about = diverged_row(plan, images, folder)
        else:
            arrays, about = measure_row(ctx.device, plan, images, name, folder)
        precision = resolve_precision(config, torch.device(ctx.device)).precision
        about |= {"name": name, "plan": asdict(plan), "diverged": diverged, "precision": precision}
        about |= environment(ctx.device)
        if (folder / "snapshots").exists():
            os.replace(folder / "snapshots", folder.with_name(f"{folder.name}-snapshots"))
        save_arrays(path, about=np.array(json.dumps(about)), **arrays)
        shutil.rmtree(folder)  # up to 1 GB of weights and momenta that no figure reads
    with np.load(path, allow_pickle=False) as file:
        return Row(
            rank=file["rank"],
            train_rank=file["train_rank"],
            probability=file["probability"],
            label=file["label"],
            about=json.loads(str(file["about"])),
        )


def _train_missing(model: str, data: str, plan: Plan, name: str, seed: int) -> None:
    """Train a row in a separate process."""
    ctx = Context(model, data)
    with torch.no_grad():
        train_row(ctx, plan, load_images(ctx, plan), name, seed)


def _multiply_adds(plan: Plan, training: Training) -> int:
    """Multiply-adds of a forward pass."""
    options = asdict(recipe(plan, *training).model)
    with torch.device("meta"):
        network = ARCHITECTURES[options.pop("arch")](classes=2, **options)
    return sum(layer.macs for layer in zfnet.describe(network))


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
                report=lambda progress: exit_without_parent(),
            )
        except DivergedError as error:
            return str(error).partition(";")[0]
    return ""


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays to a file of the cache, atomically."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
