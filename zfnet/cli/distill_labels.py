"""`zfnet distill-labels`: store a teacher's predictions for crops of training images."""

from __future__ import annotations

import argparse

import numpy as np

from zfnet.cli.common import UserError, progress_bar
from zfnet.data.folders import load_folder
from zfnet.data.io import expand_path
from zfnet.data.tree import relative_names, scan
from zfnet.training import soft_labels
from zfnet.training.teacher import MissingTeacherError, efficientnet_lite

NAME = "distill-labels"
HELP = "store a teacher's probabilities for crops of training images"
DESCRIPTION = (
    "Store the largest probabilities of a teacher, EfficientNet-Lite, for fixed crops of training "
    "images. `zfnet train` uses them. Needs the extra `distill`. A killed run continues."
)
SIDE = 256  # pixels; crops are cut from squares of this side


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--data",
        required=True,
        type=expand_path,
        metavar="PATH",
        help="a folder with train/<class>/",
    )
    sub.add_argument(
        "--out",
        required=True,
        type=expand_path,
        metavar="FILE",
        help="where to write the labels (.safetensors)",
    )
    sub.add_argument(
        "--variant",
        type=int,
        default=0,
        choices=(0, 1, 2),
        help="which EfficientNet-Lite, from 0 to 2 (default: 0)",
    )
    sub.add_argument(
        "--per-class",
        type=int,
        default=200,
        metavar="N",
        help="most images per class; 0 takes all (default: 200)",
    )
    sub.add_argument(
        "--crops", type=int, default=4, metavar="N", help="crops per image (default: 4)"
    )
    sub.add_argument(
        "--minimum",
        type=int,
        default=128,
        metavar="PIXELS",
        help="least shorter side, in pixels, of images that the teacher predicts (default: 128)",
    )
    sub.add_argument(
        "--exclude",
        type=expand_path,
        metavar="FILE",
        help="leave out the files named in it, one <class>/<file> per line (default: none)",
    )
    sub.add_argument(
        "--seed", type=int, default=0, help="seed of images and crops, from 0 (default: 0)"
    )


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
    resolution = soft_labels.resolutions([files[i] for i in kept])
    chosen = soft_labels.choose_images(
        labels[kept], resolution, options.per_class, minimum=options.minimum, seed=options.seed
    )
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
