"""Setup of a training run: network, forward pass, and checks before the first step."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zfnet.data.dataset import Images
from zfnet.data.images import center_crop
from zfnet.data.io import file_lock
from zfnet.model import ARCHITECTURES, Network, device_of
from zfnet.normalization import PaperInput
from zfnet.training.config import Config, stage_configs
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.evaluate import forward

MEAN_IMAGES = 10_000  # images that a mean image is computed from


class TrainingError(RuntimeError):
    """Training cannot start or continue. The message says why, and which state is valid."""


class DivergedError(TrainingError):
    """The loss or the weights are not finite. The same run would diverge again."""


def is_finite(*models: nn.Module) -> bool:
    """Whether all parameters and buffers are finite."""
    return all(t.isfinite().all() for model in models for t in model.state_dict().values())


def resolve_precision(config: Config, device: torch.device) -> Config:
    """Replace `precision: auto` by bfloat16 where the device is faster with it, else by float32.

    A CPU with AVX2 only emulates bfloat16: ZFNet's steps at 96 pixels took 11 to 12 times as long
    as in float32. With AVX-512's bfloat16 products they took 0.53 of the time (AMD EPYC, two
    cores), with AMX less.

    Args:
        config: The run.
        device: Where it trains.

    Example:
        >>> resolve_precision(Config(precision="float32"), torch.device("cpu")).precision
        'float32'
    """
    if config.precision != "auto":
        return config
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # older releases of PyTorch have no get_capabilities
        features = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        fast = features.get("amx_bf16", False) or features.get("avx512_bf16", False)
    return replace(config, precision="bfloat16" if fast else "float32")


def check_distributed(
    config: Config, device: torch.device, distributed: DistributedContext
) -> None:
    """Check that the processes can share the run.

    Args:
        config: The run.
        device: Where it trains.
        distributed: The processes.

    Raises:
        TrainingError: A batch cannot be divided evenly, or BatchNorm would need GPUs.
    """
    for batch in (stage.optim.batch for stage in stage_configs(config)):
        if batch % distributed.size:
            raise TrainingError(
                f"a batch of {batch} cannot be divided evenly among {distributed.size} processes"
            )
    if distributed.size > 1 and config.model.norm == "batch" and device.type != "cuda":
        raise TrainingError(
            "BatchNorm in several processes needs GPUs (SyncBatchNorm); use model.norm=lrn or none"
        )


def check_folder(out: Path, resume: bool, distributed: DistributedContext) -> None:
    """Check on each machine that a run's folder has a state to resume, or none.

    Args:
        out: The folder.
        resume: Whether the run continues.
        distributed: The processes.

    Raises:
        TrainingError: There is no state to resume, or a new run would overwrite one.
    """
    exists = distributed.gather((out / "state.safetensors").exists())
    if resume and not all(exists):
        raise TrainingError(f"{out}: no run to resume")
    if not resume and any(exists):
        raise TrainingError(
            f"{out} already has a run: continue it with --resume, remove it, or choose another "
            "--out"
        )


def check_classes(train: Sequence[str], val: Sequence[str]) -> None:
    """Check that training and validation images have the same classes.

    Args:
        train: The class folders of the training images.
        val: The class folders of the validation images.

    Raises:
        TrainingError: A class has no folder in one of the splits, or there is only one class.
    """
    for split, missing in (("val", set(train) - set(val)), ("train", set(val) - set(train))):
        if missing:
            names = ", ".join(sorted(missing)[:10])
            raise TrainingError(f"{len(missing)} classes have no folder in {split}/: {names}")
    if len(set(train)) < 2:
        raise TrainingError(
            f"training needs at least two classes, got {', '.join(train) or 'none'}; "
            "with one class every network is always right"
        )


def new_model(config: Config, images: Images) -> Network:
    """Build the network of a configuration, with one output per class of the images.

    With `model.input: paper`, it subtracts the mean of the images.

    Args:
        config: The run.
        images: The training images.

    Raises:
        TrainingError: The options do not fit the architecture, or a stage's images are too small.
    """
    options = {k: v for k, v in vars(config.model).items() if k != "arch"}
    try:
        model = ARCHITECTURES[config.model.arch](classes=len(images.classes), **options)
    except ValueError as error:
        raise TrainingError(f"model: {error}") from None
    model.classes, model.wnids = list(images.classes), list(images.wnids)
    _check_sizes(config, model)
    if isinstance(layer := next(iter(model)), PaperInput):
        layer.mean.copy_(_mean_image(images, model.size))
    return model


def _check_sizes(config: Config, model: Network) -> None:
    """Raise TrainingError for a stage with images too small for the network."""
    shapes = copy.deepcopy(model).to("meta").eval()  # propagates shapes only
    for i, stage in enumerate(config.stages):
        try:
            forward(shapes, torch.empty(1, 3, stage.size, stage.size, device="meta"))
        except RuntimeError:
            raise TrainingError(
                f"stages[{i}]: images of {stage.size} pixels are too small for the network's layers"
            ) from None


def _mean_image(images: Images, size: int) -> Tensor:
    """Return the per-pixel mean (3, size, size) of evenly spaced images, in [0, 255]."""
    chosen = np.linspace(0, len(images) - 1, min(len(images), MEAN_IMAGES)).astype(int)
    parts = [part for part in np.array_split(chosen, 100) if len(part)]
    sums = torch.stack([images.raw(part).double().mean(0) * len(part) for part in parts])
    mean = sums.sum(0) / len(chosen)  # (S, S, 3)
    return center_crop(mean.permute(2, 0, 1).float(), size)


def runner(
    model: Network, config: Config, distributed: DistributedContext = SINGLE_PROCESS
) -> Callable[[Tensor], Tensor]:
    """Return the forward pass of a training step.

    Several processes average their gradients, and BatchNorm normalizes over the whole batch.

    Args:
        model: The network.
        config: Whether to compile.
        distributed: The processes that share each batch.

    Returns:
        A function from images (N, 3, H, W) to logits (N, classes).
    """
    function = torch.compile(forward, dynamic=False) if config.compile else forward
    if distributed.size == 1:
        return functools.partial(function, model)
    device = device_of(model)
    if config.model.norm == "batch":
        model = with_sync_batchnorm(model)
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        _Forward(model, function), ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )


class _Forward(nn.Module):
    """`forward` as a module, which DistributedDataParallel requires."""

    def __init__(self, model: Network, function: Callable[[Network, Tensor], Tensor]):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (N, classes) of images (N, 3, H, W)."""
        return self.function(self.model, x)


def with_sync_batchnorm(model: Network) -> Network:
    """Return the network with SyncBatchNorm for BatchNorm, on the same parameters and buffers."""
    twin = copy.copy(model)
    twin._modules = model._modules.copy()  # the conversion would replace the modules of `model`
    return nn.SyncBatchNorm.convert_sync_batchnorm(twin)  # pyright: ignore[reportReturnType]


def image_names(*splits: Images) -> list:
    """Identify the images of the splits, independent of the side at which they are kept."""
    return [(list(images.wnids), list(images.names)) for images in splits]


@contextlib.contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Lock a run's folder.

    Args:
        out: The folder.

    Raises:
        TrainingError: Another process trains in it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(out / "lock", wait=False))
        except BlockingIOError:
            raise TrainingError(f"another process trains in {out}: choose another --out") from None
        yield
