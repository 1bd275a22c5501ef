"""DeepDream: gradient ascent on a layer's activations, from a photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.attribution.base import grad_of_sum
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
    r"""Amplify a layer's activations in images: $\max_x \frac{1}{2} \overline{a(x)^2}$.

    Mordvintsev, Olah & Tyka 2015. A step is $x + r \, g / \overline{|g|}$: the gradient g is
    normalized, so images with weak activations change as much as others. Each octave enlarges the
    accumulated change, and adds it to the image at the next size.

    Args:
        model: Any network. It must accept the smaller images up to `layer`.
        x: Images (N, 3, H, W) in the network's input convention, float32 or float64.
        layer: A convolutional layer, or a module path in a network with branches.
        channel: One or several feature maps; None for all.
        octaves: The number of sizes; the last is that of x.
        zoom: The ratio of successive sizes, above 1.
        steps: The number of steps per octave.
        rate: The step size r, in units of input.
        jitter: The maximal random shift before each step, in pixels; the image wraps around.
        generator: The source of the shifts; None for seed 0.
        batch: The number of images per forward pass. It does not change an image.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images, and the layer's activation before and after.

    Raises:
        ValueError: If an argument is wrong, if the layer is dense, or if it is inactive in an
            image.
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
    if min(batch, steps, octaves) < 1 or jitter < 0:
        raise ValueError(
            f"batch, steps and octaves must be at least 1, jitter 0 or more; "
            f"got {batch}, {steps}, {octaves}, {jitter}"
        )
    if not 1 < zoom < float("inf") or not 0 < rate < float("inf"):
        raise ValueError(f"zoom must be above 1 and rate above 0, got {zoom} and {rate}")
    energy = _energy_function(model, x, layer, channel)
    generator = generator or torch.Generator().manual_seed(0)
    shifts = torch.randint(
        -jitter, jitter + 1, (octaves, steps, 2), generator=generator, device=generator.device
    ).tolist()
    sizes = [
        tuple(max(1, round(side / zoom**n)) for side in x.shape[-2:])
        for n in reversed(range(octaves))
    ]
    results = []
    batches = torch.arange(len(x), device="cpu").split(batch)
    for rows in progress(batches, total=len(batches), desc=f"dreaming of {layer}"):
        image = x[rows].detach()
        with torch.no_grad():
            before = energy(image)
        if not before.all():
            inactive = int(rows[(before == 0).cpu()][0])
            raise ValueError(
                f"{layer} is inactive in image {inactive}; choose another image or layer"
            )
        pixels = _dream_octaves(energy, image, sizes, shifts, rate)
        with torch.no_grad():
            results.append((pixels, before, energy(pixels)))
    return Dream(*(torch.cat(part) for part in zip(*results, strict=True)))


def _energy_function(
    model: nn.Module, x: Tensor, layer: str, channel: int | Sequence[int] | None
) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the mean squared activation of a layer's channels (N,)."""
    channels = None if channel is None else as_integers(channel, "channel", x.device).reshape(-1)
    read = feature_extractor(model, x, (layer,))

    def energy(images: Tensor) -> Tensor:
        maps = read(images)[layer]
        if maps.ndim != 4:
            raise ValueError(f"{layer} has no feature maps; choose a convolutional layer")
        if channels is not None:
            if not len(channels) or bool(((channels < 0) | (channels >= maps.shape[1])).any()):
                raise ValueError(
                    f"channel must be from 0 to {maps.shape[1] - 1} in {layer}, got {channel}"
                )
            maps = maps[:, channels]
        return maps.square().mean((1, 2, 3))

    return energy


def _dream_octaves(
    energy: Callable[[Tensor], Tensor],
    image: Tensor,
    sizes: Sequence[Sequence[int]],
    shifts: Sequence[Sequence[Sequence[int]]],
    rate: float,
) -> Tensor:
    """Ascend the energy at increasing sizes; return images of the last size."""
    change = image.new_zeros(*image.shape[:2], *sizes[0])
    point = image
    for size, octave_shifts in zip(sizes, shifts, strict=True):
        base = image
        if size != image.shape[-2:]:
            base = F.interpolate(image, size, mode="bilinear", antialias=True)
        point = clip(base + F.interpolate(change, size, mode="bilinear"))
        for shift in octave_shifts:
            point = _ascent_step(energy, point, shift, rate)
        change = point - base
    return point


def _ascent_step(
    energy: Callable[[Tensor], Tensor], x: Tensor, shift: Sequence[int], rate: float
) -> Tensor:
    """Take one normalized gradient step on images x, rolled by a shift."""
    with torch.enable_grad():
        point = torch.roll(x, tuple(shift), (2, 3)).requires_grad_()
        g = grad_of_sum(energy(point) / 2, point)
    step = rate * g / g.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)
    return clip(torch.roll(point.detach() + step, (-shift[0], -shift[1]), (2, 3)))
