"""Call any function as an attribution method, and check what it returns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Attribution, Target
from zfnet.forward import logits_of
from zfnet.model import evaluating
from zfnet.validation import check_input, resolve_target

Method = Callable[[nn.Module, Tensor, Tensor], Tensor | Attribution]


def explain_with(
    function: Method, model: nn.Module, x: Tensor, target: Target = None, **options
) -> Attribution:
    """Explain each image's class by a function of your own.

    Args:
        function: `function(model, x, target, **options)`, with the targets (N,) int64. It returns a
            map (N, 1, H, W), or one value per input value (N, C, H, W), or an `Attribution`.
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        **options: Passed to the function.

    Returns:
        The attribution. Of values (N, C, H, W), `pixels` holds the values and `map` their sum over
        channels.

    Raises:
        ValueError: If x or target is invalid, or the function returns another type or shape.

    Example:
        >>> import torch, zfnet
        >>> brightness = lambda model, x, target: x.mean(1, keepdim=True)
        >>> explain_with(brightness, zfnet.mnist(), torch.rand(2, 3, 28, 28)).map.shape
        torch.Size([2, 1, 28, 28])
    """
    check_input(model, x)
    with evaluating(model), torch.no_grad():
        target = resolve_target(target, logits_of(model, x.clone()))
    return call_method(function, method_name(function), model, x, target, **options)


def call_method(
    function: Method, name: str, model: nn.Module, x: Tensor, target: Tensor, **options
) -> Attribution:
    """Call a method in evaluation mode, with gradients enabled, and check what it returns."""
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        return as_attribution(function(model, x, target, **options), name, x, target)


def as_attribution(
    result: Tensor | Attribution, name: str, x: Tensor, target: Tensor
) -> Attribution:
    """Check what a method returned for x, and return it as an attribution.

    Args:
        result: A map (N, 1, H, W), values (N, C, H, W), or an `Attribution`.
        name: Name of the method.
        x: The explained images (N, C, H, W).
        target: Their classes (N,).

    Raises:
        ValueError: If it is not an attribution, a map (N, 1, H, W) or values (N, C, H, W).
    """
    values = result.map if isinstance(result, Attribution) else result
    map_shape, pixels_shape = (len(x), 1, *x.shape[2:]), tuple(x.shape)
    allowed = (map_shape,) if isinstance(result, Attribution) else (map_shape, pixels_shape)
    if not isinstance(values, Tensor) or tuple(values.shape) not in allowed:
        kind = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"{name} must return a map {map_shape} or values {pixels_shape} for x {pixels_shape}, "
            f"got {kind}"
        )
    if isinstance(result, Attribution):
        return result
    values = values.detach().to(x.device, torch.promote_types(x.dtype, torch.float32))
    if tuple(values.shape) != pixels_shape:
        return Attribution(values, None, name, target)
    return Attribution(values.sum(1, keepdim=True), values, name, target)


def method_name(function: Callable) -> str:
    """Return a function's name, or the name of an object's type."""
    return getattr(function, "__name__", type(function).__name__)
