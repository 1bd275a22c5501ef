"""The training loop: the paper's recipe (section 3) or a modern one, by configuration. Read it top to bottom.

All randomness comes from (seed, epoch, step), so a run that was killed continues from its last checkpoint bit for bit
as the uninterrupted run would have, on CPU. `zfnet train configs/imagenet.yaml` is the command; under torchrun each process
takes its share of every batch, with the crops, flips and colours that one process would have drawn for it; dropout differs.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zfnet.checkpoint import assign, initialise, read_tensors, save, write_tensors
from zfnet.data.cache import Images, locked
from zfnet.data.images import centre_crop
from zfnet.model import ARCHITECTURES, Network, PaperInput, device_of
from zfnet.training.augment import augment
from zfnet.training.config import Config, Optim, Stage, to_dict
from zfnet.training.distill import Replay, Targets, distillation_loss, mixup, targets
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.evaluate import evaluate, first_dense, forward
from zfnet.training.feed import Feed


class TrainingError(RuntimeError):
    """Training cannot go on, or cannot start. The message says why, and which checkpoint is good."""


class DivergedError(TrainingError):
    """The loss or the weights are not finite any more: the same run would end here again."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands, reported every few steps: `loss` and `accuracy` are means over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float


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
    report: Callable[[TrainingProgress], None] = lambda status: None,
) -> Network:
    """Train a network and return it, in eval mode, with its recipe and accuracy in `info`.

    `load_images("train" or "val", side)` gives the data. `out`, which all processes must see, receives `log.jsonl`
    (a line an epoch), `state.safetensors` (to resume from), `snapshots/epoch-NNN.safetensors`, and at the end
    `model.safetensors`. `resume` continues from the last state, which is kept after an epoch when `keep_every` seconds have
    passed since the one before; `init` starts from a checkpoint's weights. Raises TrainingError for a run that cannot start or
    be resumed, and DivergedError when the loss is not finite: the state of the last finished epoch stays good.
    """
    out, device = Path(out), torch.device(device)
    state_path, log_path = out / "state.safetensors", out / "log.jsonl"
    there = distributed.gather(state_path.exists())  # asked by all before one of them writes it
    if resume and not all(there):
        raise TrainingError(f"{out}: no run to resume")
    if not resume and any(there):
        raise TrainingError(f"{out} holds a run already: continue it with --resume, remove it, or choose another --out")
    check_distributed(config, device, distributed)
    out.mkdir(parents=True, exist_ok=True)

    devices = [device] if device.type == "cuda" else []
    asked, config = config, resolve_precision(config, device)
    with _alone_in(out) if distributed.is_main else contextlib.nullcontext(), torch.random.fork_rng(devices):
        torch.manual_seed(config.seed)
        images = load_images("train", config.stages[0].side)
        model = new_model(config, images)
        freeze(model, max(stage.frozen for stage in config.stages))  # too many are an error now, not hours later
        earlier = initialise(model, init) if init is not None and not resume else None
        model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        average = {k: v.clone() for k, v in model.state_dict().items()} if config.optim.ema else None
        optimizer = new_optimizer(model, config.optim)

        replay = Replay(config.distill.labels, images) if config.distill.labels else None
        epochs = sum(stage.epochs for stage in config.stages)
        drawn = [len(stage_order(images, _stage(config, epoch), config, replay, torch.Generator())) for epoch in range(epochs)]
        if min(drawn) < config.optim.batch:
            raise TrainingError(f"a batch of {config.optim.batch} is more than the {min(drawn)} images of an epoch")
        per_epoch = [count // config.optim.batch for count in drawn]
        first_step = np.cumsum([0, *per_epoch]).tolist()
        steps = first_step[-1]
        val = load_images("val", config.stages[0].side)
        check_classes(images.wnids, val.wnids)
        listed = _listed(images, val)
        distributed.gather(None)  # one machine may still decode its images; from here on the processes wait for each other
        progress = {
            "epoch": 0,
            "lr": config.optim.lr,
            "best": math.inf,
            "bad_epochs": 0,
            "seconds": 0.0,
            "log": [],
            "init": earlier,
            "data": [images.digest, val.digest],
        }
        if resume:
            progress = _restore(state_path, asked, progress["data"], model, optimizer, average)
        elif distributed.is_main:  # so that a run that is killed in its first epoch continues from these weights too
            _store(state_path, asked, progress, model, optimizer, average)
        if distributed.is_main:
            log_path.write_text("".join(json.dumps(line) + "\n" for line in progress["log"]))
        stage, feed, run, kept = config.stages[0], None, None, time.monotonic()

        for epoch in range(progress["epoch"], epochs):
            if feed is None or run is None or stage is not _stage(config, epoch):
                before, stage, feed = stage, _stage(config, epoch), None  # its memory is free before the next takes its own
                images, val = load_images("train", stage.side), load_images("val", stage.side)
                if _listed(images, val) != listed:
                    raise TrainingError(f"the images are not those that the run began with; {_good(state_path, epoch)}")
                distributed.gather(None)  # before `runner`, whose processes wait for each other, but not for hours
                feed = Feed(images, device, keep=True)
                if run is None or stage.frozen != before.frozen:
                    freeze(model, stage.frozen)
                    reset_momentum(optimizer)
                    run = None  # old DDP hooks go before new ones come
                    run = runner(model, config, distributed)
            order = stage_order(images, stage, config, replay, _generator(config.seed, epoch))
            order = order[: per_epoch[epoch] * config.optim.batch].reshape(-1, config.optim.batch)
            parts = [distributed.share(np.sort(chosen)) for chosen in order]
            began, total_loss, total_right = time.perf_counter(), torch.zeros((), device=device), torch.zeros((), device=device)
            lr, mean_loss, found, seen = progress["lr"], math.nan, 0.0, 0
            model.train()
            for i, (part, (raw, y)) in enumerate(zip(parts, feed.batches(parts), strict=True)):
                now = first_step[epoch] + i
                if config.optim.schedule == "one_cycle":
                    lr = one_cycle(now / steps, config.optim.lr, config.optim.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                torch.manual_seed(config.seed + 1_000_003 * (now + 1) + 7919 * distributed.rank)  # dropout masks
                boxes = teacher = pair = None
                if replay is not None:
                    generator = _generator(config.seed, now, 2, distributed.rank)
                    boxes, teacher = replay.batch(part, config.distill.temperature, generator)
                x = augment(raw, stage.size, config.augment, _generator(config.seed, now, 1), distributed, boxes)
                if replay is not None or config.augment.mixup:
                    share, smoothing = config.distill.weight, config.optim.label_smoothing
                    pair = targets(y, teacher, len(model.wnids), weight=share, smoothing=smoothing)
                if pair is not None and config.augment.mixup:
                    x, pair = mixup(x, pair, config.augment.mixup, (config.seed, now, 3, distributed.rank))
                loss, right = step(model, run, optimizer, x, y, config, pair)
                if stage.tied and first_dense(model).weight.requires_grad:
                    tie_places(model)
                if average is not None:
                    update_average(average, model, min(config.optim.ema, (1 + now) / (10 + now)))

                total_loss += loss
                total_right += right
                if i % 10 == 9 or i == len(parts) - 1:  # reading a number waits for the device, so not at every step
                    summed, found = distributed.sum(torch.stack([total_loss / distributed.size, total_right])).tolist()
                    mean_loss, seen = summed / (i + 1), (i + 1) * config.optim.batch
                    if not math.isfinite(mean_loss):
                        where = f"at epoch {epoch + 1}, step {i + 1}"
                        raise DivergedError(f"the loss is {mean_loss} {where}; {_good(state_path, epoch)}")
                    speed = seen / (time.perf_counter() - began)
                    report(TrainingProgress(epoch + 1, epochs, now + 1, steps, mean_loss, found / seen, speed))

            seconds = time.perf_counter() - began
            evaluated = _averaged(model, average)
            tensors = [*model.state_dict().values(), *evaluated.state_dict().values()]
            if not all(t.isfinite().all() for t in tensors):
                raise DivergedError(f"weights that are not finite after epoch {epoch + 1}; {_good(state_path, epoch)}")
            last = epoch == epochs - 1
            limit = 0 if last else config.validate
            scores = evaluate(evaluated, val, size=stage.size, limit=limit, precision=config.precision, distributed=distributed)
            if config.optim.schedule == "plateau":
                _anneal(progress, scores.top1, config.optim)
            line = {
                "epoch": epoch + 1, "size": stage.size, "lr": lr, "loss": mean_loss,
                "train_top1_error": 100 - 100 * found / seen, "val_top1_error": scores.top1,
                "val_top5_error": scores.top5, "val_n": scores.n, "images_per_second": seen / seconds,
            }  # fmt: skip
            progress["log"].append(line)
            progress["epoch"] = epoch + 1
            progress["seconds"] += time.perf_counter() - began
            if not distributed.is_main:
                continue
            if epoch + 1 in config.snapshots:
                save(evaluated, out / "snapshots" / f"epoch-{epoch + 1:03d}.safetensors")
            if last or time.monotonic() - kept >= keep_every:
                _store(state_path, asked, progress, model, optimizer, average)
                kept = time.monotonic()
            with log_path.open("a") as log:
                log.write(json.dumps(line) + "\n")

        model.requires_grad_(True)  # what the last stage froze
        final = _averaged(model, average).cpu().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        final.info = {  # `init`: the same of the run whose weights this one began with
            "config": to_dict(config), "data": images.digest, "training_images": len(images),
            "seconds": progress["seconds"], "epochs": epochs, "log": progress["log"], "init": progress.get("init"),
        }  # fmt: skip
        if distributed.is_main:
            save(final, out / "model.safetensors")
        distributed.gather(None)  # the file is there when any process returns
    return final.eval()


def resolve_precision(config: Config, device: torch.device) -> Config:
    """The config as a run on `device` uses it: `precision: auto` is bfloat16 or float32.

    A CPU with AVX2 alone emulates bfloat16: ZFNet's steps at 96 pixels took 11 and 12 times as long in it. With AVX-512's
    bfloat16 products they took 0.53 of float32's time (AMD EPYC, two cores), with AMX less.
    """
    if config.precision != "auto":
        return config
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # older releases of PyTorch cannot tell
        known = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        fast = known.get("amx_bf16", False) or known.get("avx512_bf16", False)
    return replace(config, precision="bfloat16" if fast else "float32")


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


def runner(model: Network, config: Config, distributed: DistributedContext = SINGLE_PROCESS) -> Callable[[Tensor], Tensor]:
    """The forward pass of a training step, for x (N, 3, H, W): compiled if wanted, its gradients averaged over all processes.

    BatchNorm takes its means over the whole batch, whichever process has which part.
    """
    function = torch.compile(forward, dynamic=False) if config.compile else forward
    if distributed.size == 1:
        return functools.partial(function, model)
    device = device_of(model)
    if config.model.norm == "batch":
        model = synchronised(model)
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(_Forward(model, function), ids, broadcast_buffers=False, gradient_as_bucket_view=True)


class _Forward(nn.Module):
    """`forward` as a module, which DistributedDataParallel wants."""

    def __init__(self, model: Network, function: Callable[[Network, Tensor], Tensor]):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.model, x)


def synchronised(model: Network) -> Network:
    """The network with SyncBatchNorm for BatchNorm, on the same parameters and running means: its twin for training."""
    twin = copy.copy(model)
    twin._modules = model._modules.copy()  # else the conversion would change `model`, which is folded when it is loaded
    return nn.SyncBatchNorm.convert_sync_batchnorm(twin)  # pyright: ignore[reportReturnType]


def check_distributed(config: Config, device: torch.device, distributed: DistributedContext) -> None:
    """Raise TrainingError for what the processes cannot share: an uneven batch, or BatchNorm on a CPU."""
    if config.optim.batch % distributed.size:
        raise TrainingError(f"a batch of {config.optim.batch} cannot be shared evenly by {distributed.size} processes")
    if distributed.size > 1 and config.model.norm == "batch" and device.type != "cuda":
        raise TrainingError("BatchNorm in several processes needs GPUs (SyncBatchNorm); model.norm=lrn or none does not")


def check_classes(train: Sequence[str], val: Sequence[str]) -> None:
    """Raise TrainingError where training and validation images are not of the same classes, naming them."""
    for split, missing in (("val", set(train) - set(val)), ("train", set(val) - set(train))):
        if missing:
            raise TrainingError(f"{len(missing)} classes have no folder in {split}/: {', '.join(sorted(missing)[:10])}")


def _listed(*splits: Images) -> list:
    """What the splits' images are, at whatever side they are kept."""
    return [(list(images.wnids), list(images.names)) for images in splits]


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(out / "lock", wait=False))
        except BlockingIOError:
            raise TrainingError(f"another process trains in {out}: choose another --out") from None
        yield


