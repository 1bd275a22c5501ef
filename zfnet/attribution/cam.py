"""Class activation: the last feature maps, weighted by what each is worth to a class (CAM, Grad-CAM, Grad-CAM++)."""

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
from zfnet.graph import UnsupportedNetwork, module_of
from zfnet.validation import resolve_target


def cam(model: nn.Module, x: Tensor, target: Target = None) -> Attribution:
    r"""The maps under a global average pooling, by the class's weights: $M_c = \sum_k w_k^c A_k$.

    Zhou et al. 2016, section 2. Exact for a network that ends in global average pooling and one dense layer, such as ResNet;
    one that does not needs such a head, fitted on its last rectified maps: `model.cam_head`, (weight (classes, C), bias). The
    mean of `coarse` (N, 1, h, w) over places plus the bias is then that head's logit; `map` is `coarse` enlarged bilinearly
    to the image. Signed, in logits, not rectified. `target` None is the class that the network itself predicts.
    Raises ValueError for a bad x or target, UnsupportedNetwork for a network that has neither.
    """
    with feature_maps(model, x, pooled=getattr(model, "cam_head", None) is None) as (maps, logits):
        target = resolve_target(target, logits)
        weight, _ = pooling_head(model, maps.detach(), logits.detach())
        coarse = torch.einsum("nc,nchw->nhw", weight[target], maps.detach())[:, None]
    return Attribution(enlarge(coarse, x), None, "cam", target, coarse)


def grad_cam(model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None) -> Attribution:
    r"""The maps of a layer, by their mean gradients: $M = \mathrm{ReLU}(\sum_k \alpha_k A_k)$.

    $\alpha_k$ is the mean of $\partial S / \partial A_{ij}^k$ over places. Selvaraju et al. 2017, section 3. `layer` is a
    layer as in `zfnet.trace` (conv5: rectified), or a module's path; by default the last maps before pooling: relu5 of ZFNet,
    the last block of ResNet. `coarse` (N, 1, h, w) is the layer's own size, `map` (N, 1, H, W) enlarged bilinearly; 0 or
    more: the ReLU keeps what speaks for the class, and may leave nothing (see `state`).
    Raises ValueError for a bad x or target, UnknownLayer, UnsupportedNetwork for a network without maps.
    """
    maps, g, target = maps_and_gradient(model, x, target, layer)
    coarse = (g.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    return Attribution(enlarge(coarse, x), None, "grad_cam", target, coarse)


def grad_cam_plus_plus(model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None) -> Attribution:
    r"""Grad-CAM whose weights count positive gradients only, each by its own share.

    $w_k = \sum_{ij} \alpha_{ij}^k \mathrm{ReLU}(g_{ij}^k)$, $\alpha_{ij}^k = g^2 / (2 g^2 + g^3 \sum_{ab} A_{ab}^k)$, $g =
    \partial S / \partial A_{ij}^k$; $M = \mathrm{ReLU}(\sum_k w_k A_k)$. Chattopadhay et al. 2018, eq. 10 and 19, for a score
    $e^S$ of a piecewise linear S; its factor $e^S$, the same everywhere in an image, is left out, for it overflows. Where g
    is 0 so is alpha. Arguments, values and errors as `grad_cam`.
    """
    maps, g, target = maps_and_gradient(model, x, target, layer)
    below = 2 * g**2 + g**3 * maps.sum((2, 3), keepdim=True)
    share = torch.where(below == 0, 0.0, g**2 / torch.where(below == 0, 1.0, below))
    weight = (share * g.relu()).sum((2, 3), keepdim=True)
    coarse = (weight * maps).sum(1, keepdim=True).relu()
    return Attribution(enlarge(coarse, x), None, "grad_cam_plus_plus", target, coarse)


def guided_grad_cam(model: nn.Module, x: Tensor, target: Target = None, *, layer: str | None = None) -> Attribution:
    r"""Guided back-propagation times Grad-CAM, enlarged bilinearly: as fine as the one, as selective as the other.

    Selvaraju et al. 2017, section 3.2. `pixels` (N, C, H, W) is the signed product, `map` its maximum of the absolute over
    channels, `coarse` the Grad-CAM map. Arguments as `grad_cam`, errors as there and of `guided_backprop`.
    """
    where = grad_cam(model, x, target, layer=layer)
    pixels = guided_backprop(model, x, where.target).pixels
    assert pixels is not None
    pixels = pixels * where.map
    return Attribution(strongest(pixels), pixels, "guided_grad_cam", where.target, where.coarse)


def enlarge(coarse: Tensor, x: Tensor) -> Tensor:
    """A coarse map (N, 1, h, w) at the size of x: (N, 1, H, W), bilinearly, as the papers do.

    They stretch it over the whole image. The receptive fields of a network without padding do not reach so far: ZFNet's layer 5
    is centred from row 20 to row 212 of 224, and drawn from 8 to 215; at the upper left a map lies 12 pixels too far out.
    """
    return F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)


