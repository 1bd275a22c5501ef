"""ZFNet, the AlexNet replica, every ablation of Table 3, and a small network for digits, as tables of layers.

Lay `ZFNET` beside Fig. 3 of the paper: one row per convolutional layer. A network is an `nn.Sequential` with named
children (`conv1, relu1, pool1, norm1, conv2, ... fc8`), so `model.conv3.weight` is what it says.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from zfnet.labels import find_class
from zfnet.normalization import LocalResponseNorm, PaperInput


@dataclass(frozen=True)
class Layer:
    """One row of Fig. 3: a convolution, always followed by ReLU, then perhaps by 3x3/2 max pooling and normalisation."""

    number: int
    maps: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: bool = False
    norm: bool = False
    groups: int = 1


WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)

# Zeiler & Fergus, Fig. 3. Padding 1 in layer 1 gives the figure's 110 x 110.
ZFNET = (
    Layer(1, maps=96, kernel=7, stride=2, padding=1, pool=True, norm=True),
    Layer(2, maps=256, kernel=5, stride=2, padding=0, pool=True, norm=True),
    Layer(3, maps=384, kernel=3, padding=1),
    Layer(4, maps=384, kernel=3, padding=1),
    Layer(5, maps=256, kernel=3, padding=1, pool=True),
)

# The paper's replica of Krizhevsky et al. 2012; theirs has groups=2 on layers 2, 4 and 5.
ALEXNET = (
    Layer(1, maps=96, kernel=11, stride=4, padding=2, pool=True, norm=True),
    Layer(2, maps=256, kernel=5, padding=2, pool=True, norm=True),
    *ZFNET[2:],
)

# The lectures' network for MNIST. Digits have a black border of their own, so that no padding is needed.
MNIST = (
    Layer(1, maps=16, kernel=5, pool=True),
    Layer(2, maps=32, kernel=5, pool=True),
)


class Network(nn.Sequential):
    """A convolutional network built from a table of layers, with what is needed to build it again.

    Attributes: `table` (the rows), `options` (keyword arguments of the function named by `arch`), `size` (side of the
    square input in pixels), `classes` and `wnids` (names and WordNet ids of the outputs, in order), `info` (the recipe,
    data and accuracy recorded with a checkpoint), `cam_head` (None, or the weights (classes, C) and biases (classes,) of a
    linear classifier of the global average pool of the last rectified maps: class activation mapping needs it).
    """

    def __init__(
        self, arch: str, table: Sequence[Layer], options: dict, children: dict[str, nn.Module]
    ):
        super().__init__()
        self.arch, self.table, self.options = arch, tuple(table), dict(options)
        self.size: int = options["size"]
        self.classes: list[str] = [str(i) for i in range(options["classes"])]
        self.wnids: list[str] = list(self.classes)
        self.info: dict = {}
        self.cam_head: tuple[Tensor, Tensor] | None = None
        for name, module in children.items():
            self.add_module(name, module)

    def __getitem__(self, key):  # pyright: ignore[reportIncompatibleMethodOverride]
        """One module, or for a slice a plain `nn.Sequential` of those modules under their names."""
        return (
            nn.Sequential(OrderedDict(list(self._modules.items())[key]))
            if isinstance(key, slice)
            else super().__getitem__(key)
        )

    def class_index(self, name: str | int) -> int:
        """The output of a class given by number, WordNet id, or name in any case ("Afghan hound").

        Raises ValueError as `zfnet.labels.find_class` does: the message offers classes.
        """
        return find_class(name, self.classes, self.wnids)


def device_of(model: nn.Module) -> torch.device:
    """The device on which a network lies: its first weight's, else its first buffer's, else the CPU."""
    return next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0)).device


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DistributedDataParallel, AveragedModel, torch.compile."""
    while isinstance(model, WRAPPERS) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, WRAPPERS) else model._orig_mod  # pyright: ignore[reportAssignmentType]
    return model


def unwrap_network(model: nn.Module) -> Network:
    """Return the `Network` inside its wrappers. Raises TypeError for any other network."""
    network = unwrap(model)
    if not isinstance(network, Network):
        raise TypeError(
            f"expected a network of {', '.join(ARCHITECTURES)}, got {type(network).__name__}"
        )
    return network


