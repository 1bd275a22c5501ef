"""The training loop: the paper's recipe (section 3) or a modern one, by configuration.

Read `train` first: set up, then per epoch train, evaluate and save. All random numbers come from
(seed, epoch, step), so a run that was killed resumes bit for bit on a CPU. Under torchrun each
process takes its share of every batch, with the crops, flips and colors that a single process
would draw for it. Dropout masks differ.

    zfnet train configs/imagenet.yaml --data PATH
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.checkpoint import initialize, save
from zfnet.data.cache import Images
from zfnet.data.io import expand_path
from zfnet.model import Network
from zfnet.training.augment import augment
from zfnet.training.config import Config, to_dict
from zfnet.training.distill import Replay, Targets, distillation_loss, mixup, targets
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.evaluate import evaluate, first_dense
from zfnet.training.feed import Feed
from zfnet.training.rules import anneal, clip_filters, freeze, one_cycle, reset_momentum, tie_places
from zfnet.training.setup import (
    DivergedError,
    TrainingError,
    TrainingProgress,
    check_classes,
    check_distributed,
    count_steps,
    exclusive,
    image_names,
    new_model,
    new_optimizer,
    resolve_precision,
    runner,
    seeded,
    stage_of,
    stage_order,
)
from zfnet.training.state import averaged_copy, restore, store, update_average

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
        keep_every: Least number of seconds between two saved states.
        report: Receives the progress every few steps.

    Returns:
        The network in eval mode, with its recipe and accuracy in `info`.

    Raises:
        TrainingError: The run cannot start or cannot be resumed.
        DivergedError: The loss or the weights are not finite. The last saved state stays good.
    """
    out, device = expand_path(out), torch.device(device)
    exists = distributed.gather(
        (out / "state.safetensors").exists()
    )  # before any process writes it
    if resume and not all(exists):
        raise TrainingError(f"{out}: no run to resume")
    if not resume and any(exists):
        raise TrainingError(
            f"{out} holds a run already: continue it with --resume, remove it, or choose another --out"
        )
    check_distributed(config, device, distributed)
    out.mkdir(parents=True, exist_ok=True)

    lock = exclusive(out) if distributed.is_main else contextlib.nullcontext()
    with lock, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = _Run(config, load_images, out, device, distributed, None if resume else init)
        run.start(resume)
        for epoch in range(run.progress["epoch"], run.epochs):
            run.enter_stage(epoch)
            metrics = run.train_epoch(epoch, report)
            run.evaluate(epoch, metrics)
            if distributed.is_main:
                run.save(epoch, keep_every)
        return run.finish()


