"""Class activation maps: the last feature maps, weighted for a class (CAM, Grad-CAM, Grad-CAM++)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zfnet.attribution.base import Attribution, Target, derivative, forward
from zfnet.attribution.gradients import guided_backprop, strongest
from zfnet.forward import Hook, evaluating
from zfnet.graph import UnsupportedNetwork, find_module
from zfnet.validation import resolve_target


def cam(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""Weight the maps under global average pooling by the class's weights: $M_c = \sum_k w_k^c A_k$.

    Zhou et al. 2016, section 2. The network must end in global average pooling and one dense layer,
    as ResNet does, or have such a head as `model.cam_head`: weight (classes, C) and bias. The mean
    of `coarse` over positions plus the bias is the logit of that head.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.

    Returns:
        `coarse` (N, 1, h, w) is signed, in logits, not rectified; `map` (N, 1, H, W) is `coarse`
        enlarged bilinearly.

    Raises:
        ValueError: If x, target or `cam_head` is wrong.
        UnsupportedNetwork: If the network has neither such an end nor a `cam_head`.

    Example:
        >>> import torch, zfnet
        >>> model = zfnet.mnist()
        >>> maps = zfnet.trace(model, torch.zeros(1, 3, 28, 28))["conv2"].shape[1]
        >>> model.cam_head = (torch.rand(10, maps), torch.zeros(10))
        >>> cam(model, torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    with feature_maps(model, x, pooled=getattr(model, "cam_head", None) is None) as (maps, logits):
        target = resolve_target(target, logits)
        weight, _ = pooling_head(model, maps.detach(), logits.detach())
        coarse = torch.einsum("nc,nchw->nhw", weight[target], maps.detach())[:, None]
    return Attribution(enlarge(coarse, x), None, "cam", target, coarse)


def grad_cam(
    model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None
) -> Attribution:
    r"""Weight the maps of a layer by their mean gradients: $M = \mathrm{ReLU}(\sum_k \alpha_k A_k)$.

    $\alpha_k$ is the mean of $\partial S / \partial A_{ij}^k$ over positions. Selvaraju et al.
    2017, section 3. The ReLU keeps evidence for the class. It may leave nothing: see `state`.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        layer: A layer as in `zfnet.trace` (conv5 is rectified) or a module's path. By default the
            last maps before pooling: relu5 of ZFNet, the last block of ResNet.

    Returns:
        `coarse` (N, 1, h, w) has the layer's size; `map` (N, 1, H, W) is enlarged bilinearly. Both
        are 0 or more.

    Raises:
        ValueError: If x or target is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the layer has no maps.

    Example:
        >>> import torch, zfnet
        >>> grad_cam(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    maps, g, target = maps_and_gradient(model, x, target, layer)
    coarse = (g.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    return Attribution(enlarge(coarse, x), None, "grad_cam", target, coarse)


def grad_cam_plus_plus(
    model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None
) -> Attribution:
    r"""Weight the maps by their positive gradients, each with its own share.

    $w_k = \sum_{ij} \alpha_{ij}^k \mathrm{ReLU}(g_{ij}^k)$, $\alpha_{ij}^k = g^2 / (2 g^2 + g^3
    \sum_{ab} A_{ab}^k)$, $g = \partial S / \partial A_{ij}^k$; $M = \mathrm{ReLU}(\sum_k w_k A_k)$.
    Chattopadhay et al. 2018, eq. 10 and 19, for a score $e^S$ of a piecewise linear S. The factor
    $e^S$ is constant in an image and overflows, so it is left out. Where g is 0, alpha is 0.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        layer: A layer as in `zfnet.trace` (conv5 is rectified) or a module's path. By default the
            last maps before pooling: relu5 of ZFNet, the last block of ResNet.

    Returns:
        `coarse` (N, 1, h, w) and `map` (N, 1, H, W), as in `grad_cam`.

    Raises:
        ValueError: If x or target is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the layer has no maps.

    Example:
        >>> import torch, zfnet
        >>> grad_cam_plus_plus(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    maps, g, target = maps_and_gradient(model, x, target, layer)
    below = 2 * g**2 + g**3 * maps.sum((2, 3), keepdim=True)
    share = torch.where(below == 0, 0.0, g**2 / torch.where(below == 0, 1.0, below))
    weight = (share * g.relu()).sum((2, 3), keepdim=True)
    coarse = (weight * maps).sum(1, keepdim=True).relu()
    return Attribution(enlarge(coarse, x), None, "grad_cam_plus_plus", target, coarse)


def guided_grad_cam(
    model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None
) -> Attribution:
    r"""Multiply guided back-propagation by the enlarged Grad-CAM map.

    Selvaraju et al. 2017, section 3.2.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        layer: A layer as in `zfnet.trace` (conv5 is rectified) or a module's path. By default the
            last maps before pooling: relu5 of ZFNet, the last block of ResNet.

    Returns:
        `pixels` (N, C, H, W) is the signed product, `map` (N, 1, H, W) its largest absolute value
        over channels, `coarse` (N, 1, h, w) the Grad-CAM map.

    Raises:
        ValueError: If x or target is wrong.
        UnknownLayer: If the network has no such layer.
        UnsupportedNetwork: If the layer has no maps, or the network other nonlinearities than ReLUs.

    Example:
        >>> import torch, zfnet
        >>> guided_grad_cam(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    where = grad_cam(model, x, target, layer=layer)
    pixels = guided_backprop(model, x, where.target).pixels
    assert pixels is not None
    pixels = pixels * where.map
    return Attribution(strongest(pixels), pixels, "guided_grad_cam", where.target, where.coarse)


def enlarge(coarse: Tensor, x: Tensor) -> Tensor:
    """Enlarge a coarse map (N, 1, h, w) to the size of x bilinearly, as the papers do.

    The papers stretch the map over the whole image. The receptive fields of a network without
    padding are narrower: ZFNet's layer 5 is centered on rows 20 to 212 of 224, but drawn from 8 to
    215. At the upper left a map is 12 pixels too far out.
    """
    return F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)


def maps_and_gradient(
    model: nn.Module, x: Tensor, target: Target, layer: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's maps (N, C, h, w), the target logit's gradient for them, and the targets (N,)."""
    with feature_maps(model, x, layer) as (maps, logits):
        target = resolve_target(target, logits)
        return maps.detach(), derivative(logits, target, maps), target


@contextmanager
def feature_maps(
    model: nn.Module, x: Tensor, layer: str | None = None, *, pooled: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pass x once, and yield the layer's maps (N, C, h, w) in the autograd graph, and the logits.

    A module that is called several times yields its last maps. Without a layer, yields the last
    maps before pooling; with `pooled`, the input of the last pooling even if it was pooled before.
    """
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        if layer is None:
            yield _last_maps(model, x, pooled)
            return
        last = _has_channels_last(model, x, layer)
        kept = Hook(*find_module(model, layer), channels_last=last)
        _, logits = forward(model, x, kept)
        if kept.maps is None or kept.maps.ndim != 4 or len(kept.maps) != len(x):
            shape = "" if kept.maps is None else f"; its output is {tuple(kept.maps.shape)}"
            raise UnsupportedNetwork(f"{layer} has no feature maps (N, C, h, w){shape}")
        yield kept.maps, logits


def _last_maps(model: nn.Module, x: Tensor, pooled: bool) -> tuple[Tensor, Tensor]:
    """Return the last maps that the network's logits come from, and the logits."""
    check_input(model, x)
    try:
        steps = shaped_steps(model, x, to_result=True)
        name = last_maps(steps, pooled=pooled).name
    except UnsupportedNetwork as error:
        raise UnsupportedNetwork(f"{type(model).__name__} {error}; or give a layer") from None
    kept = {}

    def keep_maps(steps: Sequence[Step], images: Tensor) -> Tensor:
        t = run(steps, images, keep=(name,), switches=False)
        kept["maps"] = t[name]
        return t.output

    _, logits = forward(model, x, call=partial(keep_maps, steps))
    return kept["maps"], logits


def _has_channels_last(model: nn.Module, x: Tensor, layer: str) -> bool:
    """Whether a layer's maps are (N, H, W, C); False where the network cannot be traced."""
    try:
        steps = shaped_steps(model, x)
        return find_step(steps, layer).name in channels_last_steps(steps)
    except (UnsupportedNetwork, UnknownLayer):
        return False


def pooling_head(model: nn.Module, maps: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight (classes, C) and bias (classes,) from pooled maps to logits.

    Raises:
        ValueError: If the shapes of `model.cam_head` are wrong.
        UnsupportedNetwork: If there is no `cam_head`, and the last dense layer does not give the
            logits of the pooled maps.
    """
    head = getattr(model, "cam_head", None)
    dense = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    if head is None and dense:
        bias = (
            dense[0].bias if dense[0].bias is not None else logits.new_zeros(len(dense[0].weight))
        )
        head = (dense[0].weight.detach(), bias.detach())
        pooled = maps.mean((2, 3))
        fits = pooled.shape[1] == head[0].shape[1] and logits.shape[1] == len(head[0])
        if not fits or not torch.allclose(
            F.linear(pooled, *head), logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max())
        ):
            head = None
    if head is None:
        raise UnsupportedNetwork(
            f"{type(model).__name__} does not end in global average pooling and one dense layer, and has no cam_head; "
            "set model.cam_head = (weight (classes, maps), bias (classes,)), fitted on its pooled last maps, or use grad_cam"
        )
    weight, bias = (torch.as_tensor(part).to(maps) for part in head)
    if weight.shape != (logits.shape[1], maps.shape[1]) or bias.shape != weight.shape[:1]:
        shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        raise ValueError(
            f"cam_head must be a weight ({logits.shape[1]}, {maps.shape[1]}) and its bias, got {shapes}"
        )
    return weight, bias