def stage_order(images: Images, stage: Stage, config: Config, replay: Replay | None, generator: torch.Generator) -> np.ndarray:
    """The training images of one epoch of a stage, shuffled: those of at least the stage's resolution."""
    if replay is None:
        return epoch_order(images.labels, config.data.per_class, generator)
    large = replay.at_least(stage.min_resolution)
    return large[epoch_order(images.labels[large], config.data.per_class, generator)]


def epoch_order(labels: np.ndarray, per_class: int, generator: torch.Generator) -> np.ndarray:
    """The training images of one epoch, shuffled: all, or at most `per_class` of each class, drawn anew."""
    shuffled = torch.randperm(len(labels), generator=generator).numpy()
    if not per_class:
        return shuffled
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]  # random within each class
    sorted_labels = labels[by_class]
    rank = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    kept = by_class[rank < per_class]
    return kept[torch.randperm(len(kept), generator=generator).numpy()]


@torch.no_grad()
def clip_filters(model: nn.Module, limit: float) -> None:
    """Scale each convolution filter whose RMS exceeds `limit` back to it (section 3: "crucial"); not those of frozen layers."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            rms = module.weight.pow(2).mean((1, 2, 3), keepdim=True).sqrt()
            module.weight.mul_((limit / rms.clamp_min(1e-12)).clamp_max(1))


def one_cycle(share: float, peak: float, warmup: float) -> float:
    """Learning rate at a share of the run: a linear rise from a tenth, then a cosine to zero."""
    if share < warmup:
        return peak * (0.1 + 0.9 * share / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


def freeze(model: Network, layers: int) -> None:
    """Let the first layers, so many of them, keep their weights; BatchNorm's running means go on, for they depend on the size.

    Raises TrainingError where none would be left to train.
    """
    there = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model)
    if layers >= there:
        raise TrainingError(f"frozen: {layers} of a network's {there} layers leaves none to train")
    number = 0
    for module in model:
        number += isinstance(module, (nn.Conv2d, nn.Linear))
        module.requires_grad_(number > layers)


def reset_momentum(optimizer: torch.optim.SGD) -> None:
    """Set the momentum of frozen layers to zero: one that is thawed later begins anew, not with gradients of long ago."""
    for parameter, state in optimizer.state.items():
        if not parameter.requires_grad and "momentum_buffer" in state:
            state["momentum_buffer"].zero_()


@torch.no_grad()
def tie_places(model: Network) -> None:
    """Give layer 6 one weight a map and unit, the mean over the places of the last maps: it sees each map's mean.

    After every step it is the projection onto such weights, as `clip_filters` is one. It is what makes a classifier of a
    global average pool (Lin et al. 2014, section 3.2) generalise where images are few, without another architecture.
    """
    layer = first_dense(model)
    weight = layer.weight.view(layer.out_features, model.table[-1].maps, -1)
    weight.copy_(weight.mean(2, keepdim=True).expand_as(weight))


def new_model(config: Config, images: Images) -> Network:
    """The network that a config asks for, with an output for each class of the images, and their mean image if it takes one."""
    options = {k: v for k, v in vars(config.model).items() if k != "arch"}
    try:
        model = ARCHITECTURES[config.model.arch](classes=len(images.classes), **options)
    except ValueError as error:
        raise TrainingError(f"model: {error}") from None
    model.classes, model.wnids = list(images.classes), list(images.wnids)
    shapes = copy.deepcopy(model).to("meta").eval()  # computes nothing but these
    for i, stage in enumerate(config.stages):
        try:
            forward(shapes, torch.empty(1, 3, stage.size, stage.size, device="meta"))
        except RuntimeError:
            raise TrainingError(f"stages[{i}]: images of {stage.size} pixels are too small for the network's layers") from None
    if config.model.input == "paper":  # the per-pixel mean image, over at most 10,000 training images
        chosen = np.linspace(0, len(images) - 1, min(len(images), 10_000)).astype(int)
        mean = torch.stack([images.raw(part).double().mean(0) * len(part) for part in np.array_split(chosen, 100) if len(part)])
        mean = centre_crop((mean.sum(0) / len(chosen)).permute(2, 0, 1).float(), model.size)
        layer = model.input
        assert isinstance(layer, PaperInput)
        layer.mean.copy_(mean)
    return model


def new_optimizer(model: Network, options: Optim) -> torch.optim.SGD:
    """SGD as the config has it, in one pass over memory. Weights decay; biases and BatchNorm do not."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov, fused=True)
    if options.momentum:  # of all parameters, for the fused step takes no mixture where a later stage thaws a layer
        optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in model.parameters()})
    return optimizer


