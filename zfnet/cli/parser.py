"""The parser of all commands. Imports no torch, so that `--help` is fast."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import zfnet
from zfnet.cli.image_arguments import (
    add_describe,
    add_explain,
    add_explore,
    add_occlude,
    add_project,
    add_top,
    add_video,
)
from zfnet.cli.run_arguments import add_bench, add_distill_labels, add_evaluate, add_train


class Command(NamedTuple):
    """A command of `zfnet`.

    Attributes:
        name: Its name on the command line.
        module: The module of `zfnet.cli` with its function `run(options)`.
        add_arguments: Adds its arguments to a parser.
        help: One line in the list of commands.
        description: The first paragraph of its own help.
    """

    name: str
    module: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    help: str
    description: str


COMMANDS = (
    Command(
        "describe",
        "describe",
        add_describe,
        "print a network as a table of layers",
        "Print a network as the table of Fig. 3: output sizes in pixels and channels, "
        "parameters, and multiply-adds for one image. Weights are loaded with --weights only,"
        " and never downloaded.",
    ),
    Command(
        "train",
        "train",
        add_train,
        "train a network from a configuration file",
        "Train a network from a configuration file. The run's folder receives "
        "model.safetensors, log.jsonl and state.safetensors, from which --resume continues.",
    ),
    Command(
        "distill-labels",
        "distill_labels",
        add_distill_labels,
        "store a teacher's probabilities for crops of training images",
        "Store the largest probabilities of a teacher, EfficientNet-Lite, for fixed crops of "
        "training images. `zfnet train` uses them. Needs the extra `distill`. A killed run "
        "continues.",
    ),
    Command(
        "eval",
        "evaluate",
        add_evaluate,
        "measure top-1 and top-5 error over a tree of images",
        "Measure top-1 and top-5 error in percent over a tree of images. Folders are classes,"
        " named by WordNet id.",
    ),
    Command(
        "top",
        "top",
        add_top,
        "find and show the strongest activations of a channel over many images",
        "Find the images with the strongest activation of a channel, and show image patches "
        "and the projections of the activations side by side (Fig. 2).",
    ),
    Command(
        "project",
        "project",
        add_project,
        "project an activation of an image to pixels",
        "Project one activation of an image to pixels with the deconvnet, and show what caused it.",
    ),
    Command(
        "occlude",
        "occlude",
        add_occlude,
        "occlude each part of an image and map the response",
        "Cover each part of an image with a gray square, and map the strongest feature map, "
        "the class probability and the logit over the square's positions (Fig. 7).",
    ),
    Command(
        "explain",
        "explain",
        add_explain,
        "attribute a class score to image regions",
        "Attribute the score of a class to the regions of an image, and draw the attribution map.",
    ),
    Command(
        "bench",
        "bench",
        add_bench,
        "score attribution methods on a network and images",
        "Score attribution methods on a network and images, and controls with a known truth. "
        "Writes results.csv, a plot and a page. An interrupted run continues with the same "
        "command.",
    ),
    Command(
        "video",
        "video",
        add_video,
        "draw a map next to every frame of an animation, as a GIF",
        "Draw an attribution map, or the projection of a channel, next to every frame of an "
        "animation, and write a GIF. All frames have the same scale.",
    ),
    Command(
        "explore",
        "explore",
        add_explore,
        "open a page that answers while you touch the network",
        "Serve a page on this machine that shows what the network makes of an image: feature "
        "maps, projections, occlusion and attribution maps. Ctrl-C stops it.",
    ),
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def new_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = Parser(
        prog="zfnet", description="Train ZFNet, and visualize it as Zeiler & Fergus did."
    )
    parser.add_argument("--version", action="version", version=f"zfnet {zfnet.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.description)
        command.add_arguments(sub)
        sub.set_defaults(module=command.module)
    return parser
