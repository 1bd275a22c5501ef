"""The images and steps of each epoch, and the timeline of a run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zfnet.data.dataset import Images
from zfnet.training.config import Config, Stage, stage_configs
from zfnet.training.distill import Replay
from zfnet.training.setup import TrainingError


@dataclass(frozen=True)
class Timeline:
    """The epochs and steps of a run.

    Attributes:
        stages: The index of each epoch's stage.
        steps: The number of steps of each epoch.
        cycles: The number of steps in each epoch's cycle: from one restart to the next.
        first_step: The first step of each epoch, and the number of all steps.
        snapshots: The epochs to keep, by the number of steps after which they end.
    """

    stages: list[int]
    steps: list[int]
    cycles: list[int]
    first_step: list[int]
    snapshots: dict[int, float]

    @staticmethod
    def new(images: Images, config: Config, replay: Replay | None) -> Timeline:
        """Count the steps of a run on these training images, with a teacher's labels or None."""
        steps = count_steps(images, config, replay)
        first_step = [0, *itertools.accumulate(steps)]
        snapshots = snapshot_steps(config.snapshots, first_step)
        return Timeline(
            stage_numbers(config), steps, cycle_steps(config, steps), first_step, snapshots
        )

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return len(self.steps)


def stage_order(
    images: Images, stage: Stage, config: Config, replay: Replay | None, generator: torch.Generator
) -> np.ndarray:
    """Return an epoch's image indices, shuffled: images of at least the stage's resolution."""
    if replay is None:
        return epoch_order(images.labels, config.data.per_class, generator)
    large = replay.at_least(stage.min_resolution)
    return large[epoch_order(images.labels[large], config.data.per_class, generator)]


def epoch_order(labels: np.ndarray, per_class: int, generator: torch.Generator) -> np.ndarray:
    """Return an epoch's image indices, shuffled.

    Args:
        labels: (N,) classes.
        per_class: The maximum number of images per class, drawn at random; 0 takes all.
        generator: CPU generator.

    Example:
        >>> labels = np.array([0, 0, 0, 1])
        >>> np.bincount(labels[epoch_order(labels, 1, torch.Generator())]).tolist()
        [1, 1]
    """
    shuffled = torch.randperm(len(labels), generator=generator).numpy()
    if not per_class:
        return shuffled
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]  # random within each class
    sorted_labels = labels[by_class]
    rank = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    chosen_rows = by_class[rank < per_class]
    return chosen_rows[torch.randperm(len(chosen_rows), generator=generator).numpy()]


def stage_numbers(config: Config) -> list[int]:
    """Return the index of each epoch's stage.

    Args:
        config: The run.

    Example:
        >>> stage_numbers(Config(stages=(Stage(epochs=2), Stage(epochs=1))))
        [0, 0, 1]
    """
    return [i for i, stage in enumerate(config.stages) for _ in range(stage.epochs)]


def count_steps(images: Images, config: Config, replay: Replay | None) -> list[int]:
    """Return the number of steps of each epoch.

    Args:
        images: The training images.
        config: The run.
        replay: The teacher's labels, or None.

    Raises:
        TrainingError: An epoch has fewer images than a batch.
    """
    steps = []
    for stage, options in zip(config.stages, stage_configs(config), strict=True):
        n = len(stage_order(images, stage, config, replay, torch.Generator()))
        if n < options.optim.batch:
            raise TrainingError(
                f"a batch of {options.optim.batch} is more than the {n} images of an epoch"
            )
        steps += [n // options.optim.batch] * stage.epochs
    return steps


def cycle_steps(config: Config, steps: list[int]) -> list[int]:
    """Return the number of steps in each epoch's cycle: from one restart to the next.

    Args:
        config: Its stages restart.
        steps: Steps of each epoch, from `count_steps`.

    Example:
        >>> cycle_steps(Config(stages=(Stage(epochs=2), Stage(epochs=1, restart=True))), [5, 5, 4])
        [10, 10, 4]
    """
    restarts = [stage.restart and i > 0 for i, stage in enumerate(config.stages)]
    cycles = list(itertools.accumulate(restarts))  # the cycle of each stage
    numbers = [int(cycles[i]) for i in stage_numbers(config)]  # the cycle of each epoch
    totals = np.bincount(numbers, weights=steps).astype(int)
    return [int(totals[i]) for i in numbers]


def snapshot_steps(epochs: Sequence[float], first_step: Sequence[int]) -> dict[int, float]:
    """Return the steps after which snapshots are kept, at least one, and their epochs.

    Args:
        epochs: Epochs after which weights are kept; not whole within an epoch.
        first_step: The first step of each epoch, and the number of all steps.

    Example:
        >>> snapshot_steps([0.25, 2], [0, 8, 16])
        {2: 0.25, 16: 2}
    """
    steps = np.interp(epochs, np.arange(len(first_step)), first_step).round().astype(int)
    return {max(int(step), 1): epoch for step, epoch in zip(steps, epochs, strict=True)}


def seeded(*numbers: int) -> torch.Generator:
    """Return a CPU generator with a seed that depends on each of the numbers."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1
    return torch.Generator().manual_seed(int(seed))
