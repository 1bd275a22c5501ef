"""Gradient ascent: images that excite a unit, a channel, a direction or a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.attribution.base import forward
from zfnet.data import no_progress
from zfnet.feature_extraction import feature_extractor
from zfnet.graph import UnsupportedNetwork
from zfnet.model import evaluating
from zfnet.outputs import logits_of
from zfnet.synthesis.base import blur, clip, descend, pixel_range, total_variation
from zfnet.synthesis.fourier import to_frequencies, to_image
from zfnet.validation import check_input

POSITIONS = ("mean", "max", "center")
BLUR_EVERY = 4  # steps; blurring is slow, so Yosinski et al. 2015, section 3, skip steps too


@dataclass(frozen=True, eq=False)
class Ascent:
    """N images that excite their targets.

    Attributes:
        pixels: Valid images (N, 3, H, W) in the network's input convention.
        activation: The activation of each image's target (N,).
        history: The activation before each step (steps, N), without penalties.
    """

    pixels: Tensor
    activation: Tensor
    history: Tensor


@torch.inference_mode(False)  # even inside a caller's inference mode
def ascend(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence[int] | Tensor,
    *,
    layer: str | None = None,
    position: str | tuple[int, int] = "mean",
    rectified: bool = False,
    frequency: bool = False,
    colors: Tensor | None = None,
    decay: float = 0.0,
    blur_sigma: float = 0.0,
    jitter: int = 0,
    variation: float = 0.0,
    steps: int = 200,
    rate: float = 0.05,
    generator: torch.Generator | None = None,
    batch: int = 8,
    progress: Callable = no_progress,
) -> Ascent:
    r"""Optimize images that maximize an activation, with Adam.

    $\max_x S(x) - \lambda \overline{x^2} - v\,TV(x)$ with $S(x) = \langle d, a(x) \rangle$, where a
    are the activations of a layer and d is a direction. Erhan et al. 2009; for classes, Simonyan et
    al. 2014, section 2. Pixels stay valid.

    Args:
        model: Any network.
        x: The initial images (N, 3, H, W), such as zeros or noise.
        target: A channel, unit or class for all images, one per image, or directions d, (C,) or
            (N, C) float.
        layer: A layer name, or a module path in a network with branches; None for the logits.
        position: The reduction of a feature map: "mean", "max", "center", or (row, column).
        rectified: Maximize activations after the ReLU. Before it, they have a gradient even where
            the unit is inactive. Networks with branches use the output of the module.
        frequency: Optimize Fourier coefficients with the 1 / f spectrum of natural images (Olah et
            al. 2017; Mordvintsev et al. 2018).
        colors: The color matrix (3, 3) for `frequency`, as returned by `color_root`; None for the
            identity.
        decay: The weight $\lambda$ of the squared pixels.
        blur_sigma: The standard deviation of a Gaussian blur after every fourth step, in pixels; 0
            for none (Yosinski et al. 2015, section 3). Not with `frequency`.
        jitter: The maximal random shift before each step, in pixels; the image wraps around
            (Mordvintsev et al. 2015).
        variation: The weight v of the total variation (Mahendran & Vedaldi 2015).
        steps: The number of steps.
        rate: The initial learning rate, in units of input or of coefficients.
        generator: The source of the shifts; None for seed 0.
        batch: The number of images per forward pass. It does not change an image.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The images and their activations.

    Raises:
        ValueError: If an argument is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import zfnet
        >>> a = ascend(zfnet.mnist(), torch.rand(1, 3, 28, 28), 8, steps=5)
        >>> bool(a.activation > a.history[0])
        True
    """
    check_input(model, x)
    pixel_range(x)
    _check_options(
        {"batch": batch, "steps": steps},
        {"decay": decay, "blur_sigma": blur_sigma, "jitter": jitter, "variation": variation},
        frequency,
        colors,
    )
    score = _score_function(model, x, target, layer, position, rectified)
    shifts = _draw_shifts(steps, jitter, generator)
    colors = torch.eye(3, device="cpu") if colors is None else colors.clone()

    def image(point: Tensor) -> Tensor:
        return to_image(point, x.shape[-2:], colors) if frequency else point

    def after(point: Tensor, step: int) -> Tensor:
        if frequency:
            return point
        blurs = blur_sigma and step % BLUR_EVERY == BLUR_EVERY - 1
        return clip(blur(point, blur_sigma) if blurs else point)

    results = []
    for rows in torch.arange(len(x), device="cpu").split(batch):
        scores: list[Tensor] = []

        def loss(point: Tensor, step: int, rows=rows, scores=scores) -> Tensor:
            pixels = image(point)
            value = score(torch.roll(pixels, shifts[step], (2, 3)) if jitter else pixels, rows)
            scores.append(value.detach())
            penalty = decay * pixels.square().mean((1, 2, 3)) if decay else 0.0
            return penalty + (variation * total_variation(pixels) if variation else 0.0) - value

        start = to_frequencies(x[rows], colors) if frequency else clip(x[rows])
        point, _ = descend(loss, start, steps=steps, rate=rate, after=after, progress=progress)
        with torch.no_grad():
            pixels = image(point)
            results.append((pixels, score(pixels, rows), torch.stack(scores, 1)))
    pixels, activation, history = (torch.cat(part) for part in zip(*results, strict=True))
    return Ascent(pixels, activation, history.T)


def _check_options(
    counts: dict[str, int], regularizers: dict[str, float], frequency: bool, colors: Tensor | None
) -> None:
    """Raise ValueError for a wrong number, or for an option that has no effect."""
    if min(counts.values()) < 1 or min(regularizers.values()) < 0:
        values = ", ".join(f"{name}={value}" for name, value in (counts | regularizers).items())
        raise ValueError(
            f"batch and steps must be at least 1, regularizers 0 or more: got {values}"
        )
    if frequency and regularizers["blur_sigma"]:
        raise ValueError("blur_sigma applies to pixels; frequency=True is smooth without it")
    if colors is not None and not frequency:
        raise ValueError("colors requires frequency=True")


def _draw_shifts(
    steps: int, jitter: int, generator: torch.Generator | None
) -> list[tuple[int, int]]:
    """Draw a shift (rows, columns) of up to `jitter` pixels for each step."""
    generator = generator or torch.Generator().manual_seed(0)
    return torch.randint(
        -jitter, jitter + 1, (steps, 2), generator=generator, device=generator.device
    ).tolist()


def _score_function(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence[int] | Tensor,
    layer: str | None,
    position: str | tuple[int, int],
    rectified: bool,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function from images (B, 3, H, W) and their row numbers (B,) to activations (B,)."""
    if layer is None:
        with evaluating(model), torch.no_grad():
            width = forward(model, x[:1])[1].shape[1]

        def read(images: Tensor) -> Tensor:
            with evaluating(model):
                return logits_of(model, images.clone(memory_format=torch.channels_last))
    else:
        try:
            extract = feature_extractor(model, x, (layer,), rectified=rectified)
        except UnsupportedNetwork:  # not a chain: read the module's output
            extract = feature_extractor(model, x, (layer,))

        def read(images: Tensor) -> Tensor:
            return extract(images)[layer]

        with torch.no_grad():
            width = read(x[:1]).shape[1]
    d = _directions(target, len(x), width).to(x)

    def score(images: Tensor, rows: Tensor) -> Tensor:
        values = torch.einsum("nc...,nc->n...", read(images), d[rows])
        return values if values.ndim == 1 else _reduce(values, position)

    return score


