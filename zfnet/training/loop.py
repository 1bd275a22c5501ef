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
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zfnet.checkpoint import initialize, save
from zfnet.data.dataset import Images
from zfnet.data.io import expand_path
from zfnet.model import Network
from zfnet.training import sampling, setup
from zfnet.training.augment import augment
from zfnet.training.config import Config, stage_configs, to_dict
from zfnet.training.constraints import freeze, share_fc6
from zfnet.training.distill import Replay
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.evaluate import evaluate, first_dense
from zfnet.training.feed import Feed
from zfnet.training.optim import reset_momentum
from zfnet.training.progress import EpochMeter, TrainingProgress
from zfnet.training.setup import DivergedError, TrainingError
from zfnet.training.state import RunFiles, TrainState, read_state, restore
from zfnet.training.step import blend, draw_labels, train_step

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
    setup.check_folder(out, resume, distributed)
    setup.check_distributed(config, device, distributed)
    out.mkdir(parents=True, exist_ok=True)

    lock = setup.exclusive(out) if distributed.is_main else contextlib.nullcontext()
    with lock, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = _Run(config, load_images, out, device, distributed, None if resume else init)
        run.start(resume)
        for epoch in range(run.progress["epoch"], run.epochs):
            run.enter_stage(epoch)
            metrics = run.train_epoch(epoch, keep_every, report)
            run.evaluate(epoch, metrics)
            if distributed.is_main:
                run.save(epoch, keep_every)
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
    ) -> None:
        self.requested, self.config = config, setup.resolve_precision(config, device)
        self.load_images, self.device, self.distributed = load_images, device, distributed
        self.files = RunFiles(out, config)
        self.configs = stage_configs(self.config)
        self.stage_numbers = sampling.stage_numbers(config)
        self.feed = self.forward = None
        self.images = load_images("train", config.stages[0].side)
        self.model = setup.new_model(config, self.images)
        freeze(self.model, max(stage.frozen_layers for stage in config.stages))  # raise early
        initial = initialize(self.model, init) if init is not None else None
        self.model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.replay = Replay(config.distill.labels, self.images) if config.distill.labels else None
        self.steps_per_epoch = sampling.count_steps(self.images, config, self.replay)
        self.cycle_steps = sampling.cycle_steps(config, self.steps_per_epoch)
        self.first_step = np.cumsum([0, *self.steps_per_epoch]).tolist()
        self.epochs, self.steps = len(self.steps_per_epoch), self.first_step[-1]
        self.snapshots = sampling.snapshot_steps(config.snapshots, self.first_step)
        self.val = load_images("val", config.stages[0].side)
        setup.check_classes(self.images.wnids, self.val.wnids)
        self.names = setup.image_names(self.images, self.val)
        self.state = self._new_cycle(0)
        data = [self.images.digest, self.val.digest]
        self.progress = {"epoch": 0, "step": 0, "sums": [0.0, 0.0], "seconds": 0.0, "log": []}
        self.progress |= {"init": initial, "data": data}

    def start(self, resume: bool) -> None:
        """Restore the last state, or write the first one, from which the first epoch can resume."""
        # Another process may still decode images; the collectives below time out sooner.
        self.distributed.gather(None)
        if resume:
            saved = read_state(self.files.state, self.requested, self.progress["data"])
            self.progress = saved[1]["progress"]
            # The state of a finished epoch is that of its cycle, even where a restart follows.
            within = self.progress.setdefault("step", 0) > 0
            self.state = self._new_cycle(max(self.progress["epoch"] - (not within), 0))
            restore(self.files.state, self.state, *saved)
        elif self.distributed.is_main:
            self.files.save(self.progress, self.state)
        if self.distributed.is_main:
            self.files.write_log(self.progress["log"])

    def _new_cycle(self, epoch: int) -> TrainState:
        """Begin the cycle of an epoch, with the network's present weights."""
        optim = self.configs[self.stage_numbers[epoch]].optim
        return TrainState.new(self.model, optim, self.cycle_steps[epoch])

    def enter_stage(self, epoch: int) -> None:
        """At a stage's first epoch: restart if configured, load its images, freeze its layers."""
        number = self.stage_numbers[epoch]
        self.stage, self.stage_config = self.config.stages[number], self.configs[number]
        previous = self.config.stages[self.stage_numbers[epoch - 1]] if epoch else None
        is_first = self.stage is not previous
        begins = is_first and previous is not None and not self.progress["step"]
        if begins and self.stage.restart:
            self.model.load_state_dict(self.state.evaluated.state_dict())
            self.state = self._new_cycle(epoch)
        if self.feed is None or is_first:
            self._load_stage(epoch)
        if self.forward is None or self.stage.frozen_layers != self.frozen_layers:
            self.frozen_layers = self.stage.frozen_layers
            freeze(self.model, self.frozen_layers)
            reset_momentum(self.state.optimizer)
            self.forward = None  # remove old DDP hooks before adding new ones
            self.forward = setup.runner(self.model, self.config, self.distributed)

    def _load_stage(self, epoch: int) -> None:
        self.feed = None  # free the old images before loading others
        self.images, self.val = (self.load_images(s, self.stage.side) for s in ("train", "val"))
        if setup.image_names(self.images, self.val) != self.names:
            raise TrainingError(f"the images have changed during the run; {self._last(epoch)}")
        self.distributed.gather(None)  # `runner` has a short timeout; decoding may take hours
        self.feed = Feed(self.images, self.device, keep=True)

    def train_epoch(
        self, epoch: int, keep_every: float, report: Callable[[TrainingProgress], None]
    ) -> dict:
        """Train on each batch of an epoch that is left, and return the epoch's metrics."""
        assert self.feed is not None
        batch, generator = self.stage_config.optim.batch, sampling.seeded(self.config.seed, epoch)
        order = sampling.stage_order(self.images, self.stage, self.config, self.replay, generator)
        batches = order[: self.steps_per_epoch[epoch] * batch].reshape(-1, batch)
        parts = [self.distributed.share(np.sort(indices)) for indices in batches]
        done = self.progress["step"]  # steps before an interruption
        sums = self.progress["sums"] if done else (0.0, 0.0)
        meter = EpochMeter(batch, self.device, self.distributed, done, sums)
        parts = parts[done:]
        self.epoch_start = time.perf_counter()
        self.model.train()
        lr = loss = accuracy = speed = math.nan
        last = done + len(parts) - 1
        batches = zip(parts, self.feed.batches(parts), strict=True)
        for i, (part, (raw, y)) in enumerate(batches, done):
            step, lr = self.first_step[epoch] + i, self.state.optimizer.param_groups[0]["lr"]
            meter.add(*self._train_batch(step, part, raw, y))
            if i < last:
                self._save_snapshot(step + 1)
            if i % LOG_EVERY == LOG_EVERY - 1 or i == last:
                loss, accuracy, speed = meter.read()
                if not math.isfinite(loss):
                    place = f"epoch {epoch + 1}, step {i + 1}"
                    raise DivergedError(f"the loss is {loss} at {place}; {self._last(epoch)}")
                position = epoch + 1, self.epochs, step + 1, self.steps
                report(TrainingProgress(*position, loss, accuracy, speed))
                if i < last and keep_every and self.distributed.size == 1:
                    self._save_within_epoch(i + 1, meter, keep_every)
        error = 100 - 100 * accuracy
        return {"lr": lr, "loss": loss, "train_top1_error": error, "images_per_second": speed}

    def _train_batch(
        self, step: int, part: np.ndarray, raw: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take a step of the run on images (N, S, S, 3) uint8 with indices and classes (N,)."""
        config, state = self.stage_config, self.state
        assert self.forward is not None
        dropout_seed = config.seed + 1_000_003 * (step + 1) + 7919 * self.distributed.rank
        torch.manual_seed(dropout_seed)
        boxes, teacher = draw_labels(self.replay, part, step, config, self.distributed)
        generator = sampling.seeded(config.seed, step, 1)
        x = augment(raw, self.stage.size, config.augment, generator, self.distributed, boxes)
        x, pair = blend(x, y, teacher, len(self.model.wnids), step, config, self.distributed)
        loss, correct = train_step(self.model, self.forward, state.optimizer, x, y, config, pair)
        if self.stage.shared_fc6 and first_dense(self.model).weight.requires_grad:
            share_fc6(self.model)
        if not isinstance(state.schedule, ReduceLROnPlateau):
            state.schedule.step()
        if state.average is not None:
            state.average.update_parameters(self.model)
        return loss, correct

    def evaluate(self, epoch: int, metrics: dict) -> None:
        """Evaluate, advance a plateau schedule, and append the epoch to the log."""
        evaluated = self.state.evaluated
        if not setup.is_finite(self.model, evaluated):
            raise DivergedError(f"weights not finite after epoch {epoch + 1}; {self._last(epoch)}")
        limit = 0 if epoch == self.epochs - 1 else self.config.val_images
        options = {"precision": self.config.precision, "distributed": self.distributed}
        scores = evaluate(evaluated, self.val, size=self.stage.size, limit=limit, **options)
        if isinstance(self.state.schedule, ReduceLROnPlateau):
            self.state.schedule.step(scores.top1)
        line = {"epoch": epoch + 1, "size": self.stage.size} | metrics
        line |= {"val_top1_error": scores.top1, "val_top5_error": scores.top5, "val_n": scores.n}
        self.progress["log"].append(line)
        self.progress |= {"epoch": epoch + 1, "step": 0}
        self._count_seconds()

    def save(self, epoch: int, keep_every: float) -> None:
        """Write the epoch's snapshot, the state, and the line of the log."""
        self._save_snapshot(self.first_step[epoch + 1])
        if epoch == self.epochs - 1 or self.files.age() >= keep_every:
            self.files.save(self.progress, self.state)
        self.files.append_log(self.progress["log"][-1])

    def _save_snapshot(self, step: int) -> None:
        if step in self.snapshots and self.distributed.is_main:
            save(self.state.evaluated, self.files.snapshot(self.snapshots[step]))

    def _save_within_epoch(self, step: int, meter: EpochMeter, keep_every: float) -> None:
        """Save the state after `step` steps of an epoch, where the last one is old enough."""
        if self.files.age() >= keep_every:
            self.progress |= {"step": step, "sums": meter.sums.tolist()}
            self._count_seconds()
            self.files.save(self.progress, self.state)

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.progress["seconds"] += now - self.epoch_start
        self.epoch_start = now

    def finish(self) -> Network:
        """Write the trained network with its recipe, and return it."""
        final = copy.deepcopy(self.state.evaluated).cpu().requires_grad_(True)
        final = final.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        final.info = {
            "config": to_dict(self.config),
            "data": self.images.digest,
            "training_images": len(self.images),
            "epochs": self.epochs,
            # `init` is the `info` of the network that the run started from.
            **{key: self.progress[key] for key in ("seconds", "log", "init")},
        }
        if self.distributed.is_main:
            save(final, self.files.out / "model.safetensors")
        self.distributed.gather(None)  # no process returns before the file is written
        return final.eval()

    def _last(self, epoch: int) -> str:
        return f"the last good state is {self.files.state}" if epoch else "no epoch was finished"
