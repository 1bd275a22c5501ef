"""What a training run will need, before it starts: its images, its memory, its hours. `zfnet train CONFIG --dry-run`.

Nothing is decoded but a few files, nothing trained but a few steps on noise, and nothing is written.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from zfnet.checkpoint import initialize
from zfnet.data.cache import Images, cache_dir
from zfnet.data.folders import class_names, scan
from zfnet.data.images import ImageError, center, read_image
from zfnet.training.augment import augment
from zfnet.training.config import Config, Stage
from zfnet.training.distill import Replay, load_labels
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.feed import fits, room
from zfnet.training.loop import step
from zfnet.training.rules import freeze
from zfnet.training.setup import (
    TrainingError,
    check_classes,
    check_distributed,
    new_model,
    new_optimizer,
    resolve_precision,
    runner,
    stage_order,
)

STEPS = 3  # timed, after one to warm up
FILES = 16  # decoded for the time that decoding takes
GIB = 2**30


def plan_run(
    config: Config,
    device: torch.device,
    distributed: DistributedContext = SINGLE_PROCESS,
    init: str | None = None,
) -> list[str]:
    """Check a run and measure what it will take: lines to print. Only for trees of images.

    The tree is listed, its classes compared, its images counted. Memory is counted from shapes: decoded images on disk and on
    the device, the resume state. Time is measured: `STEPS` steps of each stage's size on noise, in this process's share of a
    batch, and `FILES` files decoded. A disk too small for the decoded images is a line. Raises DataError or TrainingError for
    what would stop the run: a tree or class that is missing, a batch larger than the data.
    """
    if config.data.kind != "folders":
        raise TrainingError(f"--dry-run is for trees of images; {config.data.kind} needs no check")
    check_distributed(config, device, distributed)
    config = resolve_precision(config, device)
    root = Path(config.data.path)
    replayed = load_labels(config.distill.labels).names if config.distill.labels else None
    listed = {"train": scan(root / "train", names=replayed), "val": scan(root / "val")}
    found = {split: _images(config, *listed[split]) for split in listed}
    check_classes(found["train"].wnids, found["val"].wnids)
    replay = Replay(config.distill.labels, found["train"]) if config.distill.labels else None
    per_stage = [
        len(stage_order(found["train"], stage, config, replay, torch.Generator()))
        for stage in config.stages
    ]
    per_epoch = min(per_stage)
    if per_epoch < config.optim.batch:
        raise TrainingError(
            f"a batch of {config.optim.batch} is more than the {per_epoch} images of an epoch"
        )
    lines = [f"{root}: {len(found['train'].classes)} classes, the same in train/ and val/"]
    for split, images in found.items():
        counts = np.bincount(images.labels)
        lines.append(f"  {split}: {len(images):,} images, {counts.min()} to {counts.max()} a class")
    each = (
        " as they are"
        if not config.data.per_class
        else f", at most {config.data.per_class} a class"
    )
    batch = config.optim.batch
    lines.append(
        f"  an epoch: {per_epoch:,} of them{each}, in {per_epoch // batch:,} steps of {batch}"
    )

    total = sum(len(images) for images in found.values())
    disk = sum(total * side**2 * 3 for side in {stage.side for stage in config.stages})
    free = shutil.disk_usage(cache_dir()).free
    lines.append(
        f"disk: {disk / GIB:.1f} GiB of decoded images, where none is decoded yet; {free / GIB:.1f} GiB are free"
    )
    if disk > free:
        lines.append("  that is too little, unless they are decoded already")
    files, side = _some(listed), config.stages[-1].side
    with ThreadPoolExecutor() as pool:  # as zfnet.data.folders does it
        decode = _seconds(
            lambda: list(
                pool.map(lambda file: _decode(file, side, config.data.skip_unreadable), files)
            )
        )
        decode /= len(files)
    lines.append(
        f"  decoding: {decode * 1000:.1f} ms an image, {total * decode / 3600:.2f} h, once a side"
    )

    model = new_model(config, found["train"].subset([0]))
    if init is not None:
        initialize(model, init)
    model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    weights = sum(p.numel() for p in model.parameters())
    copies = 3 if config.optim.ema else 2
    kept = f"the resume state is {copies * weights * 4 / GIB:.2f} GiB"
    if config.snapshots:
        kept += f", {len(config.snapshots)} snapshots are {len(config.snapshots) * weights * 4 / GIB:.2f} GiB"
    lines.append(f"network: {weights / 1e6:.1f} M parameters; {kept}")
    model.train()
    optimizer = new_optimizer(model, config.optim)
    hours = total * decode / 3600 * len({stage.side for stage in config.stages})
    for stage, images in zip(config.stages, per_stage, strict=True):
        freeze(model, stage.frozen)
        try:
            speed = _speed(
                config,
                stage,
                model,
                runner(model, config, distributed),
                optimizer,
                device,
                distributed,
            )
        except torch.OutOfMemoryError:
            share = batch // distributed.size
            raise TrainingError(
                f"steps of {share} images at {stage.size} pixels do not fit into the GPU's memory"
            ) from None
        seconds = stage.epochs * images / speed
        hours += seconds / 3600
        lines.append(
            f"{stage.epochs} epochs at {stage.size} pixels: {speed:,.0f} images/s in {distributed.size} processes "
            f"on {device.type} in {config.precision}, {seconds / 3600:.2f} h; {_where(stage, len(found['train']), device)}"
        )
    lines.append(f"about {hours:.1f} h with decoding, without evaluation")
    return lines


def _images(config: Config, folders: list[str], files: list[Path], labels: np.ndarray) -> Images:
    """The tree's images as far as a plan needs them: labels and names, over one square of noise."""
    side = config.stages[0].side
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    rows = np.zeros(len(labels), dtype=np.int64)
    return Images(
        noise,
        labels,
        class_names(folders),
        folders,
        [f"{f.parent.name}/{f.name}" for f in files],
        "",
        min(config.model.size, side),
        rows,
    )


