"""`zfnet distill-labels`: store a teacher's predictions for crops of training images."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from zfnet.cli.common import UserError, progress_bar
from zfnet.data.folders import load_folder
from zfnet.data.tree import relative_names, scan
from zfnet.training import soft_labels
from zfnet.training.teacher import MissingTeacherError, Teacher, efficientnet_lite

SIDE = 256  # pixels; crops are cut from squares of this side
GIB = 2**30


def run(options: argparse.Namespace) -> None:
    if options.out.suffix != ".safetensors":
        raise UserError(f"--out {options.out} must end in .safetensors")
    if min(options.per_class, options.minimum, options.seed) < 0 or options.crops < 1:
        raise UserError(
            "--per-class, --minimum and --seed must be at least 0, and --crops at least 1"
        )
    if options.out.exists():
        raise UserError(f"--out {options.out} exists; remove it, or choose another file")
    if options.exclude and not options.exclude.is_file():
        raise UserError(f"--exclude {options.exclude}: no such file")
    root = options.data / "train" if (options.data / "train").is_dir() else options.data
    excluded = set(options.exclude.read_text().split()) if options.exclude else set()
    _, files, labels = scan(root)
    try:
        teacher = efficientnet_lite(options.variant)
    except MissingTeacherError as error:
        raise UserError(str(error)) from None
    names = np.array(relative_names(root, files))
    kept = np.flatnonzero(~np.isin(names, list(excluded)))
    if excluded:
        print(f"{options.exclude}: left out {len(names) - len(kept):,} of {len(names):,} images")
    resolution = soft_labels.resolutions([files[i] for i in kept])
    chosen = soft_labels.choose_images(
        labels[kept], resolution, options.per_class, minimum=options.minimum, seed=options.seed
    )
    if options.dry_run:
        print("\n".join(plan_labels(options, len(names), resolution[chosen], teacher)))
        return
    images = load_folder(root, side=SIDE, names=names[kept][chosen].tolist(), progress=progress_bar)
    written = soft_labels.write_labels(
        options.out,
        images,
        resolution[chosen],
        teacher,
        crops=options.crops,
        seed=options.seed,
        minimum=options.minimum,
        progress=progress_bar,
    )
    predicted = int((written.probability[:, 0, 0] > 0).sum())
    print(
        f"wrote {options.out}: {len(images):,} images, {options.crops} crops of {predicted:,} of "
        f"them by {teacher.name}"
    )


def plan_labels(
    options: argparse.Namespace, available: int, resolution: np.ndarray, teacher: Teacher
) -> list[str]:
    """Describe what a run would do, with the time of one batch of noise.

    Args:
        options: The parsed arguments.
        available: Number of images in the tree.
        resolution: (N,) shorter sides of the chosen images in pixels.
        teacher: The teacher, which predicts one batch.

    Returns:
        Lines to print.
    """
    predicted = int((resolution >= options.minimum).sum())
    noise = torch.rand(soft_labels.BATCH, 3, teacher.size, teacher.size) * 255
    start = time.perf_counter()
    teacher.probabilities(noise)
    seconds = (time.perf_counter() - start) / len(noise) * predicted * options.crops
    size = len(resolution) * options.crops * soft_labels.BYTES
    return [
        f"{available:,} images in the tree; {len(resolution):,} would be labeled",
        f"  {predicted:,} of them, of at least {options.minimum} pixels, by {teacher.name}: "
        f"{options.crops} crops each",
        f"  about {seconds / 3600:.2f} h without decoding, from one batch of "
        f"{soft_labels.BATCH} crops",
        f"  decoded images: {len(resolution) * SIDE * SIDE * 3 / GIB:.2f} GiB in the cache",
        f"the labels would be written to {options.out}, about {size / 2**20:.1f} MiB",
    ]
