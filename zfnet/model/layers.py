"""The layers of a network, from its table and options: the parts of `zfnet.model.architectures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from zfnet.model.options import ModelOptions
from zfnet.normalization import LocalResponseNorm


@dataclass(frozen=True)
class Layer:
    """One row of Fig. 3: convolution, ReLU, then optional 3x3/2 max pooling and normalization."""

    number: int
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: bool = False
    norm: bool = False
    groups: int = 1


def check_options(
    arch: str,
    table: Sequence[Layer],
    hidden: Sequence[int],
    classes: int,
    in_channels: int,
    options: ModelOptions,
) -> None:
    """Raise ValueError for options that do not fit each other or the architecture."""
    depth, given = len(table), options.channels
    if len(given) not in (0, depth - 2, depth):
        counts = f"{depth - 2} numbers (layers 3-{depth}) or " if depth > 2 else ""
        raise ValueError(f"{arch}: channels must have {counts}{depth} (all), got {given}")
    optional = [row.number for row in table if not row.pool] + list(hidden)
    if not set(options.drop_layers) <= set(optional):
        numbers = ", ".join(map(str, optional))
        raise ValueError(f"{arch}: drop_layers can hold {numbers}, got {options.drop_layers}")
    for name, number in (("classes", classes), ("in_channels", in_channels)):
        if number < 1:
            raise ValueError(f"{arch}: {name} must be at least 1, got {number}")
    if options.input == "paper" and in_channels != 3:
        raise ValueError(f"{arch}: input 'paper' has 3 channels, got in_channels={in_channels}")


def select_rows(table: Sequence[Layer], options: ModelOptions) -> list[Layer]:
    """Apply `channels`, `groups` and `drop_layers` to a table."""
    first = len(table) + 1 - len(options.channels)
    channels = {first + i: n for i, n in enumerate(options.channels)}
    return [
        replace(
            row,
            channels=channels.get(row.number, row.channels),
            groups=options.groups if row.number in (2, 4, 5) else 1,
        )
        for row in table
        if row.number not in options.drop_layers
    ]


def add_conv_layers(
    layers: dict[str, nn.Module],
    arch: str,
    rows: Sequence[Layer],
    channels: int,
    options: ModelOptions,
) -> int:
    """Append the convolutional layers, and return the number of features of their output."""
    side, batch_norm = options.size, options.norm == "batch"
    for row in rows:
        n = row.number
        layers[f"conv{n}"] = nn.Conv2d(
            channels,
            row.channels,
            row.kernel,
            row.stride,
            row.padding,
            groups=row.groups,
            bias=not batch_norm,
        )
        if batch_norm:
            layers[f"bn{n}"] = nn.BatchNorm2d(row.channels)
        layers[f"relu{n}"] = nn.ReLU()
        side = (side + 2 * row.padding - row.kernel) // row.stride + 1
        if row.pool:
            layers[f"pool{n}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            side = -(-(side - 3) // 2) + 1
        if row.norm and options.norm == "lrn":
            layers[f"norm{n}"] = LocalResponseNorm()
        channels = row.channels
        if side < 1:
            raise ValueError(
                f"{arch}: layer {n} has no output for an input of {options.size} pixels; "
                "increase size"
            )
    return channels * side * side


def add_hidden_layers(
    layers: dict[str, nn.Module], numbers: Sequence[int], features: int, options: ModelOptions
) -> int:
    """Append the hidden fully connected layers, and return the number of their features."""
    for n in numbers:
        layers[f"fc{n}"] = nn.Linear(features, options.fc_units, bias=options.norm != "batch")
        if options.norm == "batch":
            layers[f"bn{n}"] = nn.BatchNorm1d(options.fc_units)
        layers[f"relu{n}"] = nn.ReLU()
        layers[f"drop{n}"] = nn.Dropout(options.dropout)
        features = options.fc_units
    return features


def init_weights(model: nn.Sequential, output: nn.Linear, *, he: bool) -> None:
    """Draw initial weights: He et al. 2015 but in the last layer, or the paper's."""
    for module in model:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if he:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:  # section 3: "initialized to 10^-2 and biases to 0"
                nn.init.normal_(module.weight, std=1e-2)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if he:
        nn.init.normal_(output.weight, std=1e-2)
