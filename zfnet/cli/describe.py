"""`zfnet describe`: print a network as the table of Fig. 3."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from zfnet.cli.arguments import DEFAULT_MODEL
from zfnet.cli.common import refuse
from zfnet.model import ARCHITECTURES, Row, describe
from zfnet.networks import load_network, load_structure


def run(options: argparse.Namespace) -> None:
    if options.arch:
        refuse(options, "model", "--arch")
        refuse(options, "weights", "--arch")
        with torch.device("meta"):
            model = ARCHITECTURES[options.arch]()
    elif options.weights:
        model = load_network(options.model or DEFAULT_MODEL, options.weights)
    else:
        model = load_structure(options.model or DEFAULT_MODEL)
    rows = [row for row in describe(model) if not _is_flatten(model, row)]
    print_table(options.arch or options.model or DEFAULT_MODEL, rows)


def _is_flatten(model: nn.Module, row: Row) -> bool:
    """Return whether a row is an nn.Flatten, which the table leaves out."""
    if row.operation != nn.Flatten.__name__:
        return False
    return isinstance(model.get_submodule(row.name), nn.Flatten)


def print_table(name: str, rows: list[Row]) -> None:
    """Print one line per row, and the totals."""
    table = [("layer", "operation", "output", "parameters", "multiply-adds")]
    for row in rows:
        shape = " x ".join(map(str, (*row.shape[1:], *row.shape[:1])))
        parameters, macs = (f"{count:,}" if count else "" for count in (row.parameters, row.macs))
        table.append((row.name, row.operation, shape, parameters, macs))
    total_parameters, total_macs = (
        sum(row.parameters for row in rows),
        sum(row.macs for row in rows),
    )
    table.append(("total", "", "", f"{total_parameters:,}", f"{total_macs:,}"))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        columns = [  # text to the left, numbers to the right
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        print("  ".join(columns).rstrip())
    print(
        f"{name}: {total_parameters / 1e6:.1f} M parameters, "
        f"{total_macs / 1e6:,.0f} M multiply-adds per forward pass"
    )
