"""Gradient attributions: plain, averaged, integrated, and with other backward passes of ReLUs.

`unit_gradient` is the counterpart of `zfnet.project` for any unit of any layer.
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
    r"""Return the largest absolute gradient over channels.

    $M_{ij} = \max_c |\partial S / \partial x_{cij}|$ for the logit S of the class: Simonyan,
    Vedaldi & Zisserman 2014, section 3.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.

    Returns:
        `map` (N, 1, H, W) is 0 or more, in logits per unit of input; `pixels` (N, C, H, W) is the
        signed gradient.

    Raises:
        ValueError: If x or target is wrong.
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import torch, zfnet
        >>> saliency(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    g, target = gradient(model, x, target)
    return Attribution(strongest(g), g, "saliency", target)


def gradient_x_input(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Multiply the gradient by the input: each pixel's first-order share of the logit.

    $M_{ij} = \sum_c x_{cij} \, \partial S / \partial x_{cij}$: Shrikumar et al. 2016, "Not just a
    black box". A pixel of the mean gray is 0 in the input convention, so its share is 0.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.

    Returns:
        `map` (N, 1, H, W) and `pixels` (N, C, H, W) are signed, in logits.

    Raises:
        ValueError: If x or target is wrong.
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import torch, zfnet
        >>> gradient_x_input(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
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
    r"""Return the saliency of the mean gradient over noisy copies.

    $\frac{1}{n} \sum \partial S(x + \epsilon) / \partial x$: Smilkov et al. 2017, section 3. The
    noise $\epsilon$ is normal. Without noise the result is `saliency`.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
            The prediction is that of the clean image.
        samples: The number of noisy copies.
        sigma: The standard deviation of the noise, as a share of the image's range max x - min x.
        generator: The source of the noise; None uses a CPU generator with seed 0. All images get
            the same noise.
        batch: The number of copies per forward pass. It does not change the noise.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        `map` (N, 1, H, W) is the largest absolute mean gradient over channels; `pixels`
        (N, C, H, W) is the signed mean gradient.

    Raises:
        ValueError: If x, target, samples, sigma or batch is wrong.
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import torch, zfnet
        >>> smoothgrad(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8, samples=2).map.shape
        torch.Size([2, 1, 28, 28])
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma must be a share of the image's range, 0 or more, got {sigma}")
    target = predicted(model, x, target)
    generator = generator or torch.Generator().manual_seed(0)
    deviation, state = sigma * (x.amax((1, 2, 3)) - x.amin((1, 2, 3))), generator.get_state()

    def noisy(n: int, numbers: range) -> Tensor:  # one draw per copy, so that `batch` has no effect
        if numbers.start == 0:
            generator.set_state(state)
        noise = [
            torch.randn(x.shape[1:], generator=generator, dtype=x.dtype, device=generator.device)
            for _ in numbers
        ]
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
    r"""Integrate the gradient on the straight line from a baseline b to x.

    $(x - b) \int_0^1 \partial S(b + a (x - b)) / \partial x \, da$: Sundararajan, Taly & Yan 2017,
    section 3, by the midpoint rule. The attributions sum to S(x) - S(b); more steps make the sum
    more exact.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        steps: The number of points of the integral.
        baseline: A number (0 is the mean gray), one number per channel, or a tensor that
            broadcasts to x.
        batch: The number of points per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        `pixels` (N, C, H, W) and `map` (N, 1, H, W), their sum over channels, are signed, in
        logits. `residual` (N,) is S(x) - S(b) minus the sum of `pixels`.

    Raises:
        ValueError: If x, target, steps, baseline or batch is wrong.
        UnsupportedNetwork: If no gradient reaches x.

    Example:
        >>> import torch, zfnet
        >>> a = integrated_gradients(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8, steps=2)
        >>> a.map.shape, a.residual.shape
        (torch.Size([2, 1, 28, 28]), torch.Size([2]))
    """
    target = predicted(model, x, target)
    base = expand_fill(baseline, x, "baseline")

    def interpolate(n: int, numbers: range) -> Tensor:
        share = (torch.tensor(numbers, dtype=x.dtype, device=x.device) + 0.5) / steps
        return torch.lerp(base[n], x[n], share[:, None, None, None])

    pixels = (x - base).detach() * mean_gradient(model, interpolate, target, steps, batch, progress)
    with evaluating(model), torch.no_grad():
        ends = [forward(model, end)[1].gather(1, target[:, None])[:, 0] for end in (x, base)]
    residual = ends[0] - ends[1] - pixels.sum((1, 2, 3))
    return Attribution(
        pixels.sum(1, keepdim=True), pixels, "integrated_gradients", target, residual=residual
    )


def guided_backprop(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Back-propagate with ReLUs that also rectify the signal: $R' = 1[f > 0] \, 1[R > 0] \, R$.

    Springenberg et al. 2015, section 3.4: R is the signal from above, f the ReLU's input. The plain
    gradient is $1[f > 0] \, R$. ReLUs may be modules, functions, in-place, shared, or clamps at 0.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.

    Returns:
        `pixels` (N, C, H, W) is signed, as in the paper; `map` (N, 1, H, W) is its largest absolute
        value over channels, since the paper has no map.

    Raises:
        ValueError: If x or target is wrong.
        UnsupportedNetwork: If the network has nonlinearities other than ReLUs.

    Example:
        >>> import torch, zfnet
        >>> guided_backprop(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    g, target = gradient(model, x, target, rule=guide)
    return Attribution(strongest(g), g, "guided_backprop", target)


def deconvnet(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Project a class's logit with the deconvnet: each ReLU passes $R' = 1[R > 0] \, R$.

    Zeiler & Fergus, section 2.1; Springenberg et al. 2015, Fig. 1, compare it with
    back-propagation. In a chain of modules this is `zfnet.project` from a signal of 1 in the logit,
    and skips normalization on the way down. In other networks, such as ResNet, it is the gradient
    with that rule, through normalization. Without normalization both agree with Captum's
    Deconvolution.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.

    Returns:
        `pixels` (N, C, H, W) is signed; `map` (N, 1, H, W) is its largest absolute value over
        channels.

    Raises:
        ValueError: If x or target is wrong.
        UnsupportedNetwork: If the network has nonlinearities other than ReLUs.

    Example:
        >>> import torch, zfnet
        >>> deconvnet(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    try:
        t = trace(model, x)
    except UnsupportedNetwork:
        g, target = gradient(
            model, x, target, rule=lambda incoming, outgoing: incoming.clamp_min(0)
        )
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
    r"""Return the gradient, plain or guided, of one activation of each image: $\partial a / \partial x$.

    Springenberg et al. 2015, section 3.4 and Fig. 3. Units are selected as in `zfnet.project`,
    whose signal starts with the activation itself. The gradient of a silent unit is 0.

    Args:
        model: A network that is a chain of modules.
        x: Images (N, 3, H, W), as `zfnet.preprocess` returns them.
        layer: A layer with weights: conv1, ..., fc8.
        channel: A feature map, or one per result (M,).
        position: (row, column), one per result (M, 2), or None for each map's strongest position.
        guided: Whether each ReLU also drops negative signals.
        crop: Whether to return the receptive fields instead of whole images.
        batch: The number of units per backward pass.

    Returns:
        A `Projection` whose `pixels` are in units of the activation per unit of input.

    Raises:
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the network is not a chain of modules.
        IndexError: If a channel or position is out of range.
        ValueError: If x or batch is wrong.

    Example:
        >>> import torch, zfnet
        >>> unit_gradient(zfnet.mnist(), torch.rand(2, 3, 28, 28), "conv2", 5).pixels.shape
        torch.Size([2, 3, 28, 28])
    """
    p = project(model, x, layer, channel, position, crop=crop, batch=batch)
    images = x.expand(len(p.channel), *x.shape[1:])
    read, parts = feature_extractor(model, x, (layer,)), []
    with torch.inference_mode(False), torch.enable_grad():
        for rows in torch.arange(len(images), device=x.device).split(batch):
            leaf = images[rows].detach().clone().requires_grad_()
            maps = read(leaf)[layer]
            maps = maps[..., None, None] if maps.ndim == 2 else maps
            value = maps[
                torch.arange(len(rows), device=x.device),
                p.channel[rows],
                p.position[rows, 0],
                p.position[rows, 1],
            ]
            if guided:
                rectify(value, leaf, guide)
            parts.append(slope(value, leaf))
    pixels = torch.cat(parts)
    height, width = p.pixels.shape[2:]
    return replace(p, pixels=cut(pixels, p.corner, (height, width)) if crop else pixels)


def guide(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Drop the negative part of a ReLU's gradient: the rule of guided back-propagation."""
    return outgoing.clamp_min(0)


def strongest(pixels: Tensor) -> Tensor:
    """Return the largest absolute value over channels: (N, C, H, W) -> (N, 1, H, W)."""
    return pixels.abs().amax(1, keepdim=True)


def predicted(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Return the targets (N,), where None means the predicted classes."""
    with evaluating(model), torch.no_grad():
        return resolve_target(target, forward(model, x)[1])


def mean_gradient(
    model: nn.Module,
    copies: Callable[[int, range], Tensor],
    target: Tensor,
    count: int,
    batch: int,
    progress: Callable,
) -> Tensor:
    """Average the gradient over `count` copies of each image, `batch` per pass.

    `copies(n, numbers)` returns the copies of image n with these numbers.
    """
    if count < 1 or batch < 1:
        raise ValueError(
            f"the number of copies and batch must be at least 1, got {count} and {batch}"
        )
    chunks = [range(first, min(first + batch, count)) for first in range(0, count, batch)]
    jobs = [(n, numbers) for n in range(len(target)) for numbers in chunks]
    sums: list[Tensor] = []
    for n, numbers in progress(jobs, total=len(jobs), desc="gradients"):
        g, _ = gradient(model, copies(n, numbers), target[n])
        if numbers.start:
            sums[n] += g.sum(0)
        else:
            sums.append(g.sum(0))
    return torch.stack(sums) / count
