"""`zfnet describe`: print a network as the table of Fig. 3."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from zfnet.cli.common import DEFAULT_MODEL, MODEL_HELP, refuse
from zfnet.model import ARCHITECTURES
from zfnet.networks import load_structure
from zfnet.summary import Row, describe

NAME = "describe"
HELP = "print a network as a table of layers"
DESCRIPTION = (
    "Print a network as the table of Fig. 3: output sizes in pixels and channels, parameters, and "
    "multiply-adds for one image. No weights are loaded or downloaded."
)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})")
    sub.add_argument(
        "--arch",
        choices=sorted(ARCHITECTURES),
        help="an architecture of this package instead (default: none)",
    )


def run(options: argparse.Namespace) -> None:
    if options.arch:
        refuse(options, "model", "--arch")
        with torch.device("meta"):
            model = ARCHITECTURES[options.arch]()
    else:
        model = load_structure(options.model or DEFAULT_MODEL)
    rows = [row for row in describe(model) if not _is_flatten(model, row)]
    print_table(options.arch or options.model or DEFAULT_MODEL, rows)


def _is_flatten(model: nn.Module, row: Row) -> bool:
    return row.operation == nn.Flatten.__name__ and isinstance(
        model.get_submodule(row.name), nn.Flatten
    )


def print_table(name: str, rows: list[Row]) -> None:
    """Print one line per row, then the totals."""
    shapes = [" x ".join(map(str, (*row.shape[1:], *row.shape[:1]))) for row in rows]
    first = 2 + max(len(row.name) for row in rows)
    second = max(36, 2 + max(len(row.operation) for row in rows))
    third = max(15, 2 + max(map(len, shapes)))
    print(
        f"{'layer':<{first}}{'operation':<{second}}{'output':>{third}}{'parameters':>15}{'multiply-adds':>18}"
    )
    for row, shape in zip(rows, shapes, strict=True):
        parameters, macs = (f"{count:,}" if count else "" for count in (row.parameters, row.macs))
        print(
            f"{row.name:<{first}}{row.operation:<{second}}{shape:>{third}}{parameters:>15}{macs:>18}".rstrip()
        )
    parameters, macs = sum(row.parameters for row in rows), sum(row.macs for row in rows)
    print(f"{'total':<{first + second + third}}{parameters:>15,}{macs:>18,}")
    print(
        f"{name}: {parameters / 1e6:.1f} M parameters, {macs / 1e6:,.0f} M multiply-adds per forward pass"
    )