class _Run:
    """One training run: what `train` sets up, and its steps."""

    def __init__(
        self,
        config: Config,
        load_images: Loader,
        out: Path,
        device: torch.device,
        distributed,
        init,
    ) -> None:
        self.requested, self.config = config, resolve_precision(config, device)
        self.load_images, self.out, self.device, self.distributed = (
            load_images,
            out,
            device,
            distributed,
        )
        self.stage, self.feed, self.forward = config.stages[0], None, None
        self.images, self.val = load_images("train", self.stage.side), None
        self.model = new_model(config, self.images)
        freeze(
            self.model, max(stage.frozen for stage in config.stages)
        )  # fails now, not hours later
        initial = initialize(self.model, init) if init is not None else None
        self.model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = (
            {k: v.clone() for k, v in self.model.state_dict().items()} if config.optim.ema else None
        )
        self.optimizer = new_optimizer(self.model, config.optim)
        self.replay = Replay(config.distill.labels, self.images) if config.distill.labels else None
        self.steps_per_epoch = count_steps(self.images, config, self.replay)
        self.first_step = np.cumsum([0, *self.steps_per_epoch]).tolist()
        self.epochs, self.steps = len(self.steps_per_epoch), self.first_step[-1]
        self.val = load_images("val", self.stage.side)
        check_classes(self.images.wnids, self.val.wnids)
        self.names = image_names(self.images, self.val)
        self.progress = {
            "epoch": 0, "lr": config.optim.lr, "best": math.inf, "bad_epochs": 0, "seconds": 0.0, "log": [],
            "init": initial, "data": [self.images.digest, self.val.digest],
        }  # fmt: skip

    def start(self, resume: bool) -> None:
        """Restore the last state, or write the first one, so that a run killed in its first epoch can resume."""
        self.distributed.gather(
            None
        )  # another machine may still decode images; collectives below time out sooner
        self.state_path, self.log_path = self.out / "state.safetensors", self.out / "log.jsonl"
        state = (self.model, self.optimizer, self.average)
        if resume:
            self.progress = restore(self.state_path, self.requested, self.progress["data"], *state)
        elif self.distributed.is_main:
            store(self.state_path, self.requested, self.progress, *state)
        if self.distributed.is_main:
            self.log_path.write_text(
                "".join(json.dumps(line) + "\n" for line in self.progress["log"])
            )
        self.saved_at = time.monotonic()

    def enter_stage(self, epoch: int) -> None:
        """Load the images and freeze the layers of the epoch's stage, where it differs from the current one."""
        previous, stage = self.stage, stage_of(self.config, epoch)
        if self.feed is not None and stage is previous:
            return
        self.stage, self.feed = stage, None  # frees the old images before the new ones are loaded
        self.images, self.val = (
            self.load_images("train", stage.side),
            self.load_images("val", stage.side),
        )
        if image_names(self.images, self.val) != self.names:
            raise TrainingError(
                f"the images are not those that the run began with; {self._last_state(epoch)}"
            )
        self.distributed.gather(None)  # `runner` has a short timeout; decoding may take hours
        self.feed = Feed(self.images, self.device, keep=True)
        if self.forward is None or stage.frozen != previous.frozen:
            freeze(self.model, stage.frozen)
            reset_momentum(self.optimizer)
            self.forward = None  # removes old DDP hooks before new ones are added
            self.forward = runner(self.model, self.config, self.distributed)

    def train_epoch(self, epoch: int, report: Callable[[TrainingProgress], None]) -> dict:
        """Train on each batch of an epoch, and return its metrics."""
        config, optim, device = self.config, self.config.optim, self.device
        assert self.feed is not None
        order = stage_order(
            self.images, self.stage, config, self.replay, seeded(config.seed, epoch)
        )
        batches = order[: self.steps_per_epoch[epoch] * optim.batch].reshape(-1, optim.batch)
        parts = [self.distributed.share(np.sort(batch)) for batch in batches]
        self.began = time.perf_counter()
        total_loss, total_correct = torch.zeros((), device=device), torch.zeros((), device=device)
        lr, mean_loss, correct, n = self.progress["lr"], math.nan, 0.0, 0
        self.model.train()
        for i, (part, (raw, y)) in enumerate(zip(parts, self.feed.batches(parts), strict=True)):
            now = self.first_step[epoch] + i
            if optim.schedule == "one_cycle":
                lr = one_cycle(now / self.steps, optim.lr, optim.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            batch_loss, batch_correct = self._train_batch(now, part, raw, y)
            total_loss += batch_loss
            total_correct += batch_correct
            if i % LOG_EVERY == LOG_EVERY - 1 or i == len(parts) - 1:
                sums = torch.stack([total_loss / self.distributed.size, total_correct])
                loss_sum, correct = self.distributed.sum(sums).tolist()
                mean_loss, n = loss_sum / (i + 1), (i + 1) * optim.batch
                if not math.isfinite(mean_loss):
                    where = f"at epoch {epoch + 1}, step {i + 1}"
                    raise DivergedError(
                        f"the loss is {mean_loss} {where}; {self._last_state(epoch)}"
                    )
                speed = n / (time.perf_counter() - self.began)
                report(
                    TrainingProgress(
                        epoch + 1, self.epochs, now + 1, self.steps, mean_loss, correct / n, speed
                    )
                )
        speed = n / (time.perf_counter() - self.began)
        error = 100 - 100 * correct / n
        return {"lr": lr, "loss": mean_loss, "train_top1_error": error, "images_per_second": speed}

    def _train_batch(
        self, now: int, part: np.ndarray, raw: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch, take step `now`, and update the averaged weights."""
        config, model, rank = self.config, self.model, self.distributed.rank
        assert self.forward is not None
        torch.manual_seed(config.seed + 1_000_003 * (now + 1) + 7919 * rank)  # dropout masks
        boxes = teacher = pair = None
        if self.replay is not None:
            generator = seeded(config.seed, now, 2, rank)
            boxes, teacher = self.replay.batch(part, config.distill.temperature, generator)
        x = augment(
            raw,
            self.stage.size,
            config.augment,
            seeded(config.seed, now, 1),
            self.distributed,
            boxes,
        )
        if self.replay is not None or config.augment.mixup:
            weight, smoothing = config.distill.weight, config.optim.label_smoothing
            pair = targets(y, teacher, len(model.wnids), weight=weight, smoothing=smoothing)
        if pair is not None and config.augment.mixup:
            x, pair = mixup(x, pair, config.augment.mixup, (config.seed, now, 3, rank))
        loss, correct = step(model, self.forward, self.optimizer, x, y, config, pair)
        if self.stage.tied and first_dense(model).weight.requires_grad:
            tie_places(model)
        if self.average is not None:
            update_average(self.average, model, min(config.optim.ema, (1 + now) / (10 + now)))
        return loss, correct

    def evaluate(self, epoch: int, metrics: dict) -> None:
        """Evaluate the averaged weights, anneal the rate, and append the epoch to the log."""
        self.evaluated = averaged_copy(self.model, self.average)
        tensors = [*self.model.state_dict().values(), *self.evaluated.state_dict().values()]
        if not all(t.isfinite().all() for t in tensors):
            raise DivergedError(
                f"weights that are not finite after epoch {epoch + 1}; {self._last_state(epoch)}"
            )
        limit = 0 if epoch == self.epochs - 1 else self.config.validate
        assert self.val is not None
        scores = evaluate(
            self.evaluated, self.val, size=self.stage.size, limit=limit, precision=self.config.precision,
            distributed=self.distributed,
        )  # fmt: skip
        if self.config.optim.schedule == "plateau":
            anneal(self.progress, scores.top1, self.config.optim)
        line = {"epoch": epoch + 1, "size": self.stage.size} | metrics
        line |= {"val_top1_error": scores.top1, "val_top5_error": scores.top5, "val_n": scores.n}
        self.progress["log"].append(line)
        self.progress["epoch"] = epoch + 1
        self.progress["seconds"] += time.perf_counter() - self.began

    def save(self, epoch: int, keep_every: float) -> None:
        """Write the epoch's snapshot, the state, and the line of the log."""
        if epoch + 1 in self.config.snapshots:
            save(self.evaluated, self.out / "snapshots" / f"epoch-{epoch + 1:03d}.safetensors")
        if epoch == self.epochs - 1 or time.monotonic() - self.saved_at >= keep_every:
            store(
                self.state_path,
                self.requested,
                self.progress,
                self.model,
                self.optimizer,
                self.average,
            )
            self.saved_at = time.monotonic()
        with self.log_path.open("a") as log:
            log.write(json.dumps(self.progress["log"][-1]) + "\n")

    def finish(self) -> Network:
        """Write the trained network with its recipe, and return it."""
        self.model.requires_grad_(True)  # the last stage may have frozen layers
        final = averaged_copy(self.model, self.average).cpu()
        final = final.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        final.info = {
            "config": to_dict(self.config), "data": self.images.digest, "training_images": len(self.images),
            "seconds": self.progress["seconds"], "epochs": self.epochs, "log": self.progress["log"],
            "init": self.progress.get("init"),  # `info` of the run that `init` names
        }  # fmt: skip
        if self.distributed.is_main:
            save(final, self.out / "model.safetensors")
        self.distributed.gather(None)  # no process returns before the file is written
        return final.eval()

    def _last_state(self, epoch: int) -> str:
        return f"the last good state is {self.state_path}" if epoch else "no epoch was finished"


def step(
    model: Network,
    run: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    config: Config,
    pair: Targets | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one step on a batch on the device; return its mean loss and the number of right answers, both left there.

    `pair` holds the targets of `zfnet.training.distill`; without it the loss is the cross-entropy with the classes y.
    """
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits = run(x).float()
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
