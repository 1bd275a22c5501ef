"""`zfnet bench`: score attribution methods on a network and images."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from zfnet import plot
from zfnet.attribution.registry import METHODS
from zfnet.benchmarking.data import DRAWN, TARGETS
from zfnet.benchmarking.metrics import COSTS, DEFAULT, GROUPS, METRICS
from zfnet.benchmarking.runner import benchmark
from zfnet.cli.bench_page import bench_page
from zfnet.cli.common import UserError, add_model, load_model, progress_bar, usage_errors
from zfnet.data.io import expand_path, write_text
from zfnet.plot import write_figure

NAME = "bench"
HELP = "score attribution methods on a network and images"
DESCRIPTION = (
    "Score attribution methods on a network and images, and controls with a known truth. Writes "
    "results.csv, a plot and a page. An interrupted run continues with the same command."
)


def add_arguments(sub: argparse.ArgumentParser) -> None:
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
    available = ", ".join([*METRICS, *COSTS, *GROUPS])
    sub.add_argument(
        "--metrics",
        default=",".join((*DEFAULT, "speed")),
        help=f"metrics, separated by commas: {available} (default: %(default)s)",
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
    """Add the options of which images are explained, for which class, and by how many at once."""
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
        default="label",
        help="the class to explain: each image's label, or the predicted class "
        "(default: %(default)s)",
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


def run(options: argparse.Namespace) -> None:
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"-o {options.out} is a file; name a folder")
    methods = dict(map(find_method, split_names(options.methods)))
    model = load_model(options)
    with usage_errors():
        table = benchmark(
            model,
            methods,
            options.data,
            split_names(options.metrics),
            limit=options.limit,
            target=options.target,
            correct_only=options.correct_only,
            controls=not options.no_controls,
            batch=options.batch,
            seed=options.seed,
            resume=options.out / "progress.jsonl",
            progress=progress_bar,
        )
    table.to_csv(options.out / "results.csv")
    with plot.style():
        write_figure(table.plot(), options.out / "results.png")
    write_text(options.out / "index.html", bench_page(table, options.model))
    print(table)
    print(f"wrote {options.out / 'index.html'}, results.csv and results.png")


def split_names(text: str) -> list[str]:
    """Split a list separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def find_method(text: str) -> tuple[str, Any]:
    """Return a method's name, and the method: a name of METHODS, or an imported function.

    Raises:
        UserError: If the module cannot be imported, or it has no such function.
    """
    if ":" not in text:
        return text, text
    module, name = text.split(":", 1)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(f"--methods {text}: cannot import {module}: {error}") from None
    except AttributeError:
        raise UserError(f"--methods {text}: {module} has no function {name}") from None
    if not callable(function):
        raise UserError(f"--methods {text}: not a function of (model, x, target)")
    return name, function
