"""The loops that bench_train times: our training step, its parts, and torchvision's AlexNet."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from zfnet.data.dataset import Images
from zfnet.data.images import MEAN, STD
from zfnet.training.augment import augment
from zfnet.training.config import Config
from zfnet.training.feed import Feed
from zfnet.training.optim import new_average, new_optimizer
from zfnet.training.setup import new_model, runner
from zfnet.training.step import train_step

SEED = 12
STREAMED = "photographs, streamed from memory"
PHOTOGRAPHS, RANDOM_TENSORS, AUGMENTED_NOISE = (
    "photographs",
    "random tensors",
    "random images, augmented",
)
TORCHVISION = "torchvision's AlexNet"
DATA_LOADING = "reading and augmenting alone"
ALEXNET_OUR_PIPELINE = f"{TORCHVISION}, our pipeline"


def cores() -> int:
    """Return the number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resized(images: Images, side: int) -> Images:
    """Return the images resized to side x side pixels, with labels of at least 0."""
    pixels = np.empty((len(images), side, side, 3), dtype=np.uint8)
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // 100)):
        raw = images.raw(rows).permute(0, 3, 1, 2).float()
        scaled = F.interpolate(raw, (side, side), mode="bilinear", antialias=True)
        pixels[rows] = scaled.round().byte().permute(0, 2, 3, 1).numpy()
    return replace(
        images, pixels=pixels, labels=images.labels.clip(0), rows=None, groups=None, size=side
    )


def our_loops(
    config: Config, images: Images, size: dict, device: torch.device
) -> dict[str, Callable]:
    """Return our loops: training steps on photographs, noise or random tensors, and their parts."""
    torch.manual_seed(SEED)
    model = new_model(config, images).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer, run = new_optimizer(model, config.optim), runner(model, config)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4  # keeps the weights finite; speed does not depend on it
    batches, generator = (
        np.arange(len(images)).reshape(-1, size["batch"]),
        torch.Generator().manual_seed(SEED),
    )
    feed, stream = Feed(images, device, keep=True), Feed(images, device)
    noise = torch.randint(
        0,
        256,
        (size["batch"], size["side"], size["side"], 3),
        dtype=torch.uint8,
        generator=generator,
    ).to(device)
    x = torch.randn(size["batch"], 3, size["size"], size["size"], generator=generator).to(device)
    x, y = (
        x.contiguous(memory_format=torch.channels_last),
        torch.zeros(size["batch"], dtype=torch.int64, device=device),
    )

    def loss(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            return F.cross_entropy(run(x).float(), y)

    average = new_average(model, config.optim.ema)

    def step(x: Tensor, y: Tensor) -> None:
        train_step(model, run, optimizer, x, y, config)
        average.update_parameters(model)

    def step_photographs(feed: Feed = feed) -> None:
        for raw, labels in feed.batches(batches):
            step(augment(raw, size["size"], config.augment, generator), labels)

    def load_and_augment() -> None:
        for raw, _ in feed.batches(batches):
            augment(raw, size["size"], config.augment, generator)

    @torch.no_grad()
    def forward() -> None:
        for _ in batches:
            loss(x)

    def forward_and_backward() -> None:
        for _ in batches:
            model.zero_grad()
            loss(x).backward()

    def step_noise() -> None:
        for _ in batches:
            step(augment(noise, size["size"], config.augment, generator), y)

    def step_tensors() -> None:
        for _ in batches:
            step(x, y)

    loops: dict[str, Callable] = {
        PHOTOGRAPHS: step_photographs,
        AUGMENTED_NOISE: step_noise,
        RANDOM_TENSORS: step_tensors,
    }
    if feed.resident:  # otherwise, the loop on photographs is streamed
        loops[STREAMED] = lambda: step_photographs(stream)
    return loops | {
        "forward and backward": forward_and_backward,
        "forward": forward,
        DATA_LOADING: load_and_augment,
    }


def torchvision_loops(
    config: Config, images: Images, size: dict, device: torch.device, folder: Path
) -> dict[str, Callable]:
    """torchvision's AlexNet with its own pipeline from JPEG files, with ours, on random tensors."""
    import torchvision  # slow to import, and `python -m reproduce list` imports this file
    from torchvision.transforms import v2

    for i, label in enumerate(images.labels.tolist()):
        path = folder / f"{label:04d}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(images.raw([i])[0].numpy()).save(path, quality=90)
    steps = [
        v2.RandomResizedCrop(size["size"], antialias=True),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
    ]
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    files = Subset(torchvision.datasets.ImageFolder(str(folder), transform), range(len(images)))
    model = torchvision.models.alexnet(num_classes=1000).to(
        device, memory_format=torch.channels_last
    )  # pyright: ignore
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)
    alexnet_config = Config(
        precision=size["precision"], optim=replace(Config().optim, clip_rms=0.0)
    )
    workers, pinned = cores(), device.type == "cuda"
    loader = DataLoader(
        files,
        size["batch"],
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=pinned,
    )
    random = torch.randn(size["batch"], 3, size["size"], size["size"], device=device).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.zeros(size["batch"], dtype=torch.int64, device=device)

    def loop(data) -> None:
        for x, y in data:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            train_step(
                model,
                model,
                optimizer,
                x.contiguous(memory_format=torch.channels_last),
                y,
                alexnet_config,
            )  # pyright: ignore

    feed, batches = (
        Feed(images, device, keep=True),
        np.arange(len(images)).reshape(-1, size["batch"]),
    )
    generator = torch.Generator().manual_seed(SEED)

    def with_our_pipeline() -> None:
        loop(
            (augment(raw, size["size"], config.augment, generator), y)
            for raw, y in feed.batches(batches)
        )

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=size["precision"] == "bfloat16"):
            return F.cross_entropy(model(random).float(), labels)

    @torch.no_grad()
    def forward() -> None:
        for _ in batches:
            loss()

    def forward_and_backward() -> None:
        for _ in batches:
            model.zero_grad()
            loss().backward()

    return {
        f"{TORCHVISION}, {PHOTOGRAPHS}": lambda: loop(loader),
        ALEXNET_OUR_PIPELINE: with_our_pipeline,
        f"{TORCHVISION}, {RANDOM_TENSORS}": lambda: loop([(random, labels)] * len(batches)),
        f"{TORCHVISION}, forward and backward": forward_and_backward,
        f"{TORCHVISION}, forward": forward,
    }
