"""Gradient ascent: images that excite a unit, a channel, a direction or a class, and what keeps them from being noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.attribution.base import forward
from zfnet.data import no_progress
from zfnet.feature_extraction import feature_extractor
from zfnet.forward import evaluating
from zfnet.graph import UnsupportedNetwork
from zfnet.synthesis.base import blurred, clip, descend, pixel_range, total_variation
from zfnet.validation import check_input

PLACES = ("mean", "max", "centre")  # what becomes of a map's positions
BLUR_EVERY = 4  # steps: Yosinski et al. 2015, section 3, blur every few, for it costs
EDGE = 0.01  # how near to black and white a start may be in frequency space: the sigmoid never reaches them


@dataclass(frozen=True, eq=False)
class Ascent:
    """N images that excite their targets.

    `pixels` (N, 3, H, W) are valid images in the network's input convention, `activation` (N,) what each target says to its
    image, and `history` (steps, N) what it said before each step, penalties taken off.
    """

    pixels: Tensor
    activation: Tensor
    history: Tensor


@torch.inference_mode(False)  # inside a caller's too
def ascend(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence[int] | Tensor,
    *,
    layer: str | None = None,
    at: str | tuple[int, int] = "mean",
    rectified: bool = False,
    frequency: bool = False,
    colours: Tensor | None = None,
    decay: float = 0.0,
    blur: float = 0.0,
    jitter: int = 0,
    variation: float = 0.0,
    steps: int = 200,
    rate: float = 0.05,
    generator: torch.Generator | None = None,
    batch: int = 8,
    progress: Callable = no_progress,
) -> Ascent:
    r"""Climb from x (N, 3, H, W), zeros or noise, to images that excite: $\max_x S(x) - \lambda \overline{x^2} - v\,TV(x)$.

    $S(x) = \langle d, a(x) \rangle$: a the activations of `layer` before their ReLU, which has no slope where it is silent,
    unless `rectified`; in a network that is no chain the output of that module; None means the logits. `target` is a channel,
    unit or class, one for all or for each image, or directions d (C,) or (N, C). Of a map, `at` takes the "mean" or "max" over
    places, the "centre", or (row, column). Erhan et al. 2009; classes, with `decay` $\lambda$: Simonyan et al. 2014, section 2.

    `blur`: sigma in pixels, every fourth step (Yosinski et al. 2015, section 3). `jitter`: x shifts by up to that many pixels a
    step, around the border, by `generator` (None: seed 0; Mordvintsev et al. 2015). `variation` v (Mahendran & Vedaldi 2015).
    `frequency`: ascent on Fourier coefficients, each of the size that it has in natural images, 1/f, in `colours` (3, 3), such
    as `color_root` measures (Olah et al. 2017; Mordvintsev et al. 2018). Adam; pixels stay valid; `batch` bounds memory.
    Raises ValueError for bad arguments, UnknownLayer, UnsupportedNetwork.
    """
    check_input(model, x)
    pixel_range(x)
    if min(batch, steps) < 1 or min(decay, blur, jitter, variation) < 0:
        given = f"{batch}, {steps}, {decay}, {blur}, {jitter}, {variation}"
        raise ValueError(f"batch and steps must be at least 1, regularisers 0 or more: {given}")
    if frequency and blur:
        raise ValueError(
            "blur acts on pixels: leave it out with frequency=True, which is smooth by itself"
        )
    if colours is not None and not frequency:
        raise ValueError("colours belong to frequency=True")
    score = scorer(model, x, target, layer, at, rectified)
    generator = generator or torch.Generator().manual_seed(0)
    shifts = torch.randint(
        -jitter, jitter + 1, (steps, 2), generator=generator, device=generator.device
    ).tolist()
    size = x.shape[-2:]
    colours = torch.eye(3) if colours is None else colours.clone()

    def image(point: Tensor) -> Tensor:
        return to_image(point, size, colours) if frequency else point

    def after(point: Tensor, step: int) -> Tensor:
        if frequency:
            return point
        return clip(blurred(point, blur) if blur and step % BLUR_EVERY == BLUR_EVERY - 1 else point)

    parts = []
    for rows in torch.arange(len(x)).split(batch):
        said: list[Tensor] = []

        def loss(point: Tensor, step: int, rows=rows, said=said) -> Tensor:
            pixels = image(point)
            value = score(torch.roll(pixels, shifts[step], (2, 3)) if jitter else pixels, rows)
            said.append(value.detach())
            held = decay * pixels.square().mean((1, 2, 3)) if decay else 0.0
            return held + (variation * total_variation(pixels) if variation else 0.0) - value

        start = to_frequencies(x[rows], colours) if frequency else clip(x[rows])
        point, _ = descend(loss, start, steps=steps, rate=rate, after=after, progress=progress)
        with torch.no_grad():
            pixels = image(point)
            parts.append((pixels, score(pixels, rows), torch.stack(said, 1)))
    pixels, activation, history = (torch.cat(part) for part in zip(*parts, strict=True))
    return Ascent(pixels, activation, history.T)


def scorer(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence[int] | Tensor,
    layer: str | None,
    at: str | tuple[int, int],
    rectified: bool,
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function from images and their row numbers to what each one's target says to it: (B, 3, H, W), (B,) -> (B,)."""
    if layer is None:
        with evaluating(model), torch.no_grad():
            width = forward(model, x[:1])[1].shape[1]

        def read(images: Tensor) -> Tensor:
            with evaluating(model):
                return model(images.clone(memory_format=torch.channels_last))
    else:
        try:
            found = feature_extractor(model, x, (layer,), rectified=rectified)
        except UnsupportedNetwork:
            found = feature_extractor(
                model, x, (layer,)
            )  # no chain of modules: what the module puts out

        def read(images: Tensor) -> Tensor:
            return found(images)[layer]

        with torch.no_grad():
            width = read(x[:1]).shape[1]
    d = directions(target, len(x), width).to(x)

    def score(images: Tensor, rows: Tensor) -> Tensor:
        values = torch.einsum("nc...,nc->n...", read(images), d[rows])
        return values if values.ndim == 1 else reduce(values, at)

    return score


