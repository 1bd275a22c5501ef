"""Occlusion maps: what happens to an activation, a probability, the decision, when a part of the image is covered (Fig. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.activations import Step, UnsupportedNetwork, apply, chain, check_input, conv_layers, evaluating
from zfnet.data import silent


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
    if not isinstance(size, int) or not isinstance(stride, int) or size < 1 or stride < 1:
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
    progress: Callable = silent,
) -> Occlusion:
    """Cover a square of x (N, 3, H, W) at every position in turn, and record the network's response.

    `target` is a class, one for each image, or None: the class predicted without occluder. `size` and `stride` are in pixels.
    `fill` is what the square holds, in the network's input convention (0 is mean grey): a number, one for each
    channel, or a tensor that broadcasts to x, such as a blurred copy. `batch` positions go through the network at once.
    Any `nn.Module` that returns logits will do.
    Raises ValueError for a bad x, size, stride or target. Zeiler & Fergus, section 4.2.
    """
    with evaluating(model), torch.no_grad():
        check_input(model, x)
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        boxes = windows(x.shape[2], x.shape[3], size, stride)
        respond = _responder(model, x)
        maps, logits = respond(x)
        channel = None if maps is None else maps.amax((2, 3)).argmax(1)  # (N,) the strongest map
        targets = _targets(target, logits)
        fill = _filling(fill, x)

        def measure(n: Tensor, maps: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Activation, probability, logit and label of a batch whose rows show the images n."""
            rows = torch.arange(len(logits), device=x.device)
            total = logits[:, 0] if maps is None or channel is None else maps[rows, channel[n]].sum((1, 2))
            return total, logits.softmax(1)[rows, targets[n]], logits[rows, targets[n]], logits.argmax(1)

        images = torch.arange(len(x), device=x.device)
        base = measure(images, maps, logits)
        jobs = [(n, chunk) for n in images for chunk in boxes.view(-1, 4).to(x.device).split(batch)]
        parts = []
        for n, chunk in progress(jobs, total=len(jobs), desc="occluding"):
            parts.append(measure(n.expand(len(chunk)), *respond(cover(x[n], chunk, fill[n]))))

    maps_by_position = (torch.cat(column).view(len(x), *boxes.shape[:2]) for column in zip(*parts, strict=True))
    if len(x) == 1:  # no leading axis for one image
        maps_by_position, base, targets = (m[0] for m in maps_by_position), tuple(b[0] for b in base), targets[0]
        channel = None if channel is None else channel[0]
    activation, probability, logit, label = maps_by_position
    if channel is None:
        return Occlusion(None, probability, logit, label, None, targets, boxes, Baseline(None, base[1], base[2], base[3]))
    baseline = Baseline(base[0], base[1], base[2], base[3])
    return Occlusion(activation, probability, logit, label, channel, targets, boxes, baseline)


def _filling(fill: float | Tensor, x: Tensor) -> Tensor:
    """The occluder's filling as a tensor like x. Raises ValueError where it is not finite or does not fit."""
    fill = torch.as_tensor(fill, dtype=x.dtype, device=x.device)
    if fill.ndim == 1:
        fill = fill.view(-1, 1, 1)  # one value a channel
    if not fill.isfinite().all():
        raise ValueError("fill holds values that are not finite")
    try:
        return fill.expand_as(x)
    except RuntimeError:
        raise ValueError(f"fill {tuple(fill.shape)} does not broadcast to x {tuple(x.shape)}") from None


def cover(image: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Copies of one image (3, H, W), each with one box (M, 4) filled from `fill` (3, H, W): (M, 3, H, W)."""
    row, column = (torch.arange(n, device=image.device) for n in image.shape[-2:])
    top, left, bottom, right = (edge[:, None] for edge in boxes.T)
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]
    return torch.where(inside[:, None], fill, image)


def _responder(model: nn.Module, x: Tensor) -> Callable[[Tensor], tuple[Tensor | None, Tensor]]:
    """A function from a batch to (maps of the last convolutional layer or None, logits)."""
    try:
        steps: list[Step] = chain(model, x[:1])
        last = conv_layers(steps)[-1]
    except (UnsupportedNetwork, IndexError):
        return lambda batch: (None, model(batch))

    def respond(batch: Tensor) -> tuple[Tensor | None, Tensor]:
        maps = None
        for step in steps:
            batch = apply(step.module, batch)
            maps = batch if step.layer == last else maps
        return maps, batch

    return respond


def _targets(target: int | Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    """Resolve the target to (N,) int64. Raises ValueError."""
    n, classes = logits.shape
    if target is None:
        return logits.argmax(1)
    target = torch.as_tensor(target, device=logits.device).reshape(-1)
    if target.is_floating_point():
        raise ValueError(f"target must be whole numbers, got {target.tolist()}")
    target = target.to(torch.int64)
    if len(target) not in (1, n):
        raise ValueError(f"{len(target)} targets for {n} images: give one for all, or one for each")
    if ((target < 0) | (target >= classes)).any():
        raise ValueError(f"target must be a class from 0 to {classes - 1}, got {target.tolist()}")
    return target.expand(n)