def zfnet(classes: int = 1000, **options) -> Network:
    """ZFNet (Zeiler & Fergus 2014, Fig. 3), or with options any ZFNet row of Table 3. Random weights, training mode.

    Options: `fc` (maps of layers 6 and 7, 4096); `maps` (three for layers 3-5, or five for all); `without` (layers to
    leave out, of 3, 4, 6, 7); `norm` ("lrn", "batch" or "none"; BatchNorm stands between a layer's weights and its
    ReLU); `groups` (of layers 2, 4 and 5); `dropout` (0.5); `input` ("standard", or "paper": the range [-128, 128]);
    `size` (side of the input in pixels, 224); `in_channels` (3).

    `start` is the weights' first deviation: "paper" (0.01, section 3), or "he" (He et al. 2015: sqrt(2 / inputs), but 0.01 in
    the last layer), which is the default with `norm="batch"`. Biases are 0.
    Raises TypeError for an unknown option, ValueError for a wrong value, naming it.
    """
    return _build("zfnet", ZFNET, classes, **options)


def alexnet(classes: int = 1000, **options) -> Network:
    """The paper's dense replica of AlexNet (Krizhevsky et al. 2012); `groups=2` is Krizhevsky's own.

    Conv1 has 96 filters of 11 x 11 at stride 4; layers 3-7 are ZFNet's. Options as for `zfnet`.
    """
    return _build("alexnet", ALEXNET, classes, **options)


def mnist(classes: int = 10, **options) -> Network:
    """The lectures' network for MNIST: conv1, conv2, a dense layer fc3, and the output fc4, on 28 x 28 pixels.

    Its digits are RGB like every image here, so that everything that takes a ZFNet takes it too. Options as for `zfnet`, where
    `fc` (64) is of layer 3, which `without` may leave out, and `maps` are of layers 1 and 2. BatchNorm unless `norm` says else.
    """
    return _build(
        "mnist",
        MNIST,
        classes,
        (3,),
        **{"size": 28, "fc": 64, "norm": "batch", "dropout": 0.0} | options,
    )


ARCHITECTURES = {"zfnet": zfnet, "alexnet": alexnet, "mnist": mnist}


