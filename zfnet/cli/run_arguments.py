"""Arguments of the commands that train and measure. Imports no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from zfnet.cli.arguments import DEVICE_HELP, METHODS, add_model, add_skip_unreadable
from zfnet.data.io import expand_path

DRAWN = ("scenes", "shortcut", "shortcut-object")  # data of `zfnet.benchmark` that needs no files
TARGETS = ("auto", "label", "predicted")
METRICS = (
    "pointing", "energy", "insertion", "deletion", "road", "sensitivity_n", "max_sensitivity",
    "cascading", "independent", "completeness", "speed", "memory", "sanity",
)  # fmt: skip
DEFAULT_METRICS = ("pointing", "insertion", "deletion", "cascading", "speed")


def add_train(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "config", type=expand_path, help="the YAML file, such as configs/imagenet.yaml"
    )
    sub.add_argument(
        "--data",
        metavar="PATH",
        help="a folder with train/<class>/ and val/<class>/, or with MNIST's files "
        "(default: data.path of the configuration)",
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the configuration, such as optim.lr=0.02; may be repeated "
        "(default: no change)",
    )
    sub.add_argument(
        "--out",
        type=expand_path,
        metavar="FOLDER",
        help="where to write the run (default: runs/NAME)",
    )
    sub.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out after its last epoch (default: a new run)",
    )
    sub.add_argument(
        "--init",
        metavar="MODEL",
        help="start from the weights of a checkpoint or bundled network (default: random)",
    )
    sub.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave unreadable images out (default: stop and list them)",
    )
    sub.add_argument("--device", default="auto", help=DEVICE_HELP)
    sub.add_argument(
        "--dry-run",
        action="store_true",
        help="check the images and estimate memory and time, without training (default: train)",
    )


def add_distill_labels(sub: argparse.ArgumentParser) -> None:
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
    sub.add_argument(
        "--dry-run",
        action="store_true",
        help="check the images, and estimate time and disk space, without labels (default: write "
        "the labels)",
    )


def add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--data",
        required=True,
        type=expand_path,
        metavar="PATH",
        help="a folder with <class>/*.JPEG, or with val/<class>/*.JPEG",
    )
    sub.add_argument(
        "--views",
        type=int,
        default=1,
        choices=(1, 10),
        help="crops per image: the center, or the paper's ten (default: %(default)s)",
    )
    sub.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="the precision of convolutions and matrix products (default: %(default)s)",
    )
    add_skip_unreadable(sub)
    add_model(sub)


def add_bench(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--methods",
        default=",".join(METHODS),
        help="methods, separated by commas: names, or module:function for one of your own "
        "(default: %(default)s)",
    )
    sub.add_argument(
        "--data",
        default="scenes",
        metavar="DATA",
        help=f"{', '.join(DRAWN)}, or the path of a folder with <class>/*.JPEG or val/<class>/ "
        "in it (default: %(default)s)",
    )
    sub.add_argument(
        "--boxes",
        type=expand_path,
        metavar="FILE",
        help="with a folder: a CSV file with the columns file, top, left, bottom and right, in "
        "pixels of each file; only its images are used, with the boxes as masks (default: none)",
    )
    sub.add_argument(
        "--metrics",
        default=",".join(DEFAULT_METRICS),
        help=f"metrics, separated by commas: {', '.join(METRICS)} (default: %(default)s)",
    )
    _add_sample_options(sub)
    sub.add_argument(
        "-o",
        "--out",
        type=expand_path,
        metavar="DIR",
        default=Path("bench"),
        help="the folder to write (default: %(default)s)",
    )
    add_model(sub)


def _add_sample_options(sub: argparse.ArgumentParser) -> None:
    """Add the options for the images to explain, the target class and the batch size."""
    sub.add_argument(
        "-n",
        "--limit",
        type=int,
        default=100,
        help="the number of images, from 1 (default: %(default)s)",
    )
    sub.add_argument(
        "--target",
        choices=TARGETS,
        default="auto",
        help="the class to explain: each image's label or the predicted class; auto takes the "
        "label, but the predicted class for drawn data of other classes (default: %(default)s)",
    )
    sub.add_argument(
        "--correct-only",
        action="store_true",
        help="leave out images that the network gets wrong (default: use all)",
    )
    sub.add_argument(
        "--no-controls",
        action="store_true",
        help="leave out the random map, the center, the edge detector and the true mask "
        "(default: include them)",
    )
    sub.add_argument(
        "--batch",
        type=int,
        default=25,
        help="images per pass, which bounds the memory, from 1 (default: %(default)s)",
    )
    sub.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of all random numbers, from 0 (default: %(default)s)",
    )
