"""Attributions from the gradient of a class's logit: plain, averaged, integrated, and with another backward pass of ReLUs.

And of any unit of any layer, beside the deconvnet's projection of it: `unit_gradient`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Attribution, Target, forward, gradient, rectify, slope
from zfnet.data import no_progress
from zfnet.feature_extraction import feature_extractor
from zfnet.forward import evaluating, trace
from zfnet.graph import UnsupportedNetwork
from zfnet.projection import Projection, project, project_signal
from zfnet.receptive_field import cut
from zfnet.validation import expand_fill, resolve_target


def saliency(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""How much the class's logit changes with each pixel: $M_{ij} = \max_c |\partial S / \partial x_{cij}|$.

    Simonyan, Vedaldi & Zisserman 2014, section 3. `x` (N, C, H, W), `target` a class, one for each image, or None: the
    predicted one. `map` (N, 1, H, W) is 0 or more, in logits per unit of input; `pixels` (N, C, H, W) is the signed gradient.
    Any `nn.Module` that returns logits will do. Raises ValueError for a bad x or target, UnsupportedNetwork.
    """
    g, target = gradient(model, x, target)
    return Attribution(strongest(g), g, "saliency", target)


def gradient_x_input(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""The first-order share of each pixel in the logit: $M_{ij} = \sum_c x_{cij} \, \partial S / \partial x_{cij}$.

    Shrikumar et al. 2016, "Not just a black box". `map` and `pixels` are signed, in logits. A pixel of the mean grey, which
    is 0 in the input convention, gets 0 whatever the network makes of it. Arguments and errors as `saliency`.
    """
    g, target = gradient(model, x, target)
    pixels = g * x.detach()
    return Attribution(pixels.sum(1, keepdim=True), pixels, "gradient_x_input", target)


def smoothgrad(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    samples: int = 50,
    sigma: float = 0.15,
    generator: torch.Generator | None = None,
    batch: int = 8,
    progress: Callable = no_progress,
) -> Attribution:
    r"""The saliency of the mean gradient over noisy copies: $\frac{1}{n} \sum \partial S(x + \epsilon) / \partial x$.

    Smilkov et al. 2017, section 3. The noise $\epsilon$ is normal, its deviation `sigma` times the range max x - min x of the
    image, from `generator` (None: one on the CPU, seed 0), and the same for every image and every `batch`, the number of
    copies that live at once. The class is that of the clean image. `map` is the maximum of the absolute mean over channels, as
    of `saliency`, to which it comes down without noise. Other arguments as there. Raises ValueError also for samples or batch
    below 1, or a sigma below 0 or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma is a share of the image's range, 0 or more, got {sigma}")
    target = predicted(model, x, target)
    generator = generator or torch.Generator().manual_seed(0)
    deviation, start = sigma * (x.amax((1, 2, 3)) - x.amin((1, 2, 3))), generator.get_state()

    def noisy(n: int, numbers: range) -> Tensor:  # drawn one by one: so the size of a batch changes nothing
        if numbers.start == 0:
            generator.set_state(start)
        noise = [torch.randn(x.shape[1:], generator=generator, dtype=x.dtype, device=generator.device) for _ in numbers]
        return x[n] + deviation[n] * torch.stack(noise).to(x.device)

    mean = mean_gradient(model, noisy, target, samples, batch, progress)
    return Attribution(strongest(mean), mean, "smoothgrad", target)


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: float | Tensor = 0.0,
    batch: int = 8,
    progress: Callable = no_progress,
) -> Attribution:
    r"""The gradient along the straight way from a baseline b: $(x - b) \int_0^1 \partial S(b + a (x - b)) / \partial x \, da$.

    Sundararajan, Taly & Yan 2017, section 3; the integral by the midpoint rule with `steps` points, of which `batch` live at
    once. `baseline` is a number (0 is the mean grey), one for each channel, or a tensor that broadcasts to x. `pixels` and
    `map`, their sum over channels, are signed, in logits. They sum to S(x) - S(b), the more exactly the more steps:
    `residual` (N,) is what the sum lacks. Other arguments as `saliency`.
    Raises ValueError also for steps or batch below 1, or a baseline that does not fit.
    """
    target = predicted(model, x, target)
    base = expand_fill(baseline, x, "baseline")

    def on_the_way(n: int, numbers: range) -> Tensor:
        share = (torch.tensor(numbers, dtype=x.dtype, device=x.device) + 0.5) / steps
        return torch.lerp(base[n], x[n], share[:, None, None, None])

    pixels = (x - base).detach() * mean_gradient(model, on_the_way, target, steps, batch, progress)
    with evaluating(model), torch.no_grad():
        ends = [forward(model, end)[1].gather(1, target[:, None])[:, 0] for end in (x, base)]
    residual = ends[0] - ends[1] - pixels.sum((1, 2, 3))
    return Attribution(pixels.sum(1, keepdim=True), pixels, "integrated_gradients", target, residual=residual)


