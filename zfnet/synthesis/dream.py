"""DeepDream: gradient ascent on a layer's activations, from a photograph."""

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
    """N images in which a layer's activations are amplified.

    Attributes:
        pixels: Valid images (N, 3, H, W) in the network's input convention.
        before: The layer's mean squared activation (N,) in the input images.
        after: The same (N,) in `pixels`.
    """

    pixels: Tensor
    before: Tensor
    after: Tensor


@torch.inference_mode(False)  # even inside a caller's inference mode
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
    r"""Change images so that a layer's activations grow: $\max_x \frac{1}{2} \overline{a(x)^2}$.

    Mordvintsev, Olah & Tyka 2015. A step is $x + r \, g / \overline{|g|}$ with the gradient g and
    the rate r, so that weak images move as far as strong ones. Each octave enlarges what was drawn,
    and adds it to the image at the next size.

    Args:
        model: Any network. It must take the smaller sizes up to `layer`.
        x: Images (N, 3, H, W) in the network's input convention, float32 or float64.
        layer: A convolutional layer as in `zfnet.trace`, or a module's path.
        channel: One or several maps; None takes all.
        octaves: The number of sizes; the last is that of x.
        zoom: The ratio of successive sizes, above 1.
        steps: The number of steps per octave.
        rate: The step r, in units of input.
        jitter: The largest shift before a step, in pixels; the image wraps around.
        generator: The source of the shifts; None uses a CPU generator with seed 0.
        batch: The number of images per forward pass. It does not change an image.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images, and the layer's activation before and after.

    Raises:
        ValueError: If an argument is wrong, or the layer is dense or silent in an image.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import torch, zfnet
        >>> d = dream(zfnet.mnist(), torch.rand(1, 3, 28, 28), "conv1", octaves=1, steps=2)
        >>> bool(d.after > d.before)
        True
    """
    check_input(model, x)
    pixel_range(x)
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images must be float32 or float64, got {x.dtype}")
    if (
        min(batch, steps, octaves) < 1
        or not 1 < zoom < float("inf")
        or jitter < 0
        or not 0 < rate < float("inf")
    ):
        raise ValueError(
            f"batch, steps and octaves must be at least 1, zoom above 1, jitter 0 or more and rate above 0; got "
            f"{batch}, {steps}, {octaves}, {zoom}, {jitter}, {rate}"
        )
    chosen = None if channel is None else as_integers(channel, "channel", x.device).reshape(-1)
    read = feature_extractor(model, x, (layer,))
    generator = generator or torch.Generator().manual_seed(0)
    shifts = torch.randint(
        -jitter, jitter + 1, (octaves, steps, 2), generator=generator, device=generator.device
    ).tolist()
    sizes = [
        tuple(max(1, round(side / zoom**n)) for side in x.shape[-2:])
        for n in reversed(range(octaves))
    ]

    def energy(images: Tensor) -> Tensor:
        maps = read(images)[layer]
        if maps.ndim != 4:
            raise ValueError(f"{layer} has no maps; choose a convolutional layer")
        if chosen is not None:
            if not len(chosen) or bool(((chosen < 0) | (chosen >= maps.shape[1])).any()):
                raise ValueError(
                    f"channel must be from 0 to {maps.shape[1] - 1} in {layer}, got {channel}"
                )
            maps = maps[:, chosen]
        return maps.square().mean((1, 2, 3))

    parts = []
    for rows in progress(
        torch.arange(len(x)).split(batch), total=-(-len(x) // batch), desc=f"dreaming of {layer}"
    ):
        image = x[rows].detach()
        with torch.no_grad():
            before = energy(image)
        if not before.all():
            raise ValueError(
                f"{layer} is silent in image {int(rows[(before == 0).cpu()][0])}; choose another image or layer"
            )
        drawn = image.new_zeros(*image.shape[:2], *sizes[0])
        for size, moves in zip(sizes, shifts, strict=True):
            base = (
                F.interpolate(image, size, mode="bilinear", antialias=True)
                if size != image.shape[-2:]
                else image
            )
            point = clip(base + F.interpolate(drawn, size, mode="bilinear"))
            for move in moves:
                point = amplify(energy, point, move, rate)
            drawn = point - base
        with torch.no_grad():
            parts.append((point, before, energy(point)))
    return Dream(*(torch.cat(part) for part in zip(*parts, strict=True)))


def amplify(
    energy: Callable[[Tensor], Tensor], x: Tensor, move: Sequence[int], rate: float
) -> Tensor:
    """Return images x after one step up the energy, shifted by `move` before the step."""
    with torch.enable_grad():
        point = torch.roll(x, tuple(move), (2, 3)).requires_grad_()
        g = slope(energy(point) / 2, point)
    step = rate * g / g.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    return clip(torch.roll(point.detach() + step, (-move[0], -move[1]), (2, 3)))