def _reduce(values: Tensor, position: str | tuple[int, int]) -> Tensor:
    """Reduce maps (N, h, w) to (N,): by their mean or maximum, or at the center or a position."""
    height, width = values.shape[1:]
    if position == "mean":
        return values.mean((1, 2))
    if position == "max":
        return values.amax((1, 2))
    if position == "center":
        position = (height // 2, width // 2)
    if isinstance(position, str) or not 0 <= position[0] < height or not 0 <= position[1] < width:
        raise ValueError(
            f"position must be {', '.join(POSITIONS)}, or (row, column) in a map of "
            f"{height} x {width}, got {position!r}"
        )
    return values[:, position[0], position[1]]


def _directions(target: int | Sequence[int] | Tensor, n: int, width: int) -> Tensor:
    """Return the direction of each image's target (n, width); units are one-hot directions."""
    target = torch.as_tensor(target, device="cpu")
    if target.is_floating_point():
        if target.shape not in ((width,), (n, width)) or not target.isfinite().all():
            raise ValueError(
                f"a direction must be finite and ({width},), or ({n}, {width}) for one per image, "
                f"got {tuple(target.shape)}"
            )
        return target.expand(n, width)
    target = target.reshape(-1)
    if len(target) not in (1, n) or bool(((target < 0) | (target >= width)).any()):
        raise ValueError(
            f"target must be a unit from 0 to {width - 1}, or one per image for {n} images, "
            f"got {target.tolist()}"
        )
    return torch.nn.functional.one_hot(target.expand(n).long(), width).float()
