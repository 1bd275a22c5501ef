"""Guided backpropagation and the deconvnet: gradients with a modified backward pass of ReLUs.

`unit_gradient` is the counterpart of `zfnet.project` for any unit of any layer.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from zfnet.acceleration import accelerate
from zfnet.attribution.base import Attribution, Target, grad_of_sum, gradient, rectify
from zfnet.attribution.gradients import channel_max
from zfnet.deconv import backproject
from zfnet.feature_extraction import feature_extractor
from zfnet.forward import trace
from zfnet.graph import UnsupportedNetwork
from zfnet.projection import Projection, project
from zfnet.receptive_field import cut
from zfnet.transpose import check_invertible
from zfnet.validation import at_least_float32, resolve_target


def guided_backprop(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Backpropagate through ReLUs that also rectify the gradient.

    $R' = 1[f > 0] \, 1[R > 0] \, R$ with the gradient R from above and the ReLU's input f. The
    plain gradient is $1[f > 0] \, R$. Springenberg et al. 2015, section 3.4. ReLUs may be modules,
    functions, in-place, shared, or clamps at 0.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.

    Returns:
        `pixels` (N, C, H, W) is signed, as in the paper. The paper has no map; `map` (N, 1, H, W)
        is the largest absolute value over channels.

    Raises:
        ValueError: If x or target is wrong.
        UnsupportedNetwork: If the network has nonlinearities other than ReLUs.

    Example:
        >>> import torch, zfnet
        >>> guided_backprop(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    g, target = gradient(model, x, target, rule=guided_rule)
    return Attribution(channel_max(g), g, "guided_backprop", target)


def deconvnet(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Project a class's logit with the deconvnet: each ReLU passes $R' = 1[R > 0] \, R$.

    Zeiler & Fergus, section 2.1; Springenberg et al. 2015, Fig. 1, compare it with backpropagation.
    This is `zfnet.project` of a logit of 1, which skips local response normalization. In a network
    that `zfnet.project` refuses, such as one with group normalization, it is the gradient with this
    rule. Without such normalization both equal Captum's Deconvolution.

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
        check_invertible(t.steps)
    except UnsupportedNetwork:
        g, target = gradient(model, x, target, rule=lambda above, below: above.clamp_min(0))
    else:
        assert t.logits is not None
        target = resolve_target(target, t.logits)
        signal = torch.zeros_like(t.logits).scatter_(1, target[:, None], 1.0)
        g = at_least_float32(accelerate(backproject)(t, signal))
    return Attribution(channel_max(g), g, "deconvnet", target)


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
    r"""Return the gradient of one activation per image, plain or guided: $\partial a / \partial x$.

    Springenberg et al. 2015, section 3.4 and Fig. 3. Units are selected as in `zfnet.project`,
    which starts from the activation instead of 1. The gradient of an inactive unit is 0.

    Args:
        model: A network that is a chain of modules.
        x: Images (N, 3, H, W), as `zfnet.preprocess` returns them.
        layer: A layer with weights: conv1, ..., fc8.
        channel: A feature map, or one per result (M,).
        position: (row, column), one per result (M, 2), or None for each map's strongest position.
        guided: Use guided backpropagation instead of the plain gradient.
        crop: Return receptive field patches instead of whole images.
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
    read, gradients = feature_extractor(model, x, (layer,)), []
    with torch.inference_mode(False), torch.enable_grad():
        for rows in torch.arange(len(images), device=x.device).split(batch):
            leaf = images[rows].detach().clone().requires_grad_()
            maps = read(leaf)[layer]
            maps = maps[..., None, None] if maps.ndim == 2 else maps
            row, column = p.position[rows].T
            value = maps[torch.arange(len(rows), device=x.device), p.channel[rows], row, column]
            if guided:
                rectify(value, leaf, guided_rule)
            gradients.append(grad_of_sum(value, leaf))
    pixels = torch.cat(gradients)
    height, width = p.pixels.shape[2:]
    return replace(p, pixels=cut(pixels, p.corner, (height, width)) if crop else pixels)


def guided_rule(above: Tensor, below: Tensor) -> Tensor:
    """Drop negative values of a ReLU's gradient: the rule of guided backpropagation."""
    return below.clamp_min(0)
