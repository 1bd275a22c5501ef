"""Occlusion maps: cover a part of the image, and measure the network's response (Fig. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.acceleration import accelerate
from zfnet.data import no_progress
from zfnet.forward import logits_of, normalizes_by_batch, run
from zfnet.graph import Step, UnsupportedNetwork, chain, check_fits, conv_layers
from zfnet.model import evaluating
from zfnet.outputs import probability_function
from zfnet.validation import Target, check_input, check_positive, expand_fill, resolve_target


@dataclass(frozen=True, eq=False)
class Baseline:
    """The numbers of `Occlusion` for the unoccluded image: each (N,), or a scalar for one image."""

    activation: Tensor | None
    probability: Tensor
    logit: Tensor
    label: Tensor


@dataclass(frozen=True, eq=False)
class Occlusion:
    """The network's response to each position of the occluder.

    Every map is (rows, cols), or (N, rows, cols) for N images.

    Attributes:
        activation: The sum over positions of the strongest map of the last convolutional layer: the
            map whose maximum is largest in the unoccluded image. None for a network that is not a
            chain of modules.
        probability: The target's probability, by `zfnet.outputs.probability_function`.
        logit: The target's logit; its probability where the network returns probabilities.
        label: The most probable class.
        channel: The number of the strongest map, (N,) or a scalar; None if `activation` is.
        target: The class, (N,) or a scalar.
        boxes: The occluder (rows, cols, 4) as (top, left, bottom, right) in input pixels, clipped.
        baseline: The same numbers for the unoccluded image.
    """

    activation: Tensor | None
    probability: Tensor
    logit: Tensor
    label: Tensor
    channel: Tensor | None
    target: Tensor
    boxes: Tensor
    baseline: Baseline


def occlude(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    size: int = 32,
    stride: int = 8,
    fill: float | Tensor = 0.0,
    batch: int = 64,
    progress: Callable = no_progress,
) -> Occlusion:
    """Cover a square of the image at every position, and record the network's response.

    Zeiler & Fergus, section 4.2.

    Args:
        model: Any network that returns logits.
        x: Images (N, 3, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the class predicted without occluder.
        size: The side of the square, in pixels.
        stride: The distance between positions, in pixels; at most `size`.
        fill: The content of the square: a number (0 is the mean gray), one number per channel, or a
            tensor that broadcasts to x, such as a blurred copy.
        batch: The number of positions per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The maps, without a leading axis for one image.

    Raises:
        ValueError: If x, target, size, stride, fill or batch is wrong.
        UnsupportedNetwork: If the network does not return logits.

    Example:
        >>> import torch, zfnet
        >>> o = zfnet.occlude(zfnet.mnist(), torch.zeros(1, 3, 28, 28), target=8, size=8, stride=4)
        >>> o.logit.shape
        torch.Size([6, 6])
    """
    with evaluating(model), torch.no_grad():
        check_input(model, x)
        check_positive(batch=batch)
        boxes, fill = occluder_boxes(x.shape[2], x.shape[3], size, stride), expand_fill(fill, x)
        batch = 1 if normalizes_by_batch(model) else batch
        steps = _conv_chain(model, x)
        maps, logits = zip(
            *(accelerate(pass_images)(model, steps, part.clone()) for part in x.split(batch)),
            strict=True,
        )
        logits, target = torch.cat(logits), resolve_target(target, torch.cat(logits))
        channel = activation = None
        if steps:
            channel, activation = _strongest_map(torch.cat(maps))
        baseline = [activation, *measure(logits, target, probability_function(model))]
        covered = accelerate(measure_covered)(
            model,
            steps,
            x,
            fill,
            boxes.view(-1, 4).to(x.device),
            channel,
            target,
            batch=batch,
            progress=progress,
        )
    grids = [
        None if values is None else values.view(len(x), *boxes.shape[:2]) for values in covered
    ]
    if len(x) == 1:  # no leading axis for one image
        channel, target, *values = (
            None if v is None else v[0] for v in (channel, target, *grids, *baseline)
        )
        grids, baseline = values[:4], values[4:]
    return Occlusion(*grids, channel, target, boxes, Baseline(*baseline))  # pyright: ignore


def measure_covered(
    model: nn.Module,
    steps: Sequence[Step],
    x: Tensor,
    fill: Tensor,
    boxes: Tensor,
    channel: Tensor | None,
    target: Tensor,
    *,
    batch: int,
    progress: Callable,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Cover each of N images at each of P boxes, and pass it through the network.

    `steps` is empty, and `channel` None, for a network that is not a chain with convolutional
    layers. Returns activation, probability, logit and label, each (N, P), as in `Occlusion`.
    """
    jobs = [(n, part) for n in range(len(x)) for part in boxes.split(batch)]
    activations, measured, to_probabilities = [], [], probability_function(model)
    for n, part in progress(jobs, total=len(jobs), desc="occluding"):
        maps, logits = accelerate(pass_images)(model, steps, cover(x[n], part, fill[n]))
        if channel is not None:
            activations.append(maps[:, channel[n]].sum((1, 2)))
        measured.append(measure(logits, target[n].expand(len(part)), to_probabilities))
    columns = [torch.cat(column).view(len(x), len(boxes)) for column in zip(*measured, strict=True)]
    activation = torch.cat(activations).view(len(x), len(boxes)) if activations else None
    return activation, *columns  # pyright: ignore[reportReturnType]


def occluder_boxes(height: int, width: int, size: int, stride: int) -> Tensor:
    """Return the occluder's boxes (rows, cols, 4): every `stride` pixels, the last one clipped.

    Raises:
        ValueError: If the size or stride is not a whole number of at least 1, if the stride is
            above the size, which would leave pixels that are never covered, or if the occluder
            covers the whole image.
    """
    check_positive(size=size, stride=stride)
    if stride > size:
        raise ValueError(
            f"a stride of {stride} with an occluder of {size} pixels leaves pixels uncovered; "
            "choose stride <= size"
        )
    if size >= height and size >= width:
        raise ValueError(
            f"an occluder of {size} pixels covers the whole image of {height} x {width}, which "
            "makes the map constant; choose a smaller size"
        )
    tops, lefts = (
        torch.arange(max(0, -(-(n - size) // stride)) + 1, device="cpu") * stride
        for n in (height, width)
    )
    top, left = torch.meshgrid(tops, lefts, indexing="ij")
    return torch.stack(
        [top, left, (top + size).clamp_max(height), (left + size).clamp_max(width)], -1
    )


def cover(image: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Replace the pixels inside each of M boxes (M, 4) by those of `fill`: (M, 3, H, W).

    `image` is one image (3, H, W), or one per box (M, 3, H, W); `fill` is like it.
    """
    row, column = (torch.arange(n, device=image.device) for n in image.shape[-2:])
    top, left, bottom, right = (edge[:, None] for edge in boxes.T)  # (M, 1)
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[
        :, None, :
    ]
    return torch.where(inside[:, None], fill, image)


def _conv_chain(model: nn.Module, x: Tensor) -> list[Step]:
    """The network's steps; none if it is not a chain, or has no convolutional layers."""
    try:
        steps = chain(model)
    except UnsupportedNetwork:
        return []
    check_fits(steps, x)
    return steps if conv_layers(steps) else []


def pass_images(model: nn.Module, steps: Sequence[Step], x: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of the last convolutional layer, and logits (N, classes); without steps, logits twice.

    May overwrite x.
    """
    if not steps:
        logits = logits_of(model, x)
        return logits, logits
    last = conv_layers(steps)[-1]
    t = run(steps, x, keep=(last,), switches=False)
    if t.output.ndim != 2:
        raise UnsupportedNetwork(
            f"{type(model).__name__} must return logits, got {tuple(t.output.shape)}"
        )
    return t[last], t.output


def _strongest_map(maps: Tensor) -> tuple[Tensor, Tensor]:
    """From maps (N, C, H, W), the map with the largest maximum (N,), and its sum (N,)."""
    channel = maps.amax((2, 3)).argmax(1)
    return channel, maps.sum((2, 3)).gather(1, channel[:, None])[:, 0]


def measure(
    logits: Tensor, target: Tensor, to_probabilities: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Probability and logit of the target (N,), and the most probable label: each (N,)."""
    rows = torch.arange(len(logits), device=logits.device)
    return to_probabilities(logits)[rows, target], logits[rows, target], logits.argmax(1)