def _decode(file: Path, side: int, skip_unreadable: bool) -> None:
    try:
        center(read_image(file), side)
    except ImageError:
        if not skip_unreadable:
            raise


def _some(listed: dict) -> list[Path]:
    files = listed["train"][1]
    return [files[i] for i in np.linspace(0, len(files) - 1, min(FILES, len(files))).astype(int)]


def _speed(
    config: Config,
    stage: Stage,
    model,
    run,
    optimizer,
    device: torch.device,
    distributed: DistributedContext,
) -> float:
    """Images a second of the whole distributed, of steps as the run will make them, augmentation included."""
    n = config.optim.batch // distributed.size
    generator = torch.Generator().manual_seed(config.seed)
    raw = torch.randint(
        0, 256, (n, stage.side, stage.side, 3), generator=generator, dtype=torch.uint8
    ).to(device)
    labels = torch.randint(0, model.options["classes"], (n,), generator=generator).to(device)

    def one() -> None:
        step(
            model,
            run,
            optimizer,
            augment(raw, stage.size, config.augment, generator),
            labels,
            config,
        )
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    one()
    return config.optim.batch / statistics.median(_seconds(one) for _ in range(STEPS))


def _where(stage: Stage, n: int, device: torch.device) -> str:
    """Where the decoded images will be while this stage runs."""
    size = n * stage.side**2 * 3
    if device.type != "cuda":
        return f"{size / GIB:.1f} GiB of images read from disk"
    kept, peak = fits(size, *room(device)), torch.cuda.max_memory_allocated(device)
    where = "stay on the GPU" if kept else "are streamed, for the GPU has no room for them"
    total = room(device)[1]
    much = (
        f", too much together for its {total / GIB:.1f} GiB: take a smaller batch"
        if kept and peak + size > total
        else ""
    )
    return f"steps take {peak / GIB:.1f} GiB; {size / GIB:.1f} GiB of images {where}{much}"


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