def guided_backprop(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Back-propagation that each ReLU also rectifies: it sends down $R' = 1[f > 0] \, 1[R > 0] \, R$.

    The gradient is $1[f > 0] \, R$. Springenberg et al. 2015, section 3.4: R is the signal that comes from above, f the
    ReLU's input. `pixels` is signed, as the paper shows it; `map` is its maximum of the absolute over channels, for the paper
    has none. ReLUs may be modules, functions, in place, used many times, or clamps at 0. Arguments as `saliency`.
    Raises UnsupportedNetwork also for other nonlinearities, which have no such rule.
    """
    g, target = gradient(model, x, target, rule=guide)
    return Attribution(strongest(g), g, "guided_backprop", target)


def deconvnet(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""The deconvnet of a class's logit: each ReLU rectifies the signal alone, $R' = 1[R > 0] \, R$, whatever came up.

    Zeiler & Fergus, section 2.1, as Springenberg et al. 2015, Fig. 1, set it beside back-propagation. In a chain of layers it
    is the project's own deconvnet from a signal of 1 in the logit (`project` seeds it with an activation), which skips
    normalisation on the way down; in other networks, such as ResNet, it is the gradient with that rule, through
    normalisations as they are. Without normalisation both are the same, and equal Captum's Deconvolution. `pixels` is signed,
    `map` its maximum of the absolute over channels. Arguments and errors as `guided_backprop`.
    """
    try:
        t = trace(model, x)
    except UnsupportedNetwork:
        g, target = gradient(model, x, target, rule=lambda incoming, outgoing: incoming.clamp_min(0))
    else:
        assert t.logits is not None
        target = resolve_target(target, t.logits)
        g = project_signal(t, torch.zeros_like(t.logits).scatter_(1, target[:, None], 1.0))
    return Attribution(strongest(g), g, "deconvnet", target)


def unit_gradient(
    model: nn.Module,
    x: Tensor,
    layer: str,
    channel: int | Tensor,
    position: tuple[int, int] | Tensor | None = None,
    *,
    guided: bool = True,
    crop: bool = False,
    batch: int = 16,
) -> Projection:
    r"""The gradient of one activation of each image in its pixels, or guided back-propagation of it, as a `Projection`.

    What `zfnet.project` shows by the deconvnet: the same units, chosen alike (`channel`, `position`, `crop` as there), their
    gradient $\partial a / \partial x$ in the place of its signal. `guided`: each ReLU on the way also drops a negative signal,
    Springenberg et al. 2015, section 3.4 and Fig. 3; a silent unit has neither. Networks are chains of modules, as for
    `project`. `pixels` is in units of the activation per unit of input, where `project` begins with the activation itself. At
    most `batch` units are passed back at once.
    Raises UnknownLayer, UnsupportedNetwork, IndexError, ValueError as `zfnet.project`.
    """
    p = project(model, x, layer, channel, position, crop=crop, batch=batch)
    images = x.expand(len(p.channel), *x.shape[1:])
    read, parts = feature_extractor(model, x, (layer,)), []
    with torch.inference_mode(False), torch.enable_grad():
        for rows in torch.arange(len(images), device=x.device).split(batch):
            leaf = images[rows].detach().clone().requires_grad_()
            maps = read(leaf)[layer]
            maps = maps[..., None, None] if maps.ndim == 2 else maps
            value = maps[torch.arange(len(rows), device=x.device), p.channel[rows], p.position[rows, 0], p.position[rows, 1]]
            if guided:
                rectify(value, leaf, guide)
            parts.append(slope(value, leaf))
    pixels = torch.cat(parts)
    height, width = p.pixels.shape[2:]
    return replace(p, pixels=cut(pixels, p.corner, (height, width)) if crop else pixels)


def guide(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Guided back-propagation's rule for a ReLU, of the signal before and after its mask: what is negative is dropped."""
    return outgoing.clamp_min(0)


def strongest(pixels: Tensor) -> Tensor:
    """The maximum of the absolute over channels: (N, C, H, W) -> (N, 1, H, W)."""
    return pixels.abs().amax(1, keepdim=True)


def predicted(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """The targets (N,), where None means the classes that the network predicts. Raises ValueError."""
    with evaluating(model), torch.no_grad():
        return resolve_target(target, forward(model, x)[1])


def mean_gradient(
    model: nn.Module, copies: Callable[[int, range], Tensor], target: Tensor, count: int, batch: int, progress: Callable
) -> Tensor:
    """The mean gradient over `count` copies of each image, `batch` at once; `copies(n, numbers)` gives some of image n's."""
    if count < 1 or batch < 1:
        raise ValueError(f"the number of copies and of those at once must be at least 1, got {count} and {batch}")
    chunks = [range(first, min(first + batch, count)) for first in range(0, count, batch)]
    jobs = [(n, numbers) for n in range(len(target)) for numbers in chunks]
    sums: list[Tensor] = []
    for n, numbers in progress(jobs, total=len(jobs), desc="gradients"):
        found, _ = gradient(model, copies(n, numbers), target[n])
        if numbers.start:
            sums[n] += found.sum(0)
        else:
            sums.append(found.sum(0))
    return torch.stack(sums) / count
