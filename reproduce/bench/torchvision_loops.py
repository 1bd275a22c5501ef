"""The loops of torchvision's AlexNet that bench_train times: its own pipeline, and ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from reproduce.bench.loops import PHOTOGRAPHS, RANDOM_TENSORS, SEED, autocast_loss
from zfnet.data.dataset import Images
from zfnet.data.images import MEAN, STD
from zfnet.training.augment import augment
from zfnet.training.config import Config
from zfnet.training.feed import Feed
from zfnet.training.step import train_step

TORCHVISION = "torchvision's AlexNet"
ALEXNET_OUR_PIPELINE = f"{TORCHVISION}, our pipeline"


def cores() -> int:
    """Return the number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torchvision_loops(
    config: Config, images: Images, settings: dict, device: torch.device, folder: Path
) -> dict[str, Callable]:
    """Return loops on JPEG files with torchvision's pipeline, with ours, and on random tensors.

    Args:
        config: Our training's configuration, for our pipeline.
        images: As many images as the loop's batches need.
        settings: "batch", "size" in pixels of a crop, and "precision".
        device: Where it trains.
        folder: Where the JPEG files are written.
    """
    write_jpegs(images, folder)
    loader = jpeg_loader(folder, len(images), settings, device)
    loops = AlexNetLoops(config, images, settings, device)
    return {
        f"{TORCHVISION}, {PHOTOGRAPHS}": lambda: loops.steps(loader),
        ALEXNET_OUR_PIPELINE: loops.step_our_pipeline,
        f"{TORCHVISION}, {RANDOM_TENSORS}": loops.step_tensors,
        f"{TORCHVISION}, forward and backward": loops.forward_and_backward,
        f"{TORCHVISION}, forward": loops.forward,
    }


def write_jpegs(images: Images, folder: Path) -> None:
    """Write images as a tree of class folders."""
    for i, label in enumerate(images.labels.tolist()):
        path = folder / f"{label:04d}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(images.raw([i])[0].numpy()).save(path, quality=90)


def jpeg_loader(folder: Path, count: int, settings: dict, device: torch.device) -> DataLoader:
    """Return torchvision's usual pipeline over the first `count` files of a tree."""
    from torchvision.datasets import ImageFolder  # slow to import, and `list` imports this file
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(settings["size"], antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return DataLoader(
        Subset(ImageFolder(str(folder), transform), range(count)),
        settings["batch"],
        shuffle=True,
        num_workers=cores(),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )


class AlexNetLoops:
    """torchvision's AlexNet in our training step. Each method makes one pass over the batches."""

    def __init__(self, config: Config, images: Images, settings: dict, device: torch.device):
        from torchvision.models import alexnet

        model = alexnet(num_classes=1000)
        self.model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, fused=True)
        optim = replace(Config().optim, clip_rms=0.0)
        self.config = Config(precision=settings["precision"], optim=optim)
        self.augment, self.size = config.augment, settings["size"]
        self.generator = torch.Generator().manual_seed(SEED)
        self.feed = Feed(images, device, keep=True)
        self.batches = np.arange(len(images)).reshape(-1, settings["batch"])
        shape = (settings["batch"], 3, self.size, self.size)
        x = torch.randn(shape, device=device)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.y = torch.zeros(settings["batch"], dtype=torch.int64, device=device)

    def steps(self, batches: Iterable) -> None:
        for x, y in batches:
            x, y = x.to(self.y.device, non_blocking=True), y.to(self.y.device, non_blocking=True)
            x = x.contiguous(memory_format=torch.channels_last)
            train_step(self.model, self.model, self.optimizer, x, y, self.config)  # pyright: ignore

    def step_our_pipeline(self) -> None:
        self.steps(
            (augment(raw, self.size, self.augment, self.generator), y)
            for raw, y in self.feed.batches(self.batches)
        )

    def step_tensors(self) -> None:
        self.steps([(self.x, self.y)] * len(self.batches))

    @torch.no_grad()
    def forward(self) -> None:
        for _ in self.batches:
            self.loss()

    def forward_and_backward(self) -> None:
        for _ in self.batches:
            self.model.zero_grad()
            self.loss().backward()

    def loss(self) -> Tensor:
        return autocast_loss(self.model, self.x, self.y, self.config.precision)