def reduce(values: Tensor, at: str | tuple[int, int]) -> Tensor:
    """What becomes of maps (N, h, w): their mean, maximum, centre or one place, (N,). Raises ValueError."""
    height, width = values.shape[1:]
    row, column = (height // 2, width // 2) if isinstance(at, str) else at
    if (isinstance(at, str) and at not in PLACES) or not (
        0 <= row < height and 0 <= column < width
    ):
        raise ValueError(
            f"at must be {', '.join(PLACES)} or a place in a map of {height} x {width}, got {at!r}"
        )
    return (
        values.mean((1, 2))
        if at == "mean"
        else values.amax((1, 2))
        if at == "max"
        else values[:, row, column]
    )


def directions(target: int | Sequence[int] | Tensor, n: int, width: int) -> Tensor:
    """The directions (n, width) that a target means: a unit is the direction of its own axis. Raises ValueError."""
    target = torch.as_tensor(target)
    if target.is_floating_point():
        if target.shape not in ((width,), (n, width)) or not target.isfinite().all():
            raise ValueError(
                f"a direction must be finite and ({width},), or ({n}, {width}): one for each image; got {tuple(target.shape)}"
            )
        return target.expand(n, width)
    target = target.reshape(-1)
    if len(target) not in (1, n) or bool(((target < 0) | (target >= width)).any()):
        raise ValueError(
            f"target must be one of {width} units, or one for each of {n} images, got {target.tolist()}"
        )
    return torch.nn.functional.one_hot(target.expand(n).long(), width).float()


def amplitudes(size: Sequence[int]) -> Tensor:
    """How large a natural image's Fourier coefficients are: 1/f for f in cycles a pixel, one cycle a side at least."""
    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    return 1 / torch.hypot(rows, columns).clamp_min(1 / max(size))


def to_image(point: Tensor, size: Sequence[int], colours: Tensor) -> Tensor:
    r"""Valid images (N, 3, H, W) of coefficients (N, 3, H, W // 2 + 1, 2): $\sigma(C \, F^{-1} (z / f))$, black to white."""
    plain = torch.fft.irfft2(
        torch.view_as_complex(point) * amplitudes(size).to(point), s=tuple(size), norm="ortho"
    )
    low, high = pixel_range(plain)
    mixed = torch.einsum("dc,nchw->ndhw", colours.to(point), plain)
    return low + (high - low) * mixed.sigmoid()


def to_frequencies(x: Tensor, colours: Tensor) -> Tensor:
    """The coefficients of images (N, 3, H, W), the inverse of `to_image`; pixels within EDGE of black or white move there."""
    low, high = pixel_range(x)
    logit = torch.logit(((x - low) / (high - low)).clamp(EDGE, 1 - EDGE))
    plain = torch.einsum("dc,nchw->ndhw", torch.linalg.inv(colours).to(x), logit)
    return torch.view_as_real(
        torch.fft.rfft2(plain, norm="ortho") / amplitudes(x.shape[-2:]).to(x)
    ).contiguous()


def color_root(x: Tensor) -> Tensor:
    r"""How the colours of images (N, 3, H, W) go together: the square root $C$ of their covariance, (3, 3), largest at 1.

    $C C^T$ is proportional to the covariance of red, green and blue over pixels: mostly grey, some blue against yellow.
    Olah et al. 2017 draw images in such colours. Raises ValueError where there are no two pixels that differ.
    """
    pixel_range(x)
    flat = x.transpose(0, 1).flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    if not values.max() > 0:
        raise ValueError("all pixels have one colour: their covariance is 0")
    root = vectors * values.clamp_min(1e-6 * float(values.max())).sqrt() @ vectors.T
    return (root / root.abs().max()).to(x)
