"""Gradient attributions: plain, multiplied by the input, averaged over noise, and integrated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Attribution, Target, forward, gradient
from zfnet.data import no_progress
from zfnet.model import evaluating
from zfnet.validation import at_least_float32, expand_fill, resolve_target


def saliency(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Return the largest absolute gradient over channels.

    $M_{ij} = \max_c |\partial S / \partial x_{cij}|$ for the logit S of the class. Simonyan,
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
    return Attribution(channel_max(g), g, "saliency", target)


def gradient_x_input(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Multiply the gradient by the input: each pixel's first-order contribution to the logit.

    $M_{ij} = \sum_c x_{cij} \, \partial S / \partial x_{cij}$. Shrikumar et al. 2016, "Not just a
    black box". The mean gray is 0 in the input convention, so it contributes nothing.

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
    r"""Average the gradient over noisy copies of each image.

    $\frac{1}{n} \sum \partial S(x + \epsilon) / \partial x$ with normal noise $\epsilon$. Smilkov
    et al. 2017, section 3. Without noise the result is `saliency`.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the classes predicted without noise.
        samples: The number of noisy copies.
        sigma: The standard deviation of the noise, as a share of the image's range max x - min x.
        generator: The source of the noise, the same for all images; None for seed 0.
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
    target = resolve_classes(model, x, target)
    generator = generator or torch.Generator().manual_seed(0)
    deviation, state = sigma * (x.amax((1, 2, 3)) - x.amin((1, 2, 3))), generator.get_state()

    def noisy_copies(n: int, numbers: range) -> Tensor:
        if numbers.start == 0:
            generator.set_state(state)
        noise = [  # one draw per copy, so that `batch` has no effect
            torch.randn(x.shape[1:], generator=generator, dtype=x.dtype, device=generator.device)
            for _ in numbers
        ]
        return x[n] + deviation[n] * torch.stack(noise).to(x.device)

    mean = mean_gradient(model, noisy_copies, target, samples, batch, progress)
    return Attribution(channel_max(mean), mean, "smoothgrad", target)


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
    r"""Integrate the gradient along the straight line from a baseline b to x.

    $(x - b) \int_0^1 \partial S(b + a (x - b)) / \partial x \, da$ by the midpoint rule.
    Sundararajan, Taly & Yan 2017, section 3. The attributions sum to S(x) - S(b), more exactly with
    more steps.

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
    target = resolve_classes(model, x, target)
    base = expand_fill(baseline, x, "baseline")

    def interpolate(n: int, numbers: range) -> Tensor:
        # In float32: half precision has no odd numbers above 2048.
        share = ((torch.tensor(numbers, dtype=torch.float32, device=x.device) + 0.5) / steps).to(x)
        return torch.lerp(base[n], x[n], share[:, None, None, None])

    pixels = (x - base).detach() * mean_gradient(model, interpolate, target, steps, batch, progress)
    with evaluating(model), torch.no_grad():
        ends = [forward(model, end)[1].gather(1, target[:, None])[:, 0] for end in (x, base)]
    residual = at_least_float32(ends[0]) - ends[1] - pixels.sum((1, 2, 3))
    return Attribution(
        pixels.sum(1, keepdim=True), pixels, "integrated_gradients", target, residual=residual
    )


def channel_max(pixels: Tensor) -> Tensor:
    """Return the largest absolute value over the channels of (N, C, H, W): (N, 1, H, W)."""
    return pixels.abs().amax(1, keepdim=True)


def resolve_classes(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Return the target of each image (N,); the predicted class for None."""
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
    """Average the gradient of the target's logit over several variants of each image.

    Args:
        model: Any network that returns logits.
        copies: Maps an image number and a range of copy numbers to these copies (B, C, H, W).
        target: The class of each image (N,).
        count: The number of copies per image.
        batch: The number of copies per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        Gradients (N, C, H, W).
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
