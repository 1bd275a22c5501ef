"""The names of a chain's layers: conv1, ..., fc8, as in the paper."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from zfnet.graph.operations import BATCHNORMS, NORMS, RECTIFIERS, WEIGHTED

KINDS = {nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.BatchNorm2d: "bn", nn.BatchNorm1d: "bn"}
KINDS |= {nn.Dropout: "drop", nn.Conv2d: "conv", nn.Linear: "fc"} | dict.fromkeys(NORMS, "norm")


def name_as_in_paper(leaves: Sequence[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Name modules conv1, relu1, ..., unless all layers have such names."""

    def kind_of(module: nn.Module) -> str | None:
        return next((name for kind, name in KINDS.items() if isinstance(module, kind)), None)

    weighted = [(path, kind_of(module)) for path, module in leaves if isinstance(module, WEIGHTED)]
    keep = all(re.fullmatch(rf"{kind}\d+", path) for path, kind in weighted)
    named: list[tuple[str, nn.Module]] = []
    number, used = 0, set()
    for path, module in leaves:
        number += isinstance(module, WEIGHTED)
        kind = kind_of(module)
        name = f"{kind}{number}" if kind and not keep else path
        name = path if name in used else name  # a second dropout of one layer, for example
        used.add(name)
        named.append((name, module))
    return named


def completed_layers(named: Sequence[tuple[str, nn.Module]]) -> list[str | None]:
    """For each module, return the layer whose activation it completes, or None.

    A layer ends with its ReLU, else with the last of its weights and BatchNorm.
    """
    completed: list[str | None] = [None] * len(named)
    layer, end = None, 0
    for i, (name, module) in enumerate(named):
        if isinstance(module, WEIGHTED):
            layer, end = name, i
        elif layer and isinstance(module, (*BATCHNORMS, *RECTIFIERS)):
            completed[end] = None
            end = i
        else:
            layer = None  # pooling, normalization and dropout come after the activation
        if layer:
            completed[end] = layer
    return completed
