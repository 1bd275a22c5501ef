"""What several commands share: the network, the images, and the checks of arguments."""

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

from zfnet.data.cache import Images
from zfnet.data.folders import load_folder
from zfnet.data.images import preprocess
from zfnet.data.io import expand_path
from zfnet.forward import trace
from zfnet.labels import find_class
from zfnet.model import Network, device_of
from zfnet.networks import load_network
from zfnet.record import write_figure
from zfnet.training.distributed import join

DEFAULT_MODEL = "imagenet65k"
DEFAULT_LAYER = "conv5"
MODEL_HELP = (
    "a bundled network, the path of a checkpoint, or torchvision:NAME, such as torchvision:resnet18"
)
DEVICE_HELP = "cpu, cuda, cuda:N, or auto: cuda if available, else cpu (default: %(default)s)"
PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
progress_bar = functools.partial(
    tqdm, dynamic_ncols=True, leave=False, disable=None
)  # terminals only


class UserError(Exception):
    """Input that a command cannot use: shown as one line, exit status 2."""


def add_model(sub: argparse.ArgumentParser) -> None:
    """Add the arguments that choose a network and its device."""
    sub.add_argument("--model", default=DEFAULT_MODEL, help=f"{MODEL_HELP} (default: %(default)s)")
    sub.add_argument(
        "--weights",
        help="with torchvision:NAME: the path of a state dict (.pth, .pt, .safetensors), or random for an "
        "untrained network (default: torchvision's weights, downloaded once)",
    )
    sub.add_argument("--device", default="auto", help=DEVICE_HELP)


def add_target(sub: argparse.ArgumentParser, default: str = "the predicted class") -> None:
    text = f"the class to explain: a name, a number from 0, or a WordNet id (default: {default})"
    sub.add_argument("--target", metavar="CLASS", help=text)


def add_picture(sub: argparse.ArgumentParser, default: str) -> None:
    text = "the picture to write: .png, .jpg, .pdf or .svg (default: %(default)s)"
    sub.add_argument(
        "-o", "--out", type=expand_path, metavar="FILE", default=Path(default), help=text
    )


def add_skip_unreadable(sub: argparse.ArgumentParser) -> None:
    text = "leave unreadable images out (default: stop and list them)"
    sub.add_argument("--skip-unreadable", action="store_true", help=text)


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
    """Read one image as the network's input (1, 3, size, size), on its device."""
    return preprocess(path, model.size).to(device_of(model))


def load_tree(path: Path, model: Any, *, skip_unreadable: bool) -> Images:
    """Read a tree of class folders, or the val/ in it."""
    root = path / "val" if (path / "val").is_dir() else path
    images = load_folder(
        root,
        side=kept_side(model),
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


def kept_side(model: Any) -> int:
    """Return the side in pixels at which images are kept for a network: 256 for 224."""
    return round(model.size * 256 / 224)


def target_index(model: Any, name: str | None) -> int | None:
    """Return the index of --target, or None where it was not given."""
    return None if name is None else find_class(name, model.classes, model.wnids)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Show the library's ValueError for an argument as one line."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from None


def count_channels(model: Any, layer: str) -> int:
    """Return how many channels a layer has. Raises UnknownLayer."""
    x = torch.zeros(1, 3, model.size, model.size, device=device_of(model))
    return trace(model, x, until=layer)[layer].shape[1]


def check_channel(layer: str, channel: int, channels: int) -> None:
    if not 0 <= channel < channels:
        raise UserError(f"{layer} has channels 0 to {channels - 1}, got --channel {channel}")


def refuse(options: argparse.Namespace, name: str, reason: str) -> None:
    """Raise UserError if an option was given that has no effect here."""
    if getattr(options, name.replace("-", "_")) not in (None, False):
        raise UserError(f"--{name} cannot be used with {reason}")


def check_picture(out: Path, image: str | None = None) -> None:
    """Refuse an output that is the input, a folder, or of an unknown format, before computing."""
    if image is not None and out.resolve() == expand_path(image).resolve():
        raise UserError(f"-o {out} would overwrite the image")
    if out.is_dir():
        raise UserError(f"-o {out} is a folder; name a file, such as {out / 'out.png'}")
    if out.suffix.lower() not in ("", *PICTURES):
        raise UserError(f"-o {out} cannot be written as a picture; use .png, .jpg, .pdf or .svg")


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure, and say so."""
    try:
        write_figure(figure, path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    print(f"wrote {path}")