def _build(
    arch: str,
    table: Sequence[Layer],
    classes: int,
    hidden: Sequence[int] = (6, 7),  # the numbers of the dense layers below the output
    *,
    fc: int = 4096,
    maps: Sequence[int] = (),
    without: Sequence[int] = (),
    norm: str = "lrn",
    groups: int = 1,
    dropout: float = 0.5,
    input: str = "standard",
    size: int = 224,
    in_channels: int = 3,
    start: str = "",
    **unknown: object,
) -> Network:
    if unknown:
        known = "fc, maps, without, norm, groups, dropout, input, size, in_channels, start"
        raise TypeError(f"{arch}: unknown option {', '.join(unknown)}; there are {known}")
    options = {
        "classes": classes, "fc": fc, "maps": tuple(maps), "without": tuple(without), "norm": norm, "groups": groups,
        "dropout": dropout, "input": input, "size": size, "in_channels": in_channels,
    }  # fmt: skip
    _check(arch, table, hidden, start=start, **options)
    first = len(table) + 1 - len(maps)
    widths = {first + i: width for i, width in enumerate(maps)}
    rows = [
        replace(
            row,
            maps=widths.get(row.number, row.maps),
            groups=groups if row.number in (2, 4, 5) else 1,
        )
        for row in table
        if row.number not in without
    ]
    children: dict[str, nn.Module] = {}
    if input == "paper":
        children["input"] = PaperInput(size=size)
    channels, side = in_channels, size
    for row in rows:
        n = row.number
        children[f"conv{n}"] = nn.Conv2d(
            channels,
            row.maps,
            row.kernel,
            row.stride,
            row.padding,
            groups=row.groups,
            bias=norm != "batch",
        )
        if norm == "batch":
            children[f"bn{n}"] = nn.BatchNorm2d(row.maps)
        children[f"relu{n}"] = nn.ReLU()
        side = (side + 2 * row.padding - row.kernel) // row.stride + 1
        if row.pool:
            children[f"pool{n}"] = nn.MaxPool2d(3, 2, ceil_mode=True)
            side = -(-(side - 3) // 2) + 1
        if row.norm and norm == "lrn":
            children[f"norm{n}"] = LocalResponseNorm()
        channels = row.maps
        if side < 1:
            raise ValueError(f"{arch}: an input of {size} pixels leaves nothing after layer {n}")
    children["flatten"] = nn.Flatten()
    features = channels * side * side
    for n in hidden:
        if n not in without:
            children[f"fc{n}"] = nn.Linear(features, fc, bias=norm != "batch")
            if norm == "batch":
                children[f"bn{n}"] = nn.BatchNorm1d(fc)
            children[f"relu{n}"] = nn.ReLU()
            children[f"drop{n}"] = nn.Dropout(dropout)
            features = fc
    output = children[f"fc{hidden[-1] + 1}"] = nn.Linear(features, classes)

    model = Network(arch, rows, options, children)
    _draw_weights(model, output, he=start == "he" or (not start and norm == "batch"))
    return model


def _check(
    arch: str,
    table: Sequence[Layer],
    hidden: Sequence[int],
    *,
    classes: int,
    fc: int,
    maps: Sequence[int],
    without: Sequence[int],
    norm: str,
    groups: int,
    input: str,
    in_channels: int,
    start: str,
    **_: object,
) -> None:
    """Raise ValueError, naming the option, for what no network can be built of."""
    if norm not in ("lrn", "batch", "none"):
        raise ValueError(f"{arch}: norm must be 'lrn', 'batch' or 'none', got {norm!r}")
    if input not in ("standard", "paper"):
        raise ValueError(f"{arch}: input must be 'standard' or 'paper', got {input!r}")
    if start not in ("", "paper", "he"):
        raise ValueError(f"{arch}: start must be 'paper' or 'he', got {start!r}")
    depth = len(table)
    if len(maps) not in (0, depth - 2, depth):
        some = f"{depth - 2} numbers (layers 3-{depth}) or " if depth > 2 else ""
        raise ValueError(f"{arch}: maps must have {some}{depth} (all), got {tuple(maps)}")
    optional = [row.number for row in table if not row.pool] + list(hidden)
    if not set(without) <= set(optional):
        raise ValueError(
            f"{arch}: without can hold {', '.join(map(str, optional))}, got {tuple(without)}"
        )
    counts = {
        "classes": [classes],
        "fc": [fc],
        "groups": [groups],
        "in_channels": [in_channels],
        "maps": maps,
    }
    for name, number in ((name, number) for name, numbers in counts.items() for number in numbers):
        if number < 1:
            raise ValueError(f"{arch}: {name} must be at least 1, got {number}")
    if input == "paper" and in_channels != 3:
        raise ValueError(f"{arch}: input 'paper' has 3 channels, got in_channels={in_channels}")


def _draw_weights(model: Network, output: nn.Linear, *, he: bool) -> None:
    """The first weights: He's but for the output's, or the paper's of one deviation for all layers."""
    for module in model:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if he:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.normal_(
                    module.weight, std=1e-2
                )  # section 3: "initialized to 10^-2 and biases to 0"
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if he:
        nn.init.normal_(output.weight, std=1e-2)


def fold(model: nn.Module) -> Network:
    """Return a copy of the network with every BatchNorm folded into the layer before it, in eval mode.

    w' = w g / sqrt(v + eps), b' = beta + (b - m) g / sqrt(v + eps): the same function, and exactly the layers of the
    paper, so that a deconvnet has no BatchNorm to invert.
    """
    model = unwrap_network(model)
    options = model.options | {
        "norm": "none" if model.options["norm"] == "batch" else model.options["norm"]
    }
    children: dict[str, nn.Module] = {}
    filters = None
    for name, module in (
        copy.deepcopy(model).eval()._modules.items()
    ):  # one ReLU may serve several layers
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert filters is not None
            assert module.running_var is not None
            assert module.running_mean is not None
            gain = module.weight / torch.sqrt(module.running_var + module.eps)
            bias = torch.zeros_like(gain) if filters.bias is None else filters.bias
            shape = (-1,) + (1,) * (filters.weight.ndim - 1)
            filters.weight = nn.Parameter((filters.weight * gain.view(shape)).detach())
            filters.bias = nn.Parameter(
                (module.bias + (bias - module.running_mean) * gain).detach()
            )
        else:
            children[name] = module
            filters = module if isinstance(module, (nn.Conv2d, nn.Linear)) else filters
    folded = Network(model.arch, model.table, options, children).eval()
    folded.classes, folded.wnids, folded.info = (
        list(model.classes),
        list(model.wnids),
        dict(model.info),
    )
    folded.cam_head = model.cam_head
    return folded
