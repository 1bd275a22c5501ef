"""DeepDream: what a layer sees in a photograph, drawn into it: the ascent begins with an image, and names no target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.attribution.base import slope
from zfnet.data import no_progress
from zfnet.feature_extraction import feature_extractor
from zfnet.synthesis.base import clip, pixel_range
from zfnet.validation import as_integers, check_input


@dataclass(frozen=True, eq=False)
class Dream:
    """N images in which a layer's activations were amplified.

    `pixels` (N, 3, H, W) are valid images in the network's input convention; `before` and `after` (N,) are the layer's mean
    squared activation in the given images and in these.
    """

    pixels: Tensor
    before: Tensor
    after: Tensor


@torch.inference_mode(False)  # inside a caller's too
def dream(
    model: nn.Module,
    x: Tensor,
    layer: str,
    *,
    channel: int | Sequence[int] | None = None,
    octaves: int = 4,
    zoom: float = 1.4,
    steps: int = 10,
    rate: float = 0.03,
    jitter: int = 16,
    generator: torch.Generator | None = None,
    batch: int = 8,
    progress: Callable = no_progress,
) -> Dream:
    r"""Climb from images x (N, 3, H, W) to ones of larger activations: $\max_x \frac{1}{2} \overline{a(x)^2}$.

    a are a convolutional layer's maps, all or only those of `channel` (one or several numbers): what the layer sees a little of
    it comes to see more of. A step is $x + r \, g / \overline{|g|}$, g the gradient and r the `rate` in units of input, so
    that weak images move as far as strong ones; before it x shifts by up to `jitter` pixels, around the border, by `generator`
    (None: seed 0). It is done at `octaves` sizes, each `zoom` times the one before, the last that of x: what was drawn is
    enlarged and added to the image at the next size. Mordvintsev, Olah & Tyka 2015. No prior holds the pixels but their range.

    Images are in the network's input convention; layers are those of `zfnet.trace`, or module paths in networks that are no
    chain. At most `batch` images are in memory; an image comes out the same in every batch.
    Networks must take the smaller sizes up to that layer; with `octaves=1` there are none.
    Raises ValueError for bad arguments, a dense layer, sizes that a chain of modules does not take, or an image of which the
    layer says nothing; UnknownLayer, UnsupportedNetwork.
    """
    check_input(model, x)
    pixel_range(x)
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images are made in float32 or float64, not {x.dtype}")
    if min(batch, steps, octaves) < 1 or not 1 < zoom < float("inf") or jitter < 0 or not 0 < rate < float("inf"):
        raise ValueError(
            f"batch, steps and octaves must be at least 1, zoom above 1, jitter 0 or more and rate above 0; got "
            f"{batch}, {steps}, {octaves}, {zoom}, {jitter}, {rate}"
        )
    chosen = None if channel is None else as_integers(channel, "channel", x.device).reshape(-1)
    read = feature_extractor(model, x, (layer,))
    generator = generator or torch.Generator().manual_seed(0)
    shifts = torch.randint(-jitter, jitter + 1, (octaves, steps, 2), generator=generator, device=generator.device).tolist()
    sizes = [tuple(max(1, round(side / zoom**n)) for side in x.shape[-2:]) for n in reversed(range(octaves))]

    def energy(images: Tensor) -> Tensor:
        maps = read(images)[layer]
        if maps.ndim != 4:
            raise ValueError(f"{layer} has no maps: dreams are of a convolutional layer, which takes images of every size")
        if chosen is not None:
            if not len(chosen) or bool(((chosen < 0) | (chosen >= maps.shape[1])).any()):
                raise ValueError(f"channel must be of the {maps.shape[1]} of {layer}, got {channel}")
            maps = maps[:, chosen]
        return maps.square().mean((1, 2, 3))

    parts = []
    for rows in progress(torch.arange(len(x)).split(batch), total=-(-len(x) // batch), desc=f"dreaming of {layer}"):
        image = x[rows].detach()
        with torch.no_grad():
            before = energy(image)
        if not before.all():
            raise ValueError(f"{layer} is silent in image {int(rows[(before == 0).cpu()][0])}: there is nothing to amplify")
        drawn = image.new_zeros(*image.shape[:2], *sizes[0])
        for size, moves in zip(sizes, shifts, strict=True):
            base = F.interpolate(image, size, mode="bilinear", antialias=True) if size != image.shape[-2:] else image
            point = clip(base + F.interpolate(drawn, size, mode="bilinear"))
            for move in moves:
                point = amplified(energy, point, move, rate)
            drawn = point - base
        with torch.no_grad():
            parts.append((point, before, energy(point)))
    return Dream(*(torch.cat(part) for part in zip(*parts, strict=True)))


def amplified(energy: Callable[[Tensor], Tensor], x: Tensor, move: Sequence[int], rate: float) -> Tensor:
    """One step up the energy from images x, shifted by `move` meanwhile."""
    with torch.enable_grad():
        point = torch.roll(x, tuple(move), (2, 3)).requires_grad_()
        g = slope(energy(point) / 2, point)
    step = rate * g / g.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    return clip(torch.roll(point.detach() + step, (-move[0], -move[1]), (2, 3)))
