"""ZFNet, the AlexNet replica, every ablation of Table 3, and a small network for digits.

Compare `ZFNET` with Fig. 3 of the paper: one row per convolutional layer. A network is an
`nn.Sequential` with named children (`conv1, relu1, pool1, norm1, conv2, ... fc8`).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from zfnet.data.labels import find_class
from zfnet.model.layers import (
    Layer,
    add_conv_layers,
    add_hidden_layers,
    check_options,
    init_weights,
    select_rows,
)
from zfnet.model.modules import unwrap
from zfnet.model.options import ModelOptions, explain, unknown_key
from zfnet.normalization import PaperInput

# Zeiler & Fergus, Fig. 3. Padding 1 in layer 1 gives the figure's 110 x 110.
ZFNET = (
    Layer(1, channels=96, kernel=7, stride=2, padding=1, pool=True, norm=True),
    Layer(2, channels=256, kernel=5, stride=2, padding=0, pool=True, norm=True),
    Layer(3, channels=384, kernel=3, padding=1),
    Layer(4, channels=384, kernel=3, padding=1),
    Layer(5, channels=256, kernel=3, padding=1, pool=True),
)

# The paper's replica of Krizhevsky et al. 2012; theirs has groups=2 in layers 2, 4 and 5.
ALEXNET = (
    Layer(1, channels=96, kernel=11, stride=4, padding=2, pool=True, norm=True),
    Layer(2, channels=256, kernel=5, padding=2, pool=True, norm=True),
    *ZFNET[2:],
)

# The lectures' network for MNIST. Digits have a black border, so no padding is needed.
MNIST = (
    Layer(1, channels=16, kernel=5, pool=True),
    Layer(2, channels=32, kernel=5, pool=True),
)


class Network(nn.Sequential):
    """A convolutional network built from a table of layers.

    Attributes:
        arch: The function of `ARCHITECTURES` that built it.
        table: The rows of its convolutional layers.
        options: The keyword arguments of that function.
        size: Side of the square input in pixels.
        classes: Names of the outputs, in order.
        wnids: WordNet ids of the outputs, in order.
        info: Recipe, data and accuracy recorded with a checkpoint.
        cam_head: None, or weights (classes, C) and biases (classes,) of a linear classifier of the
            global average pool of the last feature maps, for class activation mapping.
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
        """Return one module, or for a slice an `nn.Sequential` of modules with their names."""
        return (
            nn.Sequential(OrderedDict(list(self._modules.items())[key]))
            if isinstance(key, slice)
            else super().__getitem__(key)
        )

    def class_index(self, name: str | int) -> int:
        """Return the output of a class.

        Args:
            name: A number, a WordNet id, or a name in any case ("Afghan hound").

        Raises:
            ValueError: There is no such class, or two have this name. The message suggests classes.
        """
        return find_class(name, self.classes, self.wnids)


def unwrap_network(model: nn.Module) -> Network:
    """Return the `Network` inside its wrappers. Raises TypeError for any other network."""
    network = unwrap(model)
    if not isinstance(network, Network):
        raise TypeError(
            f"expected a network of {', '.join(ARCHITECTURES)}, got {type(network).__name__}"
        )
    return network


def zfnet(classes: int = 1000, *, in_channels: int = 3, **options: Any) -> Network:
    """Build ZFNet (Zeiler & Fergus 2014, Fig. 3), or with options any ZFNet row of Table 3.

    Args:
        classes: Number of outputs.
        in_channels: Channels of the input.
        **options: Fields of `zfnet.model.options.ModelOptions`, such as `norm="batch"`,
            `fc_units=2048`, `channels=(512, 1024, 512)` or `drop_layers=(3, 4)`.

    Returns:
        The network with random weights, in training mode. Input: (N, in_channels, size, size).

    Raises:
        TypeError: An option does not exist.
        ValueError: An option has a wrong value. The message names it.

    Example:
        >>> zfnet(10, fc_units=64).conv1
        Conv2d(3, 96, kernel_size=(7, 7), stride=(2, 2), padding=(1, 1))
    """
    return _build("zfnet", ZFNET, (6, 7), classes, in_channels, options)


