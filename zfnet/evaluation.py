"""How often a network is right: top-1 and top-5 error over decoded images, by one crop or the paper's ten."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.data import silent
from zfnet.data.cache import Images
from zfnet.data.feed import Feed
from zfnet.data.images import centre_crop, standardise
from zfnet.forward import evaluating
from zfnet.model import Network, device_of
from zfnet.parallel import ALONE, Team


@dataclass(frozen=True)
class Scores:
    """Classification errors in percent over `n` images, and the protocol: views per image."""

    top1: float
    top5: float
    n: int
    views: int


def evaluate(
    model: Network,
    images: Images,
    *,
    size: int | None = None,
    views: int = 1,
    limit: int = 0,
    batch: int = 100,
    precision: str = "float32",
    team: Team = ALONE,
    progress: Callable = silent,
) -> Scores:
    """Top-1 and top-5 error in percent: the central 7/8 of each kept square, or the mean probability of ten crops.

    `views=10` is the paper's: corners and centre, with and without flip. On a GPU convolutions in float32 are PyTorch's TF32,
    unless `torch.backends.cudnn.allow_tf32` is False, as the commands set it. `limit` looks at that many images, evenly spaced.
    A `team` shares the batches, and each of its processes gets all their scores. Folders are matched to outputs by name.
    Raises DataError for a folder that the network has no output for, ValueError for another number of views or precision.
    """
    if views not in (1, 10) or precision not in ("float32", "bfloat16"):
        raise ValueError(f"views must be 1 or 10, and precision 'float32' or 'bfloat16', got {views} and {precision!r}")
    images = images.aligned(model.wnids, model.classes)
    chosen = np.arange(len(images)) if not limit else np.linspace(0, len(images) - 1, min(limit, len(images))).astype(int)
    if not len(chosen):
        raise ValueError("no images to evaluate")
    parts = team.share([chosen[start : start + batch] for start in range(0, len(chosen), batch)])
    hits = torch.zeros(2, dtype=torch.int64, device=device_of(model))  # read once: reading waits for the device
    predicted = predict(model, images, parts, size=size, views=views, precision=precision)
    for part, probability in zip(progress(parts, total=len(parts), desc="evaluating"), predicted, strict=True):
        labels = torch.from_numpy(images.labels[part]).to(probability.device)
        right = probability.topk(min(5, probability.shape[1])).indices == labels[:, None]
        hits += torch.stack([right[:, 0].sum(), right.any(1).sum()])
    first, five = torch.stack(team.gather(hits.cpu())).sum(0).tolist()
    n = len(chosen)
    return Scores(100 - 100 * first / n, 100 - 100 * five / n, n, views)


@torch.inference_mode()
def predict(
    model: Network,
    images: Images,
    parts: Iterable[np.ndarray],
    *,
    size: int | None = None,
    views: int = 1,
    precision: str = "float32",
) -> Iterator[Tensor]:
    """The probabilities (n, classes) of each part's n images, summed over the views; as `evaluate`, in evaluation mode."""
    device, size = device_of(model), size or model.size
    with evaluating(model):
        for raw, _ in Feed(images, device).batches(parts):
            squares = standardise(raw.permute(0, 3, 1, 2))
            probability = torch.zeros((), device=device)
            for crop in _views(squares, views):
                if crop.shape[-1] != size:
                    crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)
                crop = crop.contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    probability = probability + forward(model, crop).float().softmax(1)
            yield probability


def _views(squares: Tensor, views: int) -> list[Tensor]:
    """The central 7/8 of each square, 224 of 256, or the same size at the corners and the centre, as it is and flipped."""
    side = squares.shape[-1]
    cut = round(side * 7 / 8)
    if views == 1:
        return [centre_crop(squares, cut)]
    far = side - cut
    corners = ((0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2))
    crops = [squares[..., t : t + cut, l : l + cut] for t, l in corners]
    return crops + [crop.flip(3) for crop in crops]


def forward(model: Network, x: Tensor) -> Tensor:
    """Logits of a batch, which may be smaller than the network's input: then the last pooling is an adaptive one.

    Its grid is the one that layer 6 was built for (6 x 6 at 224), so one set of weights serves every resolution. Where a
    pooling follows a ReLU, it is done first: the maximum of the rectified is the rectified maximum, on a quarter of the
    memory, with the same gradient.
    """
    resized = x.shape[-1] != model.size
    grid = math.isqrt(first_dense(model).in_features // model.table[-1].maps)
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
    """The first fully connected layer, on the last maps."""
    return next(m for m in model if isinstance(m, nn.Linear))
