"""Top-1 and top-5 error of a network, with one crop per image or the paper's ten."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.data import no_progress
from zfnet.data.dataset import Images
from zfnet.data.images import center_crop, standardize
from zfnet.data.labels import ILSVRC_2012, names_digest
from zfnet.forward import logits_of
from zfnet.model import Network, device_of, evaluating, unwrap
from zfnet.outputs import probability_function
from zfnet.training.distributed import SINGLE_PROCESS, DistributedContext
from zfnet.training.feed import Feed


@dataclass(frozen=True)
class Scores:
    """Classification errors in percent over `n` images, and the protocol: views per image."""

    top1: float
    top5: float
    n: int
    views: int


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    size: int | None = None,
    views: int = 1,
    limit: int = 0,
    batch: int = 100,
    precision: str = "float32",
    wnids: Sequence[str] | None = None,
    distributed: DistributedContext = SINGLE_PROCESS,
    progress: Callable = no_progress,
) -> Scores:
    """Measure top-1 and top-5 error.

    With one view, each image is center-cropped to 7/8 of its side, 224 of 256 pixels. On a GPU,
    convolutions in float32 are PyTorch's TF32, unless `torch.backends.cudnn.allow_tf32` is False.

    Args:
        model: Any network that returns logits (N, classes) for images (N, 3, size, size).
        images: The labeled images. Folders are matched to outputs by name, never by position.
        size: Side of the input in pixels; crops are resized to it. None takes `model.size`, or
            does not resize.
        views: 1, or the paper's 10: corners and center, with and without flip, mean probability.
        limit: How many images to evaluate, evenly spaced; 0 takes all.
        batch: Images per forward pass.
        precision: "float32" or "bfloat16" (autocast).
        wnids: The folder name of each output, in order. None takes `model.wnids`. A network without
            them has ILSVRC's sorted order if the folders are ILSVRC's 1000.
        distributed: Shares the batches among processes. Each of them gets the scores of all.
        progress: Wraps the batches, such as `tqdm`.

    Returns:
        Errors in percent.

    Raises:
        DataError: The network has no output for a folder.
        ValueError: The classes of the outputs are unknown, their number differs, or an option is
            wrong.
        UnsupportedNetwork: The network does not return logits.

    Example:
        >>> import zfnet
        >>> images = zfnet.load_scenes(8, size=64, side=73)
        >>> model = zfnet.zfnet(len(images.wnids), channels=(4,) * 5, fc_units=8, size=64)
        >>> evaluate(model, images, wnids=images.wnids).n
        8
    """
    if views not in (1, 10) or precision not in ("float32", "bfloat16"):
        raise ValueError(
            f"views must be 1 or 10, and precision 'float32' or 'bfloat16', got {views} and "
            f"{precision!r}"
        )
    wnids = _output_wnids(model, images) if wnids is None else list(wnids)
    images = images.aligned(wnids, wnids)
    n = min(limit, len(images)) if limit else len(images)
    if not n:
        raise ValueError("no images to evaluate")
    rows = np.linspace(0, len(images) - 1, n).astype(int) if limit else np.arange(n)
    parts = distributed.share([rows[start : start + batch] for start in range(0, n, batch)])
    outputs = predict(model, images, parts, size=size, views=views, precision=precision)
    bar = progress(parts, total=len(parts), desc="evaluating")
    # Read once at the end: reading synchronizes the device.
    hits = torch.zeros(2, dtype=torch.int64, device=device_of(model))
    for part, probability in zip(bar, outputs, strict=True):
        if probability.shape[1] != len(wnids):
            raise ValueError(
                f"the network has {probability.shape[1]} outputs, but there are {len(wnids)} wnids"
            )
        hits += _hits(probability, torch.from_numpy(images.labels[part]))
    top1, top5 = torch.stack(distributed.gather(hits.cpu())).sum(0).tolist()
    return Scores(100 - 100 * top1 / n, 100 - 100 * top5 / n, n, views)


def _hits(probability: Tensor, labels: Tensor) -> Tensor:
    """Count the top-1 and top-5 hits of n images, given probabilities (n, classes): (2,)."""
    labels = labels.to(probability.device)
    correct = probability.topk(min(5, probability.shape[1])).indices == labels[:, None]
    return torch.stack([correct[:, 0].sum(), correct.any(1).sum()])


def _output_wnids(model: nn.Module, images: Images) -> list[str]:
    """Return the folder name of each output."""
    model = unwrap(model)
    wnids = getattr(model, "wnids", None)
    if wnids is None and names_digest(images.wnids) == ILSVRC_2012:
        wnids = images.wnids
    if wnids is None:
        raise ValueError(
            f"{type(model).__name__} has no `wnids`: pass wnids=, the folder name of each output"
        )
    return list(wnids)  # pyright: ignore[reportArgumentType]


@torch.inference_mode()
def predict(
    model: nn.Module,
    images: Images,
    parts: Iterable[np.ndarray],
    *,
    size: int | None = None,
    views: int = 1,
    precision: str = "float32",
) -> Iterator[Tensor]:
    """Yield the probabilities of each part's images, in evaluation mode.

    Args:
        model: As in `evaluate`.
        images: The images.
        parts: Arrays (n,) of indices.
        size: As in `evaluate`.
        views: As in `evaluate`.
        precision: As in `evaluate`.

    Yields:
        (n, classes), summed over the views.
    """
    device, to_probabilities = device_of(model), probability_function(model)
    declared = getattr(unwrap(model), "size", None)
    size = size or (declared if isinstance(declared, int) else None)
    network = (
        functools.partial(forward, model)
        if isinstance(model, Network)
        else functools.partial(logits_of, model)
    )
    with evaluating(model):
        for raw, _ in Feed(images, device).batches(parts):
            squares = standardize(raw.permute(0, 3, 1, 2))
            probability = torch.zeros((), device=device)
            for crop in _views(squares, views):
                if size and crop.shape[-1] != size:
                    crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)
                crop = crop.contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    probability = probability + to_probabilities(network(crop).float())
            yield probability


def _views(squares: Tensor, views: int) -> list[Tensor]:
    """Crop squares (N, 3, S, S) to 7/8 of the side: center only, or ten crops (corners, flips)."""
    side = squares.shape[-1]
    cut = round(side * 7 / 8)
    if views == 1:
        return [center_crop(squares, cut)]
    far = side - cut
    corners = ((0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2))
    crops = [squares[..., t : t + cut, l : l + cut] for t, l in corners]
    return crops + [crop.flip(3) for crop in crops]


def forward(model: Network, x: Tensor) -> Tensor:
    """Compute the logits of images at any resolution, also at one the network was not built for.

    At another resolution the last pooling becomes adaptive, with the grid of layer 6 (6 x 6 at 224
    pixels). ReLU is applied after the pooling that follows it: output and gradient are the same,
    with a quarter of the memory.

    Args:
        model: The network.
        x: (N, 3, H, W).

    Returns:
        (N, classes).
    """
    resized = x.shape[-1] != model.size
    grid = math.isqrt(first_dense(model).in_features // model.table[-1].channels)
    modules, last = list(model), model.get_submodule(f"pool{model.table[-1].number}")
    for before, module, after in zip([None, *modules], modules, [*modules[1:], None], strict=False):
        if isinstance(module, nn.ReLU) and isinstance(after, nn.MaxPool2d):
            continue
        if module is last and resized:
            x = F.adaptive_max_pool2d(x, grid)
        else:
            x = module(x)
        if isinstance(before, nn.ReLU) and isinstance(module, nn.MaxPool2d):
            x = before(x)
    return x


def first_dense(model: Network) -> nn.Linear:
    """Return the first fully connected layer, which sees the last feature maps."""
    return next(m for m in model if isinstance(m, nn.Linear))