def alexnet(classes: int = 1000, *, in_channels: int = 3, **options: Any) -> Network:
    """Build the paper's replica of AlexNet (Krizhevsky et al. 2012), without groups.

    Conv1 has 96 filters of 11 x 11 at stride 4; layers 3 to 7 are ZFNet's.

    Args:
        classes: Number of outputs.
        in_channels: Channels of the input.
        **options: As for `zfnet`. `groups=2` is Krizhevsky's own network.

    Example:
        >>> alexnet(10, fc_units=64).conv1.kernel_size
        (11, 11)
    """
    return _build("alexnet", ALEXNET, (6, 7), classes, in_channels, options)


def mnist(classes: int = 10, *, in_channels: int = 3, **options: Any) -> Network:
    """Build the lectures' network for MNIST: conv1, conv2, a dense layer fc3 and the output fc4.

    Digits are RGB, as all images here, so everything that takes a ZFNet takes this network.

    Args:
        classes: Number of outputs.
        in_channels: Channels of the input.
        **options: As for `zfnet`, with other defaults: `size=28`, `fc_units=64`, `norm="batch"`
            and `dropout=0.0`. `channels` has two numbers, `drop_layers` may hold 3.

    Example:
        >>> mnist().fc4
        Linear(in_features=64, out_features=10, bias=True)
    """
    defaults = {"size": 28, "fc_units": 64, "norm": "batch", "dropout": 0.0}
    return _build("mnist", MNIST, (3,), classes, in_channels, defaults | options)


ARCHITECTURES = {"zfnet": zfnet, "alexnet": alexnet, "mnist": mnist}


def _build(
    arch: str,
    table: Sequence[Layer],
    hidden: Sequence[int],  # numbers of the dense layers below the output
    classes: int,
    in_channels: int,
    options: dict,
) -> Network:
    """Build a network from its table and options, with initial weights."""
    try:
        checked = ModelOptions(**options)
    except ValidationError as error:
        first = error.errors()[0]
        kind = TypeError if unknown_key(first) else ValueError
        raise kind(f"{arch}: {explain(first, ModelOptions)}") from None
    check_options(arch, table, hidden, classes, in_channels, checked)
    rows = select_rows(table, checked)
    layers: dict[str, nn.Module] = {}
    if checked.input == "paper":
        layers["input"] = PaperInput(size=checked.size)
    features = add_conv_layers(layers, arch, rows, in_channels, checked)
    layers["flatten"] = nn.Flatten()
    remaining = [n for n in hidden if n not in checked.drop_layers]
    features = add_hidden_layers(layers, remaining, features, checked)
    output = layers[f"fc{hidden[-1] + 1}"] = nn.Linear(features, classes)

    stored = {"classes": classes, "in_channels": in_channels} | asdict(checked)
    model = Network(arch, rows, stored, layers)
    he = checked.init == "he" or (checked.init == "auto" and checked.norm == "batch")
    init_weights(model, output, he=he)
    return model


def fold(model: nn.Module) -> Network:
    """Return a copy with each BatchNorm folded into the layer before it, in eval mode.

    w' = w g / sqrt(v + eps), b' = beta + (b - m) g / sqrt(v + eps). The function is the same, and
    the layers are the paper's, so a deconvnet needs no inverse of BatchNorm.

    Args:
        model: A network of `ARCHITECTURES`.

    Example:
        >>> "bn1" in dict(fold(mnist()).named_children())
        False
    """
    model = unwrap_network(model)
    layers: dict[str, nn.Module] = {}
    previous = None  # the layer with weights before a BatchNorm
    # One ReLU may serve several layers, so `named_children` would skip its later names.
    for name, module in copy.deepcopy(model).eval()._modules.items():
        assert module is not None
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert previous is not None
            _fold_into(previous, module)
        else:
            layers[name] = module
            previous = module if isinstance(module, (nn.Conv2d, nn.Linear)) else previous
    norm = "none" if model.options["norm"] == "batch" else model.options["norm"]
    folded = Network(model.arch, model.table, model.options | {"norm": norm}, layers).eval()
    folded.classes, folded.wnids = list(model.classes), list(model.wnids)
    folded.info, folded.cam_head = dict(model.info), model.cam_head
    return folded


def _fold_into(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = torch.zeros_like(gain) if layer.bias is None else layer.bias
    shape = (-1,) + (1,) * (layer.weight.ndim - 1)  # (C_out, 1, ...)
    layer.weight = nn.Parameter((layer.weight * gain.view(shape)).detach())
    layer.bias = nn.Parameter((norm.bias + (bias - norm.running_mean) * gain).detach())
