"""Run a command whose arguments were parsed, and report wrong input on one line."""

from __future__ import annotations

import argparse
import importlib
import io
import sys

import torch

from zfnet import plot
from zfnet.checkpoint import CheckpointError
from zfnet.cli.common import UserError, check_device
from zfnet.cli.memory import keep_freed_memory
from zfnet.data.cache import DataError
from zfnet.data.formats import ImageError
from zfnet.graph import UnknownLayer, UnsupportedNetwork
from zfnet.training.config import ConfigError
from zfnet.training.distributed import LostPeerError, ParallelError, exit_after_lost_peer
from zfnet.training.setup import TrainingError

USER_ERRORS = (
    CheckpointError, ConfigError, DataError, ImageError, ParallelError, TrainingError, UnknownLayer,
    UnsupportedNetwork, UserError, OSError,
)  # fmt: skip


def execute(options: argparse.Namespace, *, is_program: bool) -> int:
    """Run a command.

    Args:
        options: The parsed arguments.
        is_program: Whether this process runs the command alone, so that it may change torch's
            settings. A program that calls `main` has its own.

    Returns:
        The exit status, as of `main`.
    """
    if is_program:
        keep_freed_memory()
        for stream in (sys.stdout, sys.stderr):  # file names may not be valid UTF-8
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        torch.backends.cudnn.allow_tf32 = False  # rounding changes pooling switches
    try:
        if device := getattr(options, "device", None):
            check_device(device)
        with plot.style():
            importlib.import_module(f"zfnet.cli.{options.module}").run(options)
    except USER_ERRORS as error:
        print(f"zfnet {options.command}: {error}", file=sys.stderr)
        if isinstance(error, LostPeerError) and is_program:
            exit_after_lost_peer(2)
        return 2
    except KeyboardInterrupt:
        print(f"zfnet {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0
