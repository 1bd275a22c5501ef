"""Arguments that several commands share. Imports no torch, so that `--help` is fast."""

from __future__ import annotations

import argparse
from pathlib import Path

from zfnet.data.io import expand_path

DEFAULT_MODEL = "imagenet65k"
DEFAULT_LAYER = "conv5; without one, the last maps before the logits"
WEIGHTS_HELP = (
    "with torchvision:NAME: the path of a state dict (.pth, .pt, .safetensors), or random for an "
    "untrained network (default: {default})"
)
MODEL_HELP = (
    "a bundled network, the path of a checkpoint, or torchvision:NAME, such as torchvision:resnet18"
)
DEVICE_HELP = "cpu, cuda, cuda:N, or auto: cuda if available, else cpu (default: %(default)s)"
METHODS = (  # the names of `zfnet.METHODS`
    "saliency", "gradient_x_input", "smoothgrad", "integrated_gradients", "guided_backprop",
    "deconvnet", "cam", "grad_cam", "grad_cam_plus_plus", "guided_grad_cam", "occlusion",
)  # fmt: skip


def add_model(sub: argparse.ArgumentParser) -> None:
    """Add --model, --weights and --device."""
    sub.add_argument("--model", default=DEFAULT_MODEL, help=f"{MODEL_HELP} (default: %(default)s)")
    weights = WEIGHTS_HELP.format(default="torchvision's weights, downloaded once")
    sub.add_argument("--weights", help=weights)
    sub.add_argument("--device", default="auto", help=DEVICE_HELP)


def add_target(sub: argparse.ArgumentParser, default: str = "the predicted class") -> None:
    """Add --target."""
    text = f"the class to explain: a name, a number from 0, or a WordNet id (default: {default})"
    sub.add_argument("--target", metavar="CLASS", help=text)


def add_picture(sub: argparse.ArgumentParser, default: str) -> None:
    """Add -o, the picture to write."""
    text = "the picture to write: .png, .jpg, .pdf or .svg (default: %(default)s)"
    sub.add_argument(
        "-o", "--out", type=expand_path, metavar="FILE", default=Path(default), help=text
    )


def add_skip_unreadable(sub: argparse.ArgumentParser) -> None:
    """Add --skip-unreadable."""
    text = "skip unreadable images (default: stop and list them)"
    sub.add_argument("--skip-unreadable", action="store_true", help=text)
