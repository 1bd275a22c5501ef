"""Class activation maps: weighted sums of feature maps (CAM, Grad-CAM, Grad-CAM++)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.attribution.base import Attribution, Target
from zfnet.attribution.gradients import channel_max
from zfnet.attribution.guided import guided_backprop
from zfnet.attribution.maps import maps_and_gradient, maps_and_logits
from zfnet.graph import UnsupportedNetwork
from zfnet.model import unwrap
from zfnet.validation import resolve_target


def cam(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Weight the last feature maps by the class's weights: $M_c = \sum_k w_k^c A_k$.

    Zhou et al. 2016, section 2. The network must end in global average pooling and one dense layer,
    as ResNet does, or have such a head as `model.cam_head`: weight (classes, C) and bias. The
    spatial mean of `coarse` plus the bias is the logit of that head.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.

    Returns:
        `coarse` (N, 1, h, w) is signed, in logits, not rectified; `map` (N, 1, H, W) is `coarse`,
        upsampled bilinearly.

    Raises:
        ValueError: If x, target or `cam_head` is wrong.
        UnsupportedNetwork: If the network has neither such a last layer nor a `cam_head`.

    Example:
        >>> import torch, zfnet
        >>> model = zfnet.mnist()
        >>> maps = zfnet.trace(model, torch.zeros(1, 3, 28, 28))["conv2"].shape[1]
        >>> model.cam_head = (torch.rand(10, maps), torch.zeros(10))
        >>> cam(model, torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    model = unwrap(model)
    maps, logits = maps_and_logits(model, x, pooled=getattr(model, "cam_head", None) is None)
    target = resolve_target(target, logits)
    weight, _ = resolve_head(model, maps, logits)
    coarse = torch.einsum("nc,nchw->nhw", weight[target], maps)[:, None]
    return Attribution(upsample(coarse, x), None, "cam", target, coarse)


def grad_cam(
    model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None
) -> Attribution:
    r"""Weight the maps of a layer by their mean gradients.

    $M = \mathrm{ReLU}(\sum_k \alpha_k A_k)$, where $\alpha_k$ is the mean of $\partial S /
    \partial A_{ij}^k$ over positions. Selvaraju et al. 2017, section 3. The ReLU keeps only
    evidence for the class. The map can be all zero; see `Attribution.state`.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        layer: A layer name (conv5 is rectified), or a module path in a network with branches. None
            for the last feature maps before pooling: relu5 of ZFNet, the last block of ResNet.

    Returns:
        `coarse` (N, 1, h, w) has the layer's size; `map` (N, 1, H, W) is upsampled bilinearly. Both
        are 0 or more.

    Raises:
        ValueError: If x or target is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the layer has no feature maps.

    Example:
        >>> import torch, zfnet
        >>> grad_cam(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    maps, g, target = maps_and_gradient(model, x, target, layer)
    coarse = (g.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    return Attribution(upsample(coarse, x), None, "grad_cam", target, coarse)


def grad_cam_plus_plus(
    model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None
) -> Attribution:
    r"""Weight the maps of a layer by a weighted mean of their positive gradients.

    $M = \mathrm{ReLU}(\sum_k w_k A_k)$ with $w_k = \sum_{ij} \alpha_{ij}^k
    \mathrm{ReLU}(g_{ij}^k)$, $\alpha_{ij}^k = g^2 / (2 g^2 + g^3 \sum_{ab} A_{ab}^k)$ and $g =
    \partial S / \partial A_{ij}^k$. Chattopadhay et al. 2018, eq. 10 and 19, for the score $e^S$ of
    a piecewise linear S. The factor $e^S$ is constant within an image and overflows, so it is
    omitted. Where g is 0, alpha is 0. Elsewhere we divide by $g^2$, whose powers vanish in half
    precision.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        layer: A layer name (conv5 is rectified), or a module path in a network with branches. None
            for the last feature maps before pooling: relu5 of ZFNet, the last block of ResNet.

    Returns:
        `coarse` (N, 1, h, w) and `map` (N, 1, H, W), as in `grad_cam`.

    Raises:
        ValueError: If x or target is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the layer has no feature maps.

    Example:
        >>> import torch, zfnet
        >>> grad_cam_plus_plus(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    maps, g, target = maps_and_gradient(model, x, target, layer)
    denominator = 2 + g * maps.sum((2, 3), keepdim=True)
    alpha = torch.where((g == 0) | (denominator == 0), 0.0, 1 / denominator)
    weight = (alpha * g.relu()).sum((2, 3), keepdim=True)
    coarse = (weight * maps).sum(1, keepdim=True).relu()
    return Attribution(upsample(coarse, x), None, "grad_cam_plus_plus", target, coarse)


def guided_grad_cam(
    model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None
) -> Attribution:
    r"""Multiply guided backpropagation by the upsampled Grad-CAM map.

    Selvaraju et al. 2017, section 3.2.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        layer: A layer name (conv5 is rectified), or a module path in a network with branches. None
            for the last feature maps before pooling: relu5 of ZFNet, the last block of ResNet.

    Returns:
        `pixels` (N, C, H, W) is the signed product, `map` (N, 1, H, W) its largest absolute value
        over channels, `coarse` (N, 1, h, w) the Grad-CAM map.

    Raises:
        ValueError: If x or target is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the layer has no feature maps, or the network has nonlinearities
            other than ReLUs.

    Example:
        >>> import torch, zfnet
        >>> guided_grad_cam(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    location = grad_cam(model, x, target, layer=layer)
    target = location.target
    pixels = guided_backprop(model, x, target).pixels
    assert pixels is not None
    pixels = pixels * location.map
    return Attribution(channel_max(pixels), pixels, "guided_grad_cam", target, location.coarse)


def upsample(coarse: Tensor, x: Tensor) -> Tensor:
    """Upsample a coarse map (N, 1, h, w) to the size of x bilinearly, as the papers do.

    The papers stretch the map over the whole image, but the centers of the receptive fields do not
    reach its border without padding. In ZFNet's layer 5 they are in rows 20 to 212 of 224, and are
    drawn in rows 8 to 215: at the upper left, a map is shifted outward by 12 pixels.

    Args:
        coarse: Maps (N, 1, h, w).
        x: Images (N, C, H, W).

    Returns:
        Maps (N, 1, H, W).

    Example:
        >>> upsample(torch.zeros(1, 1, 7, 7), torch.zeros(1, 3, 28, 28)).shape
        torch.Size([1, 1, 28, 28])
    """
    return F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)


def resolve_head(model: nn.Module, maps: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight (classes, C) and bias (classes,) that map pooled features to logits."""
    head = getattr(model, "cam_head", None)
    dense = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    if head is None and dense:
        weight, bias = dense[0].weight.detach(), dense[0].bias
        head = (weight, logits.new_zeros(len(weight)) if bias is None else bias.detach())
        pooled = maps.mean((2, 3)).to(weight)
        fits = pooled.shape[1] == weight.shape[1] and logits.shape[1] == len(weight)
        atol = 1e-4 * float(logits.abs().max())
        if not fits or not torch.allclose(F.linear(pooled, *head), logits, rtol=1e-3, atol=atol):
            head = None
    if head is None:
        raise UnsupportedNetwork(
            f"{type(model).__name__} does not end in global average pooling and one dense layer, "
            f"and has no cam_head; use grad_cam, or set model.cam_head to the weight (classes, "
            f"channels) and bias (classes,) of a linear classifier of its pooled features"
        )
    weight, bias = (torch.as_tensor(part, device=maps.device).to(maps) for part in head)
    if weight.shape != (logits.shape[1], maps.shape[1]) or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"cam_head must be a weight ({logits.shape[1]}, {maps.shape[1]}) and a bias "
            f"({logits.shape[1]},), got {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    return weight, bias
