"""Progress reports of a run, and its loss and accuracy in the current epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zfnet.training.distributed import DistributedContext


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run.

    Attributes:
        epoch: The current epoch, from 1.
        epochs: Epochs of the run.
        step: Steps made so far.
        steps: Steps of the run.
        loss: Mean loss of the epoch so far.
        accuracy: Top-1 accuracy on the epoch's training batches so far, 0 to 1.
        images_per_second: Training speed over the epoch so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float


class EpochMeter:
    """Sums an epoch's loss and correct answers on the device, which reads do not slow down.

    Args:
        batch: Images per step, over all processes.
        device: Where losses are.
        distributed: The processes that share each batch.
        steps: Steps of the epoch before an interruption.
        sums: Their loss and correct answers.
    """

    def __init__(
        self,
        batch: int,
        device: torch.device,
        distributed: DistributedContext,
        steps: int = 0,
        sums: Sequence[float] = (0.0, 0.0),
    ):
        self.batch, self.distributed = batch, distributed
        self.first_step = self.steps = steps
        self.sums = torch.tensor(sums, device=device)  # loss, correct answers
        self.start = time.perf_counter()

    def add(self, loss: Tensor, correct: Tensor) -> None:
        """Add a step: this process's mean loss and its number of correct answers, both scalars."""
        self.sums += torch.stack([loss / self.distributed.size, correct])
        self.steps += 1

    def read(self) -> tuple[float, float, float]:
        """Return mean loss, accuracy and images per second. This waits for the device."""
        loss, correct = self.distributed.sum(self.sums).tolist()
        images = self.steps * self.batch
        new_images = images - self.first_step * self.batch
        speed = new_images / (time.perf_counter() - self.start)
        return loss / self.steps, correct / images, speed
