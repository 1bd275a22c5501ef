"""Methods of Captum, pytorch-grad-cam and torch-cam as functions of (model, x, target).

Each adapter takes an explainer, or better a function that builds one for a network, such as the
explainer's class. The packages need not be installed for this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zfnet.attribution.cam import upsample
from zfnet.attribution.custom import Method


def from_captum(attribution: Any, **options: Any) -> Method:
    """Return a Captum attribution as a method.

    Args:
        attribution: A class such as `captum.attr.Saliency`, a function that builds an object for a
            network, or an object for one network.
        **options: Passed to `attribute`, such as `n_steps=50`.

    Returns:
        A function of (model, x, target), for `zfnet.explain` and `zfnet.benchmark`.

    Example:
        >>> from captum.attr import LayerGradCam
        >>> method = from_captum(lambda model: LayerGradCam(model, model.relu5))
    """

    def method(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        explainer = _for_model(attribution, model, "forward_func")
        values = explainer.attribute(_leaf(x), target=target, **options).detach()
        return values if values.shape[2:] == x.shape[2:] else upsample(values, x)

    return named(method, attribution)


def from_grad_cam(cam: Any, **options: Any) -> Method:
    """Return a method of pytorch-grad-cam, which scales each map to [0, 1].

    Args:
        cam: A function that builds a CAM for a network, such as
            `lambda model: GradCAM(model, [model.layer4])`, or a CAM object for one network.
        **options: Passed to the CAM's call, such as `eigen_smooth=True`.

    Returns:
        A function of (model, x, target), for `zfnet.explain` and `zfnet.benchmark`.
    """

    def method(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(int(t)) for t in target]
        if hasattr(cam, "target_layers"):
            maps = _for_model(cam, model, "model")(_leaf(x), targets, **options)
        else:
            with cam(model) as built:  # removes its hooks
                maps = built(_leaf(x), targets, **options)
        return torch.from_numpy(maps)[:, None].to(x)

    return named(method, cam)


def from_torchcam(extractor: Any, **options: Any) -> Method:
    """Return an extractor of torch-cam, which scales each map to [0, 1].

    Args:
        extractor: A function that builds an extractor for a network, such as
            `lambda model: GradCAM(model, "layer4")`, or an extractor of one layer for one network.
        **options: Passed to the extractor's call, such as `normalized=False`.

    Returns:
        A function of (model, x, target), for `zfnet.explain` and `zfnet.benchmark`.
    """

    def run(built: Any, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        scores = model(_leaf(x))
        (maps,) = built(target.tolist(), scores, **options)
        return upsample(maps[:, None].detach(), x)

    def method(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        if hasattr(extractor, "target_names"):
            return run(_for_model(extractor, model, "model"), model, x, target)
        with extractor(model) as built:  # removes its hooks
            return run(built, model, x, target)

    return named(method, extractor)


def _leaf(x: Tensor) -> Tensor:
    """Return a copy that requires gradients: the weights of a loaded network do not."""
    return x.detach().clone().requires_grad_()


def _for_model(explainer: Any, model: nn.Module, attribute: str) -> Any:
    """Return an explainer of this network: built for it, or the given object."""
    if not hasattr(explainer, attribute):
        return explainer(model)
    if getattr(explainer, attribute) is not model:
        raise ValueError(
            f"this {type(explainer).__name__} was built for another network; pass a function that "
            "builds one for each network, such as its class"
        )
    return explainer


def named(method: Callable, explainer: Any) -> Method:
    """Name a method after the explainer's class."""
    name = getattr(explainer, "__name__", type(explainer).__name__)
    method.__name__ = "method" if name == "<lambda>" else name
    return method