def maps_and_gradient(model: nn.Module, x: Tensor, target: Target, layer: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's maps (N, C, h, w), the target logit's gradient in them, and the targets (N,)."""
    with feature_maps(model, x, layer) as (maps, logits):
        target = resolve_target(target, logits)
        return maps.detach(), derivative(logits, target, maps), target


@contextmanager
def feature_maps(
    model: nn.Module, x: Tensor, layer: str | None = None, *, pooled: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pass x once, in evaluation mode, and give the layer's maps (N, C, h, w), as recorded for gradients, and the logits.

    Of a path to a module that is used several times, the last maps. No hook outlives the pass, whatever happens in it. Without
    a layer, the last maps before pooling, or if `pooled` what the last pooling is given, be it pooled before.
    """
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        kept = LastMaps(pooled) if layer is None else Hook(*module_of(model, layer, x))
        _, logits = forward(model, x, kept)
        if kept.maps is None or kept.maps.ndim != 4 or len(kept.maps) != len(x):
            found = "" if kept.maps is None else f", it puts out {tuple(kept.maps.shape)}"
            raise UnsupportedNetwork(f"{layer or type(model).__name__} has no feature maps (N, C, h, w){found}")
        yield kept.maps, logits


class LastMaps(TorchFunctionMode):
    """A context that keeps the last maps before pooling: of whatever operation, module or function, makes them.

    Maps (N, C, h, w) have more than one place. They are what a convolution puts out, what others make of maps without a change
    of their places (a change of C by concatenation only), and what is pooled. Pooled maps do not count, for they are coarser,
    unless `pooled`: then they do where they are pooled again.
    """

    def __init__(self, pooled: bool = False):
        super().__init__()
        self.pooled, self.maps = pooled, None
        self.coarse: torch.Size | None = None  # the places after a pooling, until a convolution

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result, given = func(*args, **(kwargs or {})), args[0] if args else None
        if isinstance(result, Tensor) and result.requires_grad:
            made = type(result.grad_fn).__name__
            if "Pool" in made or "Mean" in made:  # over places: a mean over channels has another second axis
                if is_maps(given) and result.shape[:2] == given.shape[:2] and result.numel() < given.numel():
                    if self.pooled or given.shape[2:] != self.coarse:
                        self.maps = given
                    self.coarse = result.shape[2:]
            elif is_maps(result) and ("Conv" in made or self.same_places(result, made)):
                self.maps, self.coarse = result, None
        return result

    def same_places(self, result: Tensor, made: str) -> bool:
        """Whether a result has the places of the maps so far."""
        alike = slice(2, None) if "Cat" in made else slice(None)
        return self.maps is not None and result.shape[alike] == self.maps.shape[alike]


def is_maps(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[2:].numel() > 1 and value.requires_grad


def pooling_head(model: nn.Module, maps: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (classes, C) and bias (classes,) that take pooled maps to logits: the fitted head, or the network's own.

    Raises UnsupportedNetwork where there is neither, or where the maps of its own do not give its logits.
    """
    head = getattr(model, "cam_head", None)
    own = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    if head is None and own:
        bias = own[0].bias if own[0].bias is not None else logits.new_zeros(len(own[0].weight))
        head = (own[0].weight.detach(), bias.detach())
        pooled = maps.mean((2, 3))
        fits = pooled.shape[1] == head[0].shape[1] and logits.shape[1] == len(head[0])
        if not fits or not torch.allclose(F.linear(pooled, *head), logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max())):
            head = None
    if head is None:
        raise UnsupportedNetwork(
            f"{type(model).__name__} does not end in global average pooling and one dense layer, and has no cam_head: give it "
            "one, model.cam_head = (weight (classes, maps), bias (classes,)) fitted on its pooled last maps, or take grad_cam"
        )
    weight, bias = (torch.as_tensor(part).to(maps) for part in head)
    if weight.shape != (logits.shape[1], maps.shape[1]) or bias.shape != weight.shape[:1]:
        found = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        raise ValueError(f"cam_head must be a weight ({logits.shape[1]}, {maps.shape[1]}) and its bias, got {found}")
    return weight, bias
