"""`zfnet bench`: score attribution methods on a network and images."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from zfnet import plot
from zfnet.benchmarking.runner import benchmark
from zfnet.cli.bench_page import bench_page
from zfnet.cli.common import UserError, load_model, progress_bar, usage_errors
from zfnet.data.io import write_text
from zfnet.plot import write_figure


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
            boxes=options.boxes,
            resume=options.out / "progress.jsonl",
            progress=progress_bar,
        )
    table.to_csv(options.out / "results.csv")
    with plot.style():
        write_figure(table.plot(), options.out / "results.png")
    write_text(options.out / "index.html", bench_page(table, Path(options.model).stem))
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
