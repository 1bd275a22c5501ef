"""One training step, and the targets that it trains towards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.model import Network
from zfnet.training.config import Config
from zfnet.training.constraints import clip_filters
from zfnet.training.distill import Replay, Targets, distillation_loss, mixup, targets
from zfnet.training.distributed import DistributedContext
from zfnet.training.sampling import seeded


def draw_labels(
    replay: Replay | None,
    part: np.ndarray,
    step: int,
    config: Config,
    distributed: DistributedContext,
) -> tuple[Tensor | None, Tensor | None]:
    """Draw one stored crop per image, with the teacher's distribution.

    Args:
        replay: The teacher's labels, or None.
        part: (N,) indices of the images.
        step: Steps of the run before this one.
        config: Seed, temperature and jitter.
        distributed: The processes that share the batch.

    Returns:
        Crops (N, 4) and distributions (N, classes); None and None without a teacher.
    """
    if replay is None:
        return None, None
    generator = seeded(config.seed, step, 2, distributed.rank)
    return replay.batch(part, config.distill.temperature, generator, config.augment.jitter)


def blend(
    x: Tensor,
    y: Tensor,
    teacher: Tensor | None,
    classes: int,
    step: int,
    config: Config,
    distributed: DistributedContext,
) -> tuple[Tensor, Targets | None]:
    """Form the targets of a teacher or of mixup, and blend the images for mixup.

    Args:
        x: (N, 3, H, W) images.
        y: (N,) int64 classes.
        teacher: (N, classes) distributions, or None.
        classes: Number of classes.
        step: Steps of the run before this one.
        config: The teacher's weight, label smoothing and mixup.
        distributed: The processes that share the batch.

    Returns:
        The images, and their targets; None if the classes y suffice.
    """
    if teacher is None and not config.augment.mixup:
        return x, None
    weight, smoothing = config.distill.weight, config.optim.label_smoothing
    pair = targets(y, teacher, classes, weight=weight, smoothing=smoothing)
    if not config.augment.mixup:
        return x, pair
    return mixup(x, pair, config.augment.mixup, (config.seed, step, 3, distributed.rank))


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
