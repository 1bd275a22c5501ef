"""Occlusion maps: what happens to an activation, a probability, the decision, when a part of the image is covered (Fig. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn

from zfnet.activations import (
    BATCHNORMS,
    Step,
    UnsupportedNetwork,
    apply,
    chain,
    check_input,
    conv_layers,
    evaluating,
    fitting,
    logits_of,
)
from zfnet.data import silent
from zfnet.incremental import Incremental


@dataclass(frozen=True, eq=False)
class Baseline:
    """The unoccluded image: the numbers of `Occlusion`, each (N,), or without that axis for one image."""

    activation: Tensor | None
    probability: Tensor
    logit: Tensor
    label: Tensor


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What the network says for each position of the occluder; every map is (rows, cols), or (N, rows, cols) for N images.

    `activation` is the sum over positions of the feature map of the last convolutional layer whose maximum is the
    largest in the unoccluded image, `channel` that map's number; both are None for a network without named convolutional
    layers. `probability` and `logit` are the target's, `label` the most probable class. `boxes` (rows, cols, 4) are the
    occluder's (top, left, bottom, right) in input pixels, clipped to the image. `target` is the class, or (N,) classes.
    """

    activation: Tensor | None
    probability: Tensor
    logit: Tensor
    label: Tensor
    channel: Tensor | None
    target: Tensor
    boxes: Tensor
    baseline: Baseline


