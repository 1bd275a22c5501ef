"""Parse the command line and run a command.

Wrong input prints one line to stderr, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

import zfnet
from zfnet import plot
from zfnet.checkpoint import CheckpointError
from zfnet.cli import (
    bench,
    describe,
    distill_labels,
    evaluate,
    explain,
    explore,
    occlude,
    project,
    top,
    train,
    video,
)
from zfnet.cli.common import UserError, check_device
from zfnet.data.cache import DataError
from zfnet.data.images import ImageError
from zfnet.graph import UnknownLayer, UnsupportedNetwork
from zfnet.memory import keep_freed_memory
from zfnet.training.config import ConfigError
from zfnet.training.distributed import LostPeerError, ParallelError, exit_after_lost_peer
from zfnet.training.setup import TrainingError

COMMANDS = (
    describe,
    train,
    distill_labels,
    evaluate,
    top,
    project,
    occlude,
    explain,
    bench,
    video,
    explore,
)
USER_ERRORS = (
    CheckpointError, ConfigError, DataError, ImageError, ParallelError, TrainingError, UnknownLayer,
    UnsupportedNetwork, UserError, OSError,
)  # fmt: skip


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
        sub = commands.add_parser(command.NAME, help=command.HELP, description=command.DESCRIPTION)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command and its arguments; None for those of this process.

    Returns:
        The exit status: 0, 2 for wrong input, or 130 after an interrupt.
    """
    options = new_parser().parse_args(arguments)
    if arguments is None:  # a program that calls main has its own settings
        keep_freed_memory()
        for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        torch.backends.cudnn.allow_tf32 = False  # rounding changes pooling switches
    try:
        if device := getattr(options, "device", None):
            check_device(device)
        with plot.style():
            options.run(options)
    except USER_ERRORS as error:
        print(f"zfnet {options.command}: {error}", file=sys.stderr)
        if isinstance(error, LostPeerError) and arguments is None:
            exit_after_lost_peer(2)
        return 2
    except KeyboardInterrupt:
        print(f"zfnet {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0
