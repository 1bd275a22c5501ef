"""The loops of our training that bench_train times: a training step, and its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.data.dataset import Images
from zfnet.training.augment import augment
from zfnet.training.config import Config
from zfnet.training.feed import Feed
from zfnet.training.optim import new_average, new_optimizer
from zfnet.training.setup import new_model, runner
from zfnet.training.step import train_step

SEED = 12
STREAMED = "photographs, streamed from memory"
PHOTOGRAPHS, RANDOM_TENSORS = "photographs", "random tensors"
AUGMENTED_NOISE = "random images, augmented"
DATA_LOADING = "reading and augmenting alone"


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
    config: Config, images: Images, settings: dict, device: torch.device
) -> dict[str, Callable]:
    """Return our loops: training steps on photographs, noise or random tensors, and their parts.

    Args:
        config: The training's configuration.
        images: As many images as the loop's batches need.
        settings: "batch", and "side" and "size", the pixels of an image and of a crop.
        device: Where it trains.
    """
    loops = TrainingLoops(config, images, settings, device)
    chosen: dict[str, Callable] = {
        PHOTOGRAPHS: loops.step_photographs,
        AUGMENTED_NOISE: loops.step_noise,
        RANDOM_TENSORS: loops.step_tensors,
    }
    if loops.feed.resident:  # otherwise, the loop on photographs is streamed
        chosen[STREAMED] = partial(loops.step_photographs, Feed(images, device))
    return chosen | {
        "forward and backward": loops.forward_and_backward,
        "forward": loops.forward,
        DATA_LOADING: loops.load_and_augment,
    }


def compilable(
    config: Config, images: Images, settings: dict, device: torch.device
) -> tuple[dict[str, Callable], str]:
    """Return our loops with torch.compile, or no loops and the error: Triton needs a C compiler."""
    loops = our_loops(replace(config, compile=True), images, settings, device)
    compiled = {f"{name}, compiled": loops[name] for name in (PHOTOGRAPHS, RANDOM_TENSORS)}
    try:
        for loop in compiled.values():
            loop()
    except Exception as error:  # compilers raise many types; the other loops are still timed
        return {}, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return compiled, ""


class TrainingLoops:
    """Our training step and its parts. Each method makes one pass over the batches."""

    def __init__(self, config: Config, images: Images, settings: dict, device: torch.device):
        torch.manual_seed(SEED)
        self.config, self.size = config, settings["size"]
        self.model = new_model(config, images).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = new_optimizer(self.model, config.optim)
        self.run = runner(self.model, config)
        self.average = new_average(self.model, config.optim.ema)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-4  # keeps the weights finite; speed does not depend on it
        self.generator = torch.Generator().manual_seed(SEED)
        self.batches = np.arange(len(images)).reshape(-1, settings["batch"])
        self.feed = Feed(images, device, keep=True)
        batch, side, size = settings["batch"], settings["side"], settings["size"]
        noise = torch.randint(
            0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=self.generator
        )
        self.noise = noise.to(device)
        x = torch.randn(batch, 3, size, size, generator=self.generator).to(device)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.y = torch.zeros(batch, dtype=torch.int64, device=device)

    def step(self, x: Tensor, y: Tensor) -> None:
        train_step(self.model, self.run, self.optimizer, x, y, self.config)
        self.average.update_parameters(self.model)

    def augmented(self, raw: Tensor) -> Tensor:
        return augment(raw, self.size, self.config.augment, self.generator)

    def step_photographs(self, feed: Feed | None = None) -> None:
        for raw, labels in (feed or self.feed).batches(self.batches):
            self.step(self.augmented(raw), labels)

    def load_and_augment(self) -> None:
        for raw, _ in self.feed.batches(self.batches):
            self.augmented(raw)

    def step_noise(self) -> None:
        for _ in self.batches:
            self.step(self.augmented(self.noise), self.y)

    def step_tensors(self) -> None:
        for _ in self.batches:
            self.step(self.x, self.y)

    @torch.no_grad()
    def forward(self) -> None:
        for _ in self.batches:
            self.loss()

    def forward_and_backward(self) -> None:
        for _ in self.batches:
            self.model.zero_grad()
            self.loss().backward()

    def loss(self) -> Tensor:
        return autocast_loss(self.run, self.x, self.y, self.config.precision)


def autocast_loss(run: Callable, x: Tensor, y: Tensor, precision: str) -> Tensor:
    """Return the cross-entropy of a batch, in a training's precision."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return F.cross_entropy(run(x).float(), y)
