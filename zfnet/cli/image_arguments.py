"""Arguments of the commands that show a network. Imports no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from zfnet.cli.arguments import (
    DEFAULT_LAYER,
    DEFAULT_MODEL,
    METHODS,
    MODEL_HELP,
    WEIGHTS_HELP,
    add_model,
    add_picture,
    add_skip_unreadable,
    add_target,
)
from zfnet.data.io import expand_path

ARCHITECTURES = ("alexnet", "mnist", "zfnet")
PROJECTION = "projection"  # of `zfnet video`, beside the attribution methods
SHORTEST_TOKEN = 16  # characters


def add_describe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})")
    weights = WEIGHTS_HELP.format(default="none are loaded")
    sub.add_argument("--weights", help=f"{weights}; an error if they do not fit")
    sub.add_argument(
        "--arch",
        choices=ARCHITECTURES,
        help="an architecture of this package, instead of --model (default: none)",
    )


def add_top(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--data",
        type=expand_path,
        metavar="PATH",
        help="a folder with <class>/*.JPEG, or with val/<class>/*.JPEG "
        "(default: an atlas of this network, or else crops of the sample photographs)",
    )
    sub.add_argument("--layer", help=f"the layer to search (default: {DEFAULT_LAYER})")
    sub.add_argument(
        "--channel", type=int, metavar="N", help="the channel to show, from 0 (default: 0)"
    )
    sub.add_argument(
        "-k",
        type=int,
        default=9,
        metavar="N",
        help="activations per channel (default: %(default)s)",
    )
    add_skip_unreadable(sub)
    sub.add_argument(
        "-o",
        "--out",
        type=expand_path,
        metavar="FILE",
        default=Path("top.png"),
        help="the picture to write (.png, .jpg, .pdf, .svg), or the table of all channels "
        "(.safetensors) (default: %(default)s)",
    )
    add_model(sub)


def add_project(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("image", help="the path of an image")
    sub.add_argument("--layer", help=f"the layer of the activation (default: {DEFAULT_LAYER})")
    sub.add_argument(
        "--channel",
        type=int,
        metavar="N",
        help="the channel, from 0 (default: the one with the strongest activation)",
    )
    sub.add_argument(
        "--position",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="the position in the feature map, from 0 (default: the strongest)",
    )
    add_picture(sub, "project.png")
    add_model(sub)


def add_occlude(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("image", help="the path of an image")
    add_target(sub)
    sub.add_argument(
        "--size",
        type=int,
        default=32,
        metavar="N",
        help="side of the square in pixels (default: %(default)s)",
    )
    sub.add_argument(
        "--stride",
        type=int,
        default=8,
        metavar="N",
        help="distance between positions in pixels, at most --size (default: %(default)s)",
    )
    add_picture(sub, "occlude.png")
    add_model(sub)


def add_explain(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("image", help="the path of an image")
    sub.add_argument(
        "--method",
        default="grad_cam",
        choices=METHODS,
        help="the attribution method (default: %(default)s)",
    )
    add_target(sub)
    add_picture(sub, "explain.png")
    add_model(sub)


def add_video(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "frames",
        help="an animated GIF, or a folder of images, sorted by the numbers in their names",
    )
    sub.add_argument(
        "--method",
        default="grad_cam",
        choices=(*METHODS, PROJECTION),
        help=f"an attribution method, or {PROJECTION} of one channel (default: %(default)s)",
    )
    add_target(sub, "the most probable class over all frames")
    sub.add_argument(
        "--layer", help=f"only with {PROJECTION}: the layer (default: {DEFAULT_LAYER})"
    )
    sub.add_argument(
        "--channel",
        type=int,
        metavar="N",
        help=f"only with {PROJECTION}: the channel, from 0 (default: the strongest on average)",
    )
    sub.add_argument(
        "-o",
        "--out",
        type=expand_path,
        metavar="FILE",
        default=Path("video.gif"),
        help="the GIF to write (default: %(default)s)",
    )
    add_model(sub)


def add_explore(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "image",
        nargs="?",
        type=expand_path,
        help="the path of an image (default: a sample photograph)",
    )
    add_model(sub)
    sub.add_argument(
        "--port",
        type=int,
        help="the port of the page, from 0, which takes a free one, to 65535 (default: 8765, or a "
        "free one where it is taken)",
    )
    sub.add_argument(
        "--token",
        help="the secret in the page's address, so that saved addresses stay valid: at least "
        f"{SHORTEST_TOKEN} letters, digits, - or _ (default: a new random one)",
    )
    sub.add_argument(
        "--atlas",
        type=expand_path,
        metavar="DIR",
        help="an atlas of this network, for the neighbors of its features (default: one below "
        "figures/ of the current folder or of the clone, if any)",
    )
    sub.add_argument(
        "--no-browser", action="store_true", help="do not open a browser (default: open one)"
    )
