"""One training step: augmentation, targets, gradient, and updates after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zfnet.model import Network
from zfnet.training.augment import augment
from zfnet.training.config import Config, Stage
from zfnet.training.constraints import clip_filters, share_fc6
from zfnet.training.distill import Replay, Targets, distillation_loss, mixup, targets
from zfnet.training.distributed import DistributedContext
from zfnet.training.evaluate import first_dense
from zfnet.training.sampling import seeded
from zfnet.training.state import TrainState


@dataclass(frozen=True)
class StageTrainer:
    """Takes the steps of a stage: draws labels and augmentations, updates weights and averages.

    Attributes:
        stage: The size of the images, and whether layer 6 is shared.
        config: The run with the stage's options, from `stage_configs`.
        replay: The teacher's labels, or None.
        distributed: The processes that share each batch.
    """

    stage: Stage
    config: Config
    replay: Replay | None
    distributed: DistributedContext

    def step(
        self,
        state: TrainState,
        run: Callable[[Tensor], Tensor],
        number: int,
        part: np.ndarray,
        raw: Tensor,
        y: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Take a step. Its random numbers depend only on the seed, its number and the process.

        Args:
            state: The network, optimizer, schedule and average to update.
            run: The network's forward pass, from `zfnet.training.setup.runner`.
            number: Steps of the run before this one.
            part: (N,) indices of the images.
            raw: (N, S, S, 3) uint8 images on the device.
            y: (N,) int64 classes on the device.

        Returns:
            The mean loss and the number of correct answers, scalars on the device.
        """
        config, model = self.config, state.model
        dropout_seed = config.seed + 1_000_003 * (number + 1) + 7919 * self.distributed.rank
        torch.manual_seed(dropout_seed)
        boxes, teacher = self._draw_labels(part, number)
        generator = seeded(config.seed, number, 1)
        x = augment(raw, self.stage.size, config.augment, generator, self.distributed, boxes)
        x, pair = self._blend(x, y, teacher, len(model.wnids), number)
        loss, correct = train_step(model, run, state.optimizer, x, y, config, pair)
        if self.stage.shared_fc6 and first_dense(model).weight.requires_grad:
            share_fc6(model)
        if not isinstance(state.schedule, ReduceLROnPlateau):
            state.schedule.step()
        if state.average is not None:
            state.average.update_parameters(model)
        return loss, correct

    def _draw_labels(self, part: np.ndarray, number: int) -> tuple[Tensor | None, Tensor | None]:
        """Draw one stored crop (N, 4) per image, with the teacher's distribution (N, classes)."""
        if self.replay is None:
            return None, None
        temperature, jitter = self.config.distill.temperature, self.config.augment.jitter
        generator = seeded(self.config.seed, number, 2, self.distributed.rank)
        return self.replay.batch(part, temperature, generator, jitter)

    def _blend(
        self, x: Tensor, y: Tensor, teacher: Tensor | None, classes: int, number: int
    ) -> tuple[Tensor, Targets | None]:
        """Blend images (N, 3, H, W) for mixup; form targets, None if the classes y suffice."""
        mixup_alpha = self.config.augment.mixup
        if teacher is None and not mixup_alpha:
            return x, None
        weight, smoothing = self.config.distill.weight, self.config.optim.label_smoothing
        pair = targets(y, teacher, classes, weight=weight, smoothing=smoothing)
        if not mixup_alpha:
            return x, pair
        return mixup(x, pair, mixup_alpha, (self.config.seed, number, 3, self.distributed.rank))


def train_step(
    model: Network,
    run: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    config: Config,
    pair: Targets | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step, and clip the filters.

    Args:
        model: The network.
        run: Its forward pass, from `zfnet.training.setup.runner`.
        optimizer: Updates the network's weights.
        x: (N, 3, H, W) images on the device.
        y: (N,) int64 classes on the device.
        config: Precision, label smoothing, clipping and temperature.
        pair: Targets of `zfnet.training.distill`; None takes the cross-entropy with y.

    Returns:
        The mean loss and the number of correct answers, scalars on the device.
    """
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits = run(x).float()  # (N, classes)
    if pair is None:
        loss = F.cross_entropy(logits, y, label_smoothing=config.optim.label_smoothing)
    else:
        loss = distillation_loss(logits, pair, config.distill.temperature)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if config.optim.clip_rms:
        clip_filters(model, config.optim.clip_rms)
    return loss.detach(), (logits.argmax(1) == y).sum()
