"""Helpers shared by the commands: arguments, loading of networks and images, error messages."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from zfnet.data.dataset import Images
from zfnet.data.folders import load_folder
from zfnet.data.images import preprocess
from zfnet.data.io import expand_path
from zfnet.data.labels import find_class
from zfnet.forward import trace
from zfnet.layer_list import list_layers
from zfnet.model import Network, device_of
from zfnet.networks import load_network
from zfnet.plot import write_figure
from zfnet.training.distributed import available_devices, join

PAPER_LAYER = "conv5"  # the highest convolutional layer of Fig. 3
PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
# disable=None shows bars in terminals only.
progress_bar = functools.partial(tqdm, dynamic_ncols=True, leave=False, disable=None)


class UserError(Exception):
    """Wrong input. The message is printed on one line, and the exit status is 2."""


def check_device(name: str) -> None:
    """Raise UserError, naming the available devices, if --device cannot be used."""
    available = available_devices()
    try:
        is_cuda = name == "auto" or torch.device(name).type == "cuda"
        if is_cuda:
            is_available = name in available
        else:
            is_available = torch.zeros(1, device=name).item() == 0
    except (RuntimeError, AssertionError, NotImplementedError):
        is_available = False
    if not is_available:
        raise UserError(f"--device {name} is not available; available: {', '.join(available)}")


def load_model(options: argparse.Namespace, device: torch.device | None = None) -> Any:
    """Load the network of --model: a module with `classes`, `wnids` and `size`."""
    if device is None:
        with join(options.device) as (_, device):
            return load_model(options, device)
    model = load_network(options.model, options.weights).to(device)
    if isinstance(model, Network) and (channels := model.options["in_channels"]) != 3:
        raise UserError(
            f"{options.model} takes images with {channels} channel(s); this command needs 3"
        )
    return model


def load_photograph(path: str, model: Any) -> Tensor:
    """Read one image as network input (1, 3, size, size), on the network's device."""
    return preprocess(path, model.size).to(device_of(model))


def load_tree(path: Path, model: Any, *, skip_unreadable: bool) -> Images:
    """Load a tree of class folders, or its subfolder val/ if there is one."""
    root = path / "val" if (path / "val").is_dir() else path
    images = load_folder(
        root,
        side=decoded_side(model),
        size=model.size,
        skip_unreadable=skip_unreadable,
        progress=progress_bar,
    )
    report_skipped(images)
    return images


def report_skipped(images: Images) -> None:
    """Name a file that was left out, and say how many were."""
    if images.skipped:
        text = f"left out {len(images.skipped)} files, such as {images.skipped[0]}"
        print(text, file=sys.stderr)


def decoded_side(model: Any) -> int:
    """Return the side of decoded images for a network, in pixels: 256 for an input of 224."""
    return round(model.size * 256 / 224)


def target_index(model: Any, name: str | None) -> int | None:
    """Return the class number of --target, or None without it."""
    return None if name is None else find_class(name, model.classes, model.wnids)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turn the library's ValueError about an argument into a UserError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from None


def choose_layer(model: Any, layer: str | None) -> str:
    """Return --layer; without it conv5, or the network's last maps before the logits.

    Raises:
        UserError: If the network has no maps.
    """
    if layer is not None:
        return layer
    names = [
        row.name for row in list_layers(model) if len(row.shape) == 3 and max(row.shape[1:]) > 1
    ]
    if not names:
        raise UserError("the network has no feature maps; name a layer with --layer")
    return PAPER_LAYER if PAPER_LAYER in names else names[-1]


def count_channels(model: Any, layer: str) -> int:
    """Return the number of channels of a layer. Raises UnknownLayer."""
    x = torch.zeros(1, 3, model.size, model.size, device=device_of(model))
    return trace(model, x, until=layer)[layer].shape[1]


def check_channel(layer: str, channel: int, channels: int) -> None:
    """Raise UserError if --channel is out of range."""
    if not 0 <= channel < channels:
        raise UserError(f"{layer} has channels 0 to {channels - 1}, got --channel {channel}")


def refuse(options: argparse.Namespace, name: str, reason: str) -> None:
    """Raise UserError if an option is given that would have no effect."""
    if getattr(options, name.replace("-", "_")) not in (None, False):
        raise UserError(f"--{name} cannot be used with {reason}")


def check_picture(out: Path, image: str | None = None) -> None:
    """Raise UserError if -o is the input image, a folder, or of an unknown format."""
    if image is not None and out.resolve() == expand_path(image).resolve():
        raise UserError(f"-o {out} would overwrite the image")
    if out.is_dir():
        raise UserError(f"-o {out} is a folder; name a file, such as {out / 'out.png'}")
    if out.suffix.lower() not in ("", *PICTURES):
        raise UserError(f"-o {out} cannot be written as a picture; use .png, .jpg, .pdf or .svg")


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure, and print its path."""
    try:
        write_figure(figure, path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    print(f"wrote {path}")
