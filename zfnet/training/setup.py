"""What a training run is set up from: network, optimizer, forward pass, sampling, and their checks."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zfnet.data.cache import Images
from zfnet.data.images import center_crop
from zfnet.data.io import file_lock
from zfnet.model import ARCHITECTURES, Network, device_of
from zfnet.normalization import PaperInput
from zfnet.training.config import Config, Optim, Stage
from zfnet.training.distill import Replay
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.evaluate import forward


class TrainingError(RuntimeError):
    """Training cannot start or continue. The message says why, and which state is good."""


class DivergedError(TrainingError):
    """The loss or the weights are not finite. The same run would diverge again."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run. `loss` and `accuracy` are means over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float


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


def check_distributed(
    config: Config, device: torch.device, distributed: DistributedContext
) -> None:
    """Raise TrainingError for what the processes cannot share: an uneven batch, or BatchNorm on a CPU."""
    if config.optim.batch % distributed.size:
        raise TrainingError(
            f"a batch of {config.optim.batch} cannot be shared evenly by {distributed.size} processes"
        )
    if distributed.size > 1 and config.model.norm == "batch" and device.type != "cuda":
        raise TrainingError(
            "BatchNorm in several processes needs GPUs (SyncBatchNorm); model.norm=lrn or none does not"
        )


def check_classes(train: Sequence[str], val: Sequence[str]) -> None:
    """Raise TrainingError where training and validation images are not of the same classes, naming them."""
    for split, missing in (("val", set(train) - set(val)), ("train", set(val) - set(train))):
        if missing:
            raise TrainingError(
                f"{len(missing)} classes have no folder in {split}/: {', '.join(sorted(missing)[:10])}"
            )
    if len(set(train)) < 2:
        raise TrainingError(
            f"training needs at least two classes, got {', '.join(train) or 'none'}; "
            "with one class every network is always right"
        )


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
            raise TrainingError(
                f"stages[{i}]: images of {stage.size} pixels are too small for the network's layers"
            ) from None
    if (
        config.model.input == "paper"
    ):  # the per-pixel mean image, over at most 10,000 training images
        chosen = np.linspace(0, len(images) - 1, min(len(images), 10_000)).astype(int)
        mean = torch.stack(
            [
                images.raw(part).double().mean(0) * len(part)
                for part in np.array_split(chosen, 100)
                if len(part)
            ]
        )
        mean = center_crop((mean.sum(0) / len(chosen)).permute(2, 0, 1).float(), model.size)
        layer = model.input
        assert isinstance(layer, PaperInput)
        layer.mean.copy_(mean)
    return model


def new_optimizer(model: Network, options: Optim) -> torch.optim.SGD:
    """SGD as the config has it, in one pass over memory. Weights decay; biases and BatchNorm do not."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov, fused=True
    )
    if (
        options.momentum
    ):  # of all parameters, for the fused step takes no mixture where a later stage thaws a layer
        optimizer.state.update(
            {p: {"momentum_buffer": torch.zeros_like(p)} for p in model.parameters()}
        )
    return optimizer


def runner(
    model: Network, config: Config, distributed: DistributedContext = SINGLE_PROCESS
) -> Callable[[Tensor], Tensor]:
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
    return DistributedDataParallel(
        _Forward(model, function), ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )


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
    twin._modules = (
        model._modules.copy()
    )  # else the conversion would change `model`, which is folded when it is loaded
    return nn.SyncBatchNorm.convert_sync_batchnorm(twin)  # pyright: ignore[reportReturnType]


def stage_order(
    images: Images, stage: Stage, config: Config, replay: Replay | None, generator: torch.Generator
) -> np.ndarray:
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


def count_steps(images: Images, config: Config, replay: Replay | None) -> list[int]:
    """The steps of each epoch, which may draw another number of images in each stage."""
    epochs = range(sum(stage.epochs for stage in config.stages))
    counts = [
        len(stage_order(images, stage_of(config, e), config, replay, torch.Generator()))
        for e in epochs
    ]
    if min(counts) < config.optim.batch:
        raise TrainingError(
            f"a batch of {config.optim.batch} is more than the {min(counts)} images of an epoch"
        )
    return [count // config.optim.batch for count in counts]


def stage_of(config: Config, epoch: int) -> Stage:
    for stage in config.stages:
        if epoch < stage.epochs:
            return stage
        epoch -= stage.epochs
    raise AssertionError("epoch is past the last stage")


def image_names(*splits: Images) -> list:
    """What the splits' images are, at whatever side they are kept."""
    return [(list(images.wnids), list(images.names)) for images in splits]


@contextlib.contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(out / "lock", wait=False))
        except BlockingIOError:
            raise TrainingError(f"another process trains in {out}: choose another --out") from None
        yield


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose seed depends on each of the numbers."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    )