def _stage(config: Config, epoch: int) -> Stage:
    for stage in config.stages:
        if epoch < stage.epochs:
            return stage
        epoch -= stage.epochs
    raise AssertionError("epoch is past the last stage")


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


def _anneal(progress: dict, error: float, options: Optim) -> None:
    """Divide the rate by 10 when validation error has not fallen for `patience` epochs: the paper did so by hand."""
    if error < progress["best"]:
        progress["best"], progress["bad_epochs"] = error, 0
        return
    progress["bad_epochs"] += 1
    if progress["bad_epochs"] >= options.patience:
        progress["lr"], progress["bad_epochs"] = progress["lr"] / 10, 0


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move the exponential moving average of a network's weights and buffers a step towards what they are."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _averaged(model: Network, average: dict[str, Tensor] | None) -> Network:
    """The network that is evaluated and released: a copy, with the averaged weights where there are any."""
    averaged = copy.deepcopy(model)
    if average is not None:
        averaged.load_state_dict(average)
    return averaged


def _store(path: Path, config: Config, progress: dict, model: Network, optimizer: torch.optim.SGD, average) -> None:
    tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.detach().cpu().contiguous()
    for name, value in (average or {}).items():
        tensors[f"average.{name}"] = value.detach().cpu().contiguous()
    write_tensors(path, tensors, {"config": to_dict(config), "progress": progress | {"best": _finite(progress["best"])}})


def _restore(path: Path, config: Config, data: list[str], model: Network, optimizer: torch.optim.SGD, average) -> dict:
    tensors, meta = read_tensors(path)
    if "progress" not in meta:
        raise TrainingError(f"{path}: a network, not the state of a run")
    now, then = json.loads(json.dumps(to_dict(config))), meta["config"]
    now["data"]["path"] = then["data"]["path"]  # the images count, not where they lie
    changed = [key for key in now if now[key] != then.get(key)]
    if changed:
        raise TrainingError(f"{path}: made with another config ({', '.join(changed)} differ); resume with the same one")
    if data != meta["progress"].get("data", data):
        raise TrainingError(f"{path}: trained on other images than these; resume with the same ones")
    assign(model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, str(path))
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
    for name in average or {}:
        average[name].copy_(tensors[f"average.{name}"])
    progress = meta["progress"]
    return progress | {"data": data, "best": math.inf if progress["best"] is None else progress["best"]}


def _good(state_path: Path, epoch: int) -> str:
    return f"the last good state is {state_path}" if epoch else "no epoch was finished"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
