"""What a training run needs: images, memory and time. `zfnet train CONFIG --dry-run`.

It decodes a few files and trains a few steps on noise. It writes nothing.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zfnet.checkpoint import initialize
from zfnet.data.cache import cache_dir
from zfnet.data.dataset import Images
from zfnet.data.formats import ImageError, read_image
from zfnet.data.images import center
from zfnet.data.io import expand_path
from zfnet.data.labels import class_names
from zfnet.data.tree import relative_names, scan
from zfnet.model import Network
from zfnet.training.augment import augment
from zfnet.training.config import Config, Stage, stage_configs
from zfnet.training.constraints import freeze
from zfnet.training.distill import Replay
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.feed import fits, gpu_memory
from zfnet.training.optim import new_optimizer
from zfnet.training.sampling import count_steps, stage_numbers, stage_order
from zfnet.training.setup import (
    TrainingError,
    check_classes,
    check_distributed,
    new_model,
    resolve_precision,
    runner,
)
from zfnet.training.soft_labels import load_labels
from zfnet.training.step import train_step

STEPS = 3  # timed steps, after one to warm up
FILES = 16  # decoded to estimate the time that decoding takes
GIB = 2**30


@dataclass(frozen=True)
class _Tree:
    """The images of both splits: their files, and their labels and names without pixels."""

    files: list[Path]  # of the training images
    train: Images
    val: Images
    replay: Replay | None

    @property
    def total(self) -> int:
        """The number of images of both splits."""
        return len(self.train) + len(self.val)


def plan_run(
    config: Config,
    device: torch.device,
    distributed: DistributedContext = SINGLE_PROCESS,
    init: str | None = None,
) -> list[str]:
    """Check a run, and estimate its memory and time.

    Memory on disk and device follows from shapes. Time follows from `STEPS` steps per stage, in
    this process's share of a batch, and `FILES` decoded files. A full disk is reported in the plan,
    not raised as an error.

    Args:
        config: A run on a tree of images.
        device: Where it would train.
        distributed: The processes that would share each batch.
        init: The checkpoint that it would start from.

    Returns:
        Lines to print.

    Raises:
        DataError: A folder is missing, or a file cannot be read.
        TrainingError: The run could not start.
    """
    if config.data.kind != "folders":
        raise TrainingError(f"--dry-run is for trees of images; {config.data.kind} needs no check")
    check_distributed(config, device, distributed)
    config = resolve_precision(config, device)
    tree = _scan_tree(config)
    check_classes(tree.train.wnids, tree.val.wnids)
    decode = _decoding_time(config, tree)  # seconds per image
    decoding_hours = tree.total * decode / 3600
    model = new_model(config, tree.train.subset([0]))
    if init is not None:
        initialize(model, init)
    model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    lines = [
        *_describe_images(config, tree),
        *_describe_disk(config, tree),
        f"  decoding: {decode * 1000:.1f} ms per image, {decoding_hours:.2f} h per side",
        _describe_network(config, model),
    ]
    hours = decoding_hours * len({stage.side for stage in config.stages})
    for line, stage_hours in _time_stages(config, tree, model, device, distributed):
        lines.append(line)
        hours += stage_hours
    return [*lines, f"about {hours:.1f} h with decoding, without evaluation"]


def _scan_tree(config: Config) -> _Tree:
    """List the images of both splits."""
    root = expand_path(config.data.path)
    labels = config.distill.labels
    names = load_labels(labels).names if labels else None
    folders, files, classes = scan(root / "train", names=names)
    train = _images(config, root / "train", folders, files, classes)
    val = _images(config, root / "val", *scan(root / "val"))
    check_classes(train.wnids, val.wnids)
    return _Tree(files, train, val, Replay(labels, train) if labels else None)


def _images(
    config: Config, root: Path, folders: list[str], files: list[Path], labels: np.ndarray
) -> Images:
    """Return labels and names of images, with one square of noise for all pixels."""
    side = config.stages[0].side
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    names = relative_names(root, files)
    rows = np.zeros(len(labels), dtype=np.int64)
    size = min(config.model.size, side)
    return Images(noise, labels, class_names(folders), folders, names, "", size, rows)


def _describe_images(config: Config, tree: _Tree) -> list[str]:
    lines = [f"{config.data.path}: {len(tree.train.classes)} classes, the same in train/ and val/"]
    for split, images in (("train", tree.train), ("val", tree.val)):
        counts = np.bincount(images.labels)
        per_class = f"{counts.min()} to {counts.max()} per class"
        lines.append(f"  {split}: {len(images):,} images, {per_class}")
    steps = count_steps(tree.train, config, tree.replay)
    smallest = int(np.argmin(steps))
    number = stage_numbers(config)[smallest]
    images = _epoch_images(config, config.stages[number], tree)
    batch = stage_configs(config)[number].optim.batch
    limit = f", at most {config.data.per_class} per class" if config.data.per_class else ""
    epoch = f"{images:,} images{limit}, in {steps[smallest]:,} steps of {batch}"
    return [*lines, f"  one epoch: {epoch}"]


def _epoch_images(config: Config, stage: Stage, tree: _Tree) -> int:
    return len(stage_order(tree.train, stage, config, tree.replay, torch.Generator()))


def _describe_disk(config: Config, tree: _Tree) -> list[str]:
    size = sum(tree.total * side**2 * 3 for side in {stage.side for stage in config.stages})
    free = shutil.disk_usage(cache_dir()).free
    lines = [
        f"disk: {size / GIB:.1f} GiB for all decoded images; {free / GIB:.1f} GiB are free",
    ]
    if size > free:
        lines.append("  this is too little, unless they are decoded already")
    return lines


def _decoding_time(config: Config, tree: _Tree) -> float:
    """Return the seconds that decoding takes per image."""
    rows = np.linspace(0, len(tree.files) - 1, min(FILES, len(tree.files))).astype(int)
    side = config.stages[-1].side

    def decode(row: int) -> None:
        try:
            center(read_image(tree.files[row]), side)
        except ImageError:
            if not config.data.skip_unreadable:
                raise

    with ThreadPoolExecutor() as pool:  # as zfnet.data.folders does
        return _seconds(lambda: list(pool.map(decode, rows))) / len(rows)


def _describe_network(config: Config, model: Network) -> str:
    weights = sum(p.numel() for p in model.parameters())
    copies = 3 if any(stage.optim.ema for stage in stage_configs(config)) else 2
    text = f"network: {weights / 1e6:.1f} M parameters; "
    text += f"the resume state is {copies * weights * 4 / GIB:.2f} GiB"
    if config.snapshots:
        size = len(config.snapshots) * weights * 4 / GIB
        text += f", {len(config.snapshots)} snapshots are {size:.2f} GiB"
    return text


def _time_stages(
    config: Config,
    tree: _Tree,
    model: Network,
    device: torch.device,
    distributed: DistributedContext,
) -> Iterator[tuple[str, float]]:
    """Yield a line and the hours of each stage."""
    model.train()
    for stage, options in zip(config.stages, stage_configs(config), strict=True):
        freeze(model, stage.frozen_layers)
        try:
            speed = _speed(options, stage, model, device, distributed)
        except torch.OutOfMemoryError:
            share = options.optim.batch // distributed.size
            raise TrainingError(
                f"steps of {share} images at {stage.size} pixels do not fit into the GPU's memory"
            ) from None
        hours = stage.epochs * _epoch_images(config, stage, tree) / speed / 3600
        yield (
            f"{stage.epochs} epochs at {stage.size} pixels: {speed:,.0f} images/s in "
            f"{distributed.size} processes on {device.type} in {config.precision}, {hours:.2f} h; "
            f"{_describe_memory(stage, len(tree.train), device)}",
            hours,
        )


def _speed(
    config: Config,
    stage: Stage,
    model: Network,
    device: torch.device,
    distributed: DistributedContext,
) -> float:
    """Return the images per second of all processes, with augmentation."""
    n, side = config.optim.batch // distributed.size, stage.side
    run, optimizer = runner(model, config, distributed), new_optimizer(model, config.optim)
    generator = torch.Generator().manual_seed(config.seed)
    raw = torch.randint(0, 256, (n, side, side, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, model.options["classes"], (n,), generator=generator).to(device)
    raw = raw.to(device)

    def one_step() -> None:
        x = augment(raw, stage.size, config.augment, generator)
        train_step(model, run, optimizer, x, labels, config)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    one_step()
    return config.optim.batch / statistics.median(_seconds(one_step) for _ in range(STEPS))


def _describe_memory(stage: Stage, n: int, device: torch.device) -> str:
    """Say where the decoded images of a stage are, and whether a GPU has room for them."""
    size = n * stage.side**2 * 3
    if device.type != "cuda":
        return f"{size / GIB:.1f} GiB of images read from disk"
    free, total = gpu_memory(device)
    peak, resident = torch.cuda.max_memory_allocated(device), fits(size, free, total)
    place = "stay on the GPU" if resident else "are streamed, as they do not fit on the GPU"
    text = f"steps take {peak / GIB:.1f} GiB; {size / GIB:.1f} GiB of images {place}"
    if resident and peak + size > total:
        text += f", together more than its {total / GIB:.1f} GiB: use a smaller batch"
    return text


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