def windows(height: int, width: int, size: int, stride: int) -> Tensor:
    """The occluder's boxes (rows, cols, 4): every `stride` pixels until the border is reached, the last one clipped.

    Raises ValueError for a size or stride below 1, or a stride above the size, which would leave pixels never covered.
    """
    if not isinstance(size, Integral) or not isinstance(stride, Integral) or min(size, stride) < 1:
        raise ValueError(f"size and stride must be at least 1 and whole pixels, got {size} and {stride}")
    if stride > size:
        raise ValueError(
            f"a stride of {stride} with an occluder of {size} pixels leaves pixels uncovered; choose stride <= size"
        )
    tops, lefts = (torch.arange(max(0, -(-(n - size) // stride)) + 1) * stride for n in (height, width))
    top, left = torch.meshgrid(tops, lefts, indexing="ij")
    return torch.stack([top, left, (top + size).clamp_max(height), (left + size).clamp_max(width)], -1)


def occlude(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    size: int = 32,
    stride: int = 8,
    fill: float | Tensor = 0.0,
    batch: int = 64,
    incremental: bool | None = None,
    progress: Callable = silent,
) -> Occlusion:
    """Cover a square of x (N, 3, H, W) at every position in turn, and record the network's response.

    `target` is a class, one for each image, or None: the class predicted without occluder. `size` and `stride` are in pixels.
    `fill` is what the square holds, in the network's input convention (0 is mean grey): a number, one for each
    channel, or a tensor that broadcasts to x, such as a blurred copy. Memory is bounded by that of `batch` whole images.
    Any `nn.Module` that returns logits will do. In a chain of layers only what the occluder changes is computed, exactly
    (zfnet/incremental.py), where counting operations says that this is faster; `incremental` demands it or forbids it.
    Raises ValueError for a bad x, size, stride or target, UnsupportedNetwork. Zeiler & Fergus, section 4.2.
    """
    with evaluating(model), torch.no_grad():
        check_input(model, x)
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        boxes = windows(x.shape[2], x.shape[3], size, stride)
        flat, fill = boxes.view(-1, 4).to(x.device), filling(fill, x)
        steps = _steps(model, x)
        if any(isinstance(m, BATCHNORMS) and m.running_mean is None for m in model.modules()):
            batch = 1  # it normalises by what is passed together
        parts = [_forward(model, steps, part) for part in x.split(batch)]
        logits = torch.cat([logits for _, logits in parts])
        targets = resolve_target(target, logits)
        channel = activation = None
        if steps:
            channel = torch.cat([maps.amax((2, 3)).argmax(1) for maps, _ in parts])  # (N,) the strongest map
            activation = torch.cat([maps.sum((2, 3)) for maps, _ in parts]).gather(1, channel[:, None])[:, 0]
        baseline = [activation, *_measure(logits, targets)]

        network, positions = _incremental(steps, x, fill, channel, flat, batch, incremental)
        jobs = [(n, chunk) for n in range(len(x)) for chunk in flat.split(positions)]
        columns = []
        for n, chunk in progress(jobs, total=len(jobs), desc="occluding"):
            if network:
                total, logits = network(n, chunk)
            else:
                maps, logits = _forward(model, steps, cover(x[n], chunk, fill[n]))
                total = logits[:, 0] if channel is None else maps[:, channel[n]].sum((1, 2))
            columns.append((total, *_measure(logits, targets[n].expand(len(chunk)))))

    maps = [torch.cat(column).view(len(x), *boxes.shape[:2]) for column in zip(*columns, strict=True)]
    maps = [None if channel is None else maps[0], *maps[1:]]
    if len(x) == 1:  # no leading axis for one image
        channel, targets, *rest = (None if t is None else t[0] for t in (channel, targets, *maps, *baseline))
        maps, baseline = rest[:4], rest[4:]
    return Occlusion(*maps, channel, targets, boxes, Baseline(*baseline))  # pyright: ignore[reportArgumentType]


def _incremental(
    steps: list[Step], x: Tensor, fill: Tensor, channel: Tensor | None, boxes: Tensor, batch: int, demanded: bool | None
) -> tuple[Incremental | None, int]:
    """The incremental pass and how many boxes to give it at once; None and `batch` where it is impossible or does not pay."""
    if demanded is False:
        return None, batch
    try:
        if channel is None:
            raise UnsupportedNetwork("a network that is no chain of layers needs a whole pass for each position")
        network = Incremental(steps, conv_layers(steps)[-1], x, fill, channel)
    except UnsupportedNetwork:
        if demanded:
            raise
        return None, batch
    share, positions = network.expected(boxes, batch)
    return (network, positions) if demanded or share < 1 else (None, batch)


def filling(fill: float | Tensor, x: Tensor, name: str = "fill") -> Tensor:
    """What stands for x where it is covered, as a tensor like x. Raises ValueError where it is not finite or does not fit."""
    fill = torch.as_tensor(fill, dtype=x.dtype, device=x.device)
    if fill.ndim == 1:
        fill = fill.view(-1, 1, 1)  # one value a channel
    if not fill.isfinite().all():
        raise ValueError(f"{name} holds values that are not finite")
    try:
        return fill.expand_as(x)
    except RuntimeError:
        raise ValueError(f"{name} {tuple(fill.shape)} does not broadcast to x {tuple(x.shape)}") from None


def cover(image: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """One image (3, H, W) or M (M, 3, H, W), each of M boxes (M, 4) filled in one of them from `fill`: (M, 3, H, W)."""
    row, column = (torch.arange(n, device=image.device) for n in image.shape[-2:])
    top, left, bottom, right = (edge[:, None] for edge in boxes.T)
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]
    return torch.where(inside[:, None], fill, image)


def _steps(model: nn.Module, x: Tensor) -> list[Step]:
    """The network's chain of modules; empty where it is not one, or has no convolutional layers."""
    try:
        steps = chain(model, x[:1])
    except UnsupportedNetwork:
        return []
    return steps if conv_layers(steps) else []


def _forward(model: nn.Module, steps: list[Step], batch: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of the last convolutional layer, where there are named ones, and logits (N, classes)."""
    if not steps:
        logits = logits_of(model, batch.clone(memory_format=torch.channels_last))  # it may begin in place
        return logits, logits
    batch = batch.contiguous(memory_format=torch.channels_last)  # convolutions on CPUs are faster so
    last, x, maps = conv_layers(steps)[-1], batch, batch
    for step in steps:
        with fitting(x, step):
            batch = apply(step.module, batch)
        maps = batch if step.layer == last else maps
    return maps, batch


def _measure(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probability and logit of the targets (N,), and the most probable label, from logits (N, classes): each (N,)."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits.softmax(1)[rows, targets], logits[rows, targets], logits.argmax(1)


def resolve_target(target: int | Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    """The classes (N,) int64 that a target means, for logits (N, classes): None means the predicted ones. Raises ValueError."""
    n, classes = logits.shape
    if target is None:
        return logits.argmax(1)
    try:
        target = torch.as_tensor(target, device=logits.device).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"target is a class's number, or some, not {target!r}: the network's class_index finds a name's"
        ) from None
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"target must be whole numbers, got {target.tolist()}")
    target = target.to(torch.int64)
    if len(target) not in (1, n):
        raise ValueError(f"{len(target)} targets for {n} images: give one for all, or one for each")
    if ((target < 0) | (target >= classes)).any():
        raise ValueError(f"target must be a class from 0 to {classes - 1}, got {target.tolist()}")
    return target.expand(n)
