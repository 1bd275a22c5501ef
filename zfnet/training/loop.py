"""The training loop: the paper's recipe (section 3) or a modern one, by configuration.

Read `train` first: set up, then per epoch train, evaluate and save. All random numbers come from
(seed, epoch, step), so a killed run resumes bit for bit on a CPU. Under torchrun each process takes
its share of every batch, with the crops, flips and colors that a single process would draw for it.
Only dropout masks differ.

    zfnet train configs/imagenet.yaml --data PATH
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zfnet.checkpoint import initialize
from zfnet.data.dataset import Images
from zfnet.data.io import expand_path
from zfnet.model import Network
from zfnet.training.config import Config, stage_configs, to_dict
from zfnet.training.constraints import freeze
from zfnet.training.distill import Replay
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.evaluate import evaluate
from zfnet.training.feed import Feed
from zfnet.training.optim import reset_momentum
from zfnet.training.progress import EpochMeter, TrainingProgress
from zfnet.training.record import RunRecord
from zfnet.training.sampling import Timeline, seeded, stage_order
from zfnet.training.setup import (
    DivergedError,
    TrainingError,
    check_classes,
    check_distributed,
    check_folder,
    exclusive,
    image_names,
    is_finite,
    new_model,
    resolve_precision,
    runner,
)
from zfnet.training.state import TrainState, restore
from zfnet.training.step import StageTrainer

LOG_EVERY = 10  # steps; reading the loss waits for the device
Loader = Callable[[str, int], Images]  # (split, side at which images are kept) -> images


def train(
    config: Config,
    load_images: Loader,
    out: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    device: str | torch.device = "cpu",
    distributed: DistributedContext = SINGLE_PROCESS,
    keep_every: float = 0.0,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Network:
    """Train a network.

    Args:
        config: The run; see `zfnet.training.config`.
        load_images: Returns the images of a split ("train" or "val"), kept at a side in pixels.
        out: Folder that all processes see. It receives `log.jsonl` (one line per epoch),
            `state.safetensors` (to resume from), `snapshots/epoch-NNN.safetensors` and, at the
            end, `model.safetensors`.
        resume: Continue from the last state in `out`.
        init: Checkpoint or bundled network whose weights the run starts from.
        device: Where to train.
        distributed: The processes that share each batch.
        keep_every: Least number of seconds between two saved states. Above 0, a single process
            also saves within epochs.
        report: Receives the progress every few steps.

    Returns:
        The network in eval mode, with its recipe and accuracy in `info`.

    Raises:
        TrainingError: The run cannot start or cannot be resumed.
        DivergedError: The loss or the weights are not finite. The last saved state remains valid.
    """
    out, device = expand_path(out), torch.device(device)
    check_folder(out, resume, distributed)
    check_distributed(config, device, distributed)
    out.mkdir(parents=True, exist_ok=True)

    lock = exclusive(out) if distributed.is_main else contextlib.nullcontext()
    with lock, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        init = None if resume else init
        run = _Run(config, load_images, out, device, distributed, init, keep_every)
        run.start(resume)
        for epoch in range(run.record.progress["epoch"], run.timeline.epochs):
            run.enter_stage(epoch)
            metrics = run.train_epoch(epoch, report)
            run.evaluate(epoch, metrics)
            run.save(epoch)
        return run.finish()


class _Run:
    """A training run: what `train` sets up, and its steps."""

    def __init__(
        self,
        config: Config,
        load_images: Loader,
        out: Path,
        device: torch.device,
        distributed: DistributedContext,
        init: str | Path | None,
        keep_every: float,
    ) -> None:
        self.config, self.load_images = resolve_precision(config, device), load_images
        self.device, self.distributed = device, distributed
        self.stage_configs = stage_configs(self.config)
        self.feed = self.forward = None
        self.images = load_images("train", config.stages[0].side)
        self.model = new_model(config, self.images)
        freeze(self.model, max(stage.frozen_layers for stage in config.stages))  # raise early
        initial = initialize(self.model, init) if init is not None else None
        self.model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.replay = Replay(config.distill.labels, self.images) if config.distill.labels else None
        self.timeline = Timeline.new(self.images, config, self.replay)
        self.val = load_images("val", config.stages[0].side)
        check_classes(self.images.wnids, self.val.wnids)
        self.names = image_names(self.images, self.val)
        self.state = self._new_cycle(0)
        digests = [self.images.digest, self.val.digest]
        snapshots, writes = self.timeline.snapshots, distributed.is_main
        self.record = RunRecord(out, config, digests, snapshots, keep_every, writes, initial)

    def start(self, resume: bool) -> None:
        """Restore the last state, or write the first one, from which the first epoch can resume."""
        # Another process may still decode images; the collectives below time out sooner.
        self.distributed.gather(None)
        if resume:
            saved, progress = self.record.read(), self.record.progress
            # The state of a finished epoch is that of its cycle, even where a restart follows.
            epoch = progress["epoch"] if progress["step"] else max(progress["epoch"] - 1, 0)
            self.state = self._new_cycle(epoch)
            restore(self.record.state_file, self.state, *saved)
        else:
            self.record.save(self.state)
        self.record.write_log()

    def _new_cycle(self, epoch: int) -> TrainState:
        """Begin the cycle of an epoch, with the network's present weights."""
        optim = self.stage_configs[self.timeline.stages[epoch]].optim
        return TrainState.new(self.model, optim, self.timeline.cycles[epoch])

    def enter_stage(self, epoch: int) -> None:
        """At a stage's first epoch: restart if configured, load its images, freeze its layers."""
        number = self.timeline.stages[epoch]
        self.stage, config = self.config.stages[number], self.stage_configs[number]
        self.trainer = StageTrainer(self.stage, config, self.replay, self.distributed)
        previous = self.config.stages[self.timeline.stages[epoch - 1]] if epoch else None
        is_first = self.stage is not previous
        begins = is_first and previous is not None and not self.record.progress["step"]
        if begins and self.stage.restart:
            self.model.load_state_dict(self.state.evaluated.state_dict())
            self.state = self._new_cycle(epoch)
        if self.feed is None or is_first:
            self._load_stage()
        if self.forward is None or self.stage.frozen_layers != self.frozen_layers:
            self.frozen_layers = self.stage.frozen_layers
            freeze(self.model, self.frozen_layers)
            reset_momentum(self.state.optimizer)
            self.forward = None  # remove old DDP hooks before adding new ones
            self.forward = runner(self.model, self.config, self.distributed)

    def _load_stage(self) -> None:
        self.feed = None  # free the old images before loading others
        self.images, self.val = (self.load_images(s, self.stage.side) for s in ("train", "val"))
        if image_names(self.images, self.val) != self.names:
            message = f"the images have changed during the run; {self.record.last_state}"
            raise TrainingError(message)
        self.distributed.gather(None)  # `runner` has a short timeout; decoding may take hours
        self.feed = Feed(self.images, self.device, keep=True)

    def train_epoch(self, epoch: int, report: Callable[[TrainingProgress], None]) -> dict:
        """Train on each batch of an epoch that is left, and return the epoch's metrics."""
        assert self.feed is not None
        assert self.forward is not None
        done = self.record.progress["step"]  # steps before an interruption
        sums = self.record.progress["sums"] if done else (0.0, 0.0)
        parts, batch = self._parts(epoch)[done:], self.trainer.config.optim.batch
        meter = EpochMeter(batch, self.device, self.distributed, done, sums)
        self.record.start_clock()
        self.model.train()
        lr = loss = accuracy = speed = math.nan
        last = done + len(parts) - 1
        batches = zip(parts, self.feed.batches(parts), strict=True)
        for i, (part, (raw, y)) in enumerate(batches, done):
            step = self.timeline.first_step[epoch] + i
            lr = self.state.optimizer.param_groups[0]["lr"]
            meter.add(*self.trainer.step(self.state, self.forward, step, part, raw, y))
            if i < last:
                self.record.save_snapshot(self.state.evaluated, step + 1)
            if i % LOG_EVERY == LOG_EVERY - 1 or i == last:
                loss, accuracy, speed = meter.read()
                if not math.isfinite(loss):
                    place, last_state = f"epoch {epoch + 1}, step {i + 1}", self.record.last_state
                    raise DivergedError(f"the loss is {loss} at {place}; {last_state}")
                position = epoch + 1, self.timeline.epochs, step + 1, self.timeline.first_step[-1]
                report(TrainingProgress(*position, loss, accuracy, speed))
                saves = self.record.keep_every and self.distributed.size == 1
                if i < last and saves and self.record.is_due:
                    self.record.save_within_epoch(self.state, i + 1, meter.sums.tolist())
        error = 100 - 100 * accuracy
        return {"lr": lr, "loss": loss, "train_top1_error": error, "images_per_second": speed}

    def _parts(self, epoch: int) -> list[np.ndarray]:
        """This process's image indices in each batch of an epoch."""
        batch, generator = self.trainer.config.optim.batch, seeded(self.config.seed, epoch)
        order = stage_order(self.images, self.stage, self.config, self.replay, generator)
        batches = order[: self.timeline.steps[epoch] * batch].reshape(-1, batch)
        return [self.distributed.share(np.sort(indices)) for indices in batches]

    def evaluate(self, epoch: int, metrics: dict) -> None:
        """Evaluate, advance a plateau schedule, and append the epoch to the log."""
        evaluated = self.state.evaluated
        if not is_finite(self.model, evaluated):
            place, last_state = f"epoch {epoch + 1}", self.record.last_state
            raise DivergedError(f"weights not finite after {place}; {last_state}")
        limit = 0 if epoch == self.timeline.epochs - 1 else self.config.val_images
        options = {"precision": self.config.precision, "distributed": self.distributed}
        scores = evaluate(evaluated, self.val, size=self.stage.size, limit=limit, **options)
        if isinstance(self.state.schedule, ReduceLROnPlateau):
            self.state.schedule.step(scores.top1)
        line = {"epoch": epoch + 1, "size": self.stage.size} | metrics
        line |= {"val_top1_error": scores.top1, "val_top5_error": scores.top5, "val_n": scores.n}
        self.record.end_epoch(line)

    def save(self, epoch: int) -> None:
        """Write the epoch's snapshot, the state, and the line of the log."""
        self.record.save_snapshot(self.state.evaluated, self.timeline.first_step[epoch + 1])
        if epoch == self.timeline.epochs - 1 or self.record.is_due:
            self.record.save(self.state)
        self.record.append_log()

    def finish(self) -> Network:
        """Write the trained network with its recipe, and return it."""
        final = copy.deepcopy(self.state.evaluated).cpu().requires_grad_(True)
        final = final.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        final.info = {
            "config": to_dict(self.config),
            "data": self.images.digest,
            "training_images": len(self.images),
            "epochs": self.timeline.epochs,
            **{key: self.record.progress[key] for key in ("seconds", "log", "init")},
        }
        self.record.save_network(final)
        self.distributed.gather(None)  # no process returns before the file is written
        return final.eval()
