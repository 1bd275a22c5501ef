"""`zfnet train`: train a network from a configuration file."""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from zfnet.cli.common import UserError, progress_bar, refuse, report_skipped
from zfnet.data.dataset import Images
from zfnet.data.digits import load_digits
from zfnet.data.folders import load_folder
from zfnet.data.scenes import load_scenes
from zfnet.data.tree import scan
from zfnet.training.config import Config, load_config
from zfnet.training.distributed import join
from zfnet.training.loop import train
from zfnet.training.plan import plan_run
from zfnet.training.progress import TrainingProgress
from zfnet.training.record import snapshot_name
from zfnet.training.setup import check_classes
from zfnet.training.soft_labels import load_labels

VALIDATION_SCENES = 500


def run(options: argparse.Namespace) -> None:
    config = _configure(options)
    out = options.out or Path("runs") / config.name
    if options.dry_run:
        with join(options.device) as (distributed, device):
            lines = plan_run(config, device, distributed, options.init)
        print(
            "\n".join([*lines, f"the run would be written to {out}"] if distributed.is_main else [])
        )
        return
    if config.data.kind == "folders":  # fail before hours of decoding
        check_classes(*(scan(Path(config.data.path) / split)[0] for split in ("train", "val")))
    bar = ProgressBar()
    with join(options.device) as (distributed, device):
        try:
            train(
                config,
                _loader(config),
                out,
                resume=options.resume,
                init=options.init,
                device=device,
                distributed=distributed,
                report=bar.update if distributed.is_main else lambda progress: None,
            )
        finally:
            bar.close()
        if distributed.is_main:
            snapshots = [f"snapshots/{snapshot_name(epoch)}" for epoch in config.snapshots]
            for name in ("model.safetensors", "log.jsonl", "state.safetensors", *snapshots):
                if (out / name).exists():
                    print(f"wrote {out / name}")


def _configure(options: argparse.Namespace) -> Config:
    """Read the configuration, and reject options that it does not use."""
    config = load_config(options.config, options.set)
    if options.resume:
        refuse(options, "init", "--resume, which continues from the run's own weights")
        refuse(options, "dry-run", "--resume")
    if config.data.kind == "scenes":
        refuse(options, "data", "data.kind scenes, whose images are drawn")
    if config.data.kind != "folders":
        refuse(options, "skip-unreadable", f"data.kind {config.data.kind}")
    path = options.data or config.data.path
    if config.data.kind == "folders" and not path:
        raise UserError("no images: add --data PATH, a folder with train/<class>/ and val/<class>/")
    skip = options.skip_unreadable or config.data.skip_unreadable
    return replace(config, data=replace(config.data, path=path, skip_unreadable=skip))


def _loader(config: Config):
    """Return a function from a split ("train" or "val") and a side in pixels to its images."""

    @functools.cache
    def load(split: str, side: int) -> Images:
        if config.data.kind == "digits":
            part = "train" if split == "train" else "test"
            return load_digits(
                part,
                config.data.path or None,
                side=side,
                size=config.model.size,
                download=config.data.download,
            )
        size = min(config.model.size, side)  # a stage may be below the network's own size
        if config.data.kind == "scenes":
            count, seed = (config.data.scenes, 0) if split == "train" else (VALIDATION_SCENES, 1)
            return load_scenes(count, seed=seed, size=size, side=side)
        replayed = config.distill.labels and split == "train"
        images = load_folder(
            Path(config.data.path) / split,
            side=side,
            size=size,
            skip_unreadable=config.data.skip_unreadable,
            names=load_labels(config.distill.labels).names if replayed else None,
            progress=progress_bar,
        )
        report_skipped(images)
        return images

    return load


class ProgressBar:
    """A progress bar over all steps of the run. It appears with the first step."""

    def __init__(self):
        self.bar: tqdm | None = None

    def update(self, progress: TrainingProgress) -> None:
        if self.bar is None:
            self.bar = tqdm(
                total=progress.steps, initial=progress.step - 1, unit="step", dynamic_ncols=True
            )
        self.bar.set_description(f"epoch {progress.epoch}/{progress.epochs}", refresh=False)
        speed, accuracy = (
            f"{progress.images_per_second:.0f} images/s",
            f"accuracy {100 * progress.accuracy:.1f} %",
        )
        self.bar.set_postfix_str(f"{speed}, loss {progress.loss:.3f}, {accuracy}", refresh=False)
        self.bar.update(progress.step - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
