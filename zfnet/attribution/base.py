"""Building blocks of attribution: its result, and gradients with modified ReLUs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from zfnet.forward import logits_of
from zfnet.graph import UnsupportedNetwork
from zfnet.model import evaluating
from zfnet.validation import Target, at_least_float32, check_input, resolve_target

# Operations of an autograd graph that `rectify` does not change: linear, selecting or normalizing.
LINEAR_OPERATIONS = frozenset((
    "AccumulateGrad", "Convolution", "Linear", "Addmm", "Addbmm", "Mm", "Bmm", "Mv", "T",
    "Add", "Rsub", "Sub", "Mul", "Div", "Neg", "Sum", "Mean",
    "Cat", "Stack", "Split", "SplitWithSizes", "Unbind", "Select", "Slice", "Index", "Gather",
    "View", "AsStrided", "ReshapeAlias", "UnsafeView", "Alias", "Squeeze", "Unsqueeze", "Expand",
    "Repeat", "Permute", "Transpose", "Clone", "ToCopy", "Flip", "Roll",
    "ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D", "PixelShuffle",
    "UpsampleBilinear2D", "UpsampleNearest2D",
    "MaxPool2D", "MaxPool2DWithIndices", "AdaptiveMaxPool2D",
    "AvgPool1D", "AvgPool2D", "AvgPool3D",
    "AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D",
    "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm", "NativeLayerNorm",
    "Pow", "Sqrt", "Rsqrt", "_LRN",
))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Attribution:
    """The attribution of N images. Values are raw; `zfnet.plot` normalizes them.

    Values are float32 where the images have half precision, in which products vanish.

    Attributes:
        map: The map (N, 1, H, W), with channels reduced as in the method's paper.
        pixels: The signed map (N, C, H, W), or None for a method without one.
        method: The method's name in `zfnet.METHODS`.
        target: The explained classes (N,).
        coarse: The class activation map (N, 1, h, w) before upsampling; None for other methods.
        residual: The completeness error (N,) of integrated gradients, in logits; None for other
            methods.
    """

    map: Tensor
    pixels: Tensor | None
    method: str
    target: Tensor
    coarse: Tensor | None = None
    residual: Tensor | None = None

    @property
    def state(self) -> tuple[str, ...]:
        """The state of each image's map: "ok", "all zero", "constant" or "not finite".

        A constant map gives no pixel more weight than another, up to rounding. One pixel is enough
        for a map that is not zero.
        """
        return tuple(_state(values) for values in self.map.detach())


def _state(values: Tensor) -> str:
    """Return the state of one map."""
    if not values.any():
        return "all zero"
    low, high = (float(bound) for bound in values.aminmax())
    if not isfinite(low) or not isfinite(high):
        return "not finite"
    eps = torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
    rounding = 8 * eps * max(abs(low), abs(high))
    return "constant" if values.numel() > 1 and high - low <= rounding else "ok"


def forward(
    model: nn.Module, x: Tensor, context: AbstractContextManager | None = None
) -> tuple[Tensor, Tensor]:
    """Run a forward pass that can be differentiated with respect to x.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W).
        context: A context manager for the forward pass, such as one that records a layer.

    Returns:
        A copy of x that requires gradients (N, C, H, W), and its logits (N, classes).

    Raises:
        ValueError: If x is wrong, or if the weights are inference tensors.
        UnsupportedNetwork: If the network does not return logits.
    """
    check_input(model, x)
    if any(weight.is_inference() for weight in model.parameters()):
        raise ValueError(
            "the network was created in torch.inference_mode, which disables gradients; "
            "create it outside"
        )
    leaf = x.detach().clone().requires_grad_()
    images = leaf.clone()  # an in-place first module may overwrite it
    with context or nullcontext():
        logits = logits_of(model, images)
    return leaf, logits


def logit_gradient(logits: Tensor, target: Tensor, point: Tensor) -> Tensor:
    """Return the gradient of each image's target logit with respect to a tensor.

    Args:
        logits: Logits (N, classes) with an autograd graph.
        target: The class of each image (N,).
        point: The tensor to differentiate by.

    Returns:
        The gradient, with the shape of `point`.

    Raises:
        UnsupportedNetwork: If the logit does not depend on `point`.
    """
    index = target[:, None].clone()  # autograd cannot save inference tensors
    return grad_of_sum(logits.gather(1, index), point)


def grad_of_sum(value: Tensor, point: Tensor, *, retain_graph: bool = False) -> Tensor:
    """Return the gradient of a sum with respect to a tensor.

    Args:
        value: The values to sum, of any shape.
        point: The tensor to differentiate by.
        retain_graph: Retain the graph for another backward pass.

    Returns:
        The gradient, with the shape of `point`.

    Raises:
        UnsupportedNetwork: If `value` does not depend on `point`.

    Example:
        >>> import torch
        >>> x = torch.ones(3, requires_grad=True)
        >>> grad_of_sum(x**2, x)
        tensor([2., 2., 2.])
    """
    g = None
    if value.requires_grad:
        g = torch.autograd.grad(value.sum(), point, allow_unused=True, retain_graph=retain_graph)[0]
    if g is None:
        raise UnsupportedNetwork(
            "no gradient reaches the input, because the network's forward pass detaches it"
        )
    return g


def gradient(
    model: nn.Module, x: Tensor, target: Target = None, rule: Callable | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of each image's target logit with respect to its pixels.

    The network runs in evaluation mode. Its parameters and their `.grad` do not change. The
    gradient is float32 where x has half precision.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W).
        target: A class, one class per image, or None for the predicted classes.
        rule: A backward pass for every ReLU, as in `rectify`; None for the plain gradient.

    Returns:
        The gradient (N, C, H, W), and the targets (N,).

    Raises:
        ValueError: If x or target is wrong.
        UnsupportedNetwork: If no gradient reaches x, or `rule` does not apply to the network.

    Example:
        >>> import torch, zfnet
        >>> g, target = gradient(zfnet.mnist(), torch.zeros(2, 3, 28, 28), target=8)
        >>> g.shape, target
        (torch.Size([2, 3, 28, 28]), tensor([8, 8]))
    """
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        target = resolve_target(target, logits)
        if rule:
            rectify(logits, leaf, rule)
        return at_least_float32(logit_gradient(logits, target, leaf)), target


def rectify(logits: Tensor, leaf: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replace the backward pass of every ReLU between `leaf` and `logits` by `rule`.

    The hooks belong to the autograd graph, so the network does not change. Modules, functions,
    in-place ReLUs and clamps at 0 are handled alike.

    Args:
        logits: The output of the forward pass.
        leaf: Its input.
        rule: Maps the signal from above and the gradient below to the signal below.

    Raises:
        UnsupportedNetwork: If the graph has another nonlinearity.
    """

    def hook(
        grad_inputs: tuple[Tensor, ...], grad_outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        return (rule(grad_outputs[0], grad_inputs[0]), *grad_inputs[1:])

    if not logits.requires_grad:
        return  # `grad_of_sum` names the reason
    for node in nodes_between(logits, leaf):
        kind = operation_of(node)
        if is_rectifier(kind, node):
            node.register_hook(hook)
        elif kind not in LINEAR_OPERATIONS or (kind == "Mul" and is_mask(node)):
            operation = "multiplies by a mask" if kind == "Mul" else f"applies {kind}"
            raise UnsupportedNetwork(
                f"the network {operation}, for which guided backpropagation and the deconvnet have "
                f"no rule; they need ReLUs (nn.ReLU, F.relu, clamp at 0) between convolutions, "
                f"dense layers, pooling and normalization"
            )


def operation_of(node: Any) -> str:
    """Return the operation that a graph node differentiates: "Relu" for `ReluBackward0`."""
    return node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")


def is_rectifier(kind: str, node: Any) -> bool:
    """Return whether a graph node is max(0, x): a ReLU, or a clamp at 0 from below."""
    low, high = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
    return kind == "Relu" or (kind in ("Clamp", "ClampMin") and low == 0 and high is None)


def is_mask(node: Any) -> bool:
    """Return whether a graph node multiplies by constant zeros and ones, as in x * (x > 0)."""
    factors = [
        f
        for f in (node._saved_self, node._saved_other)
        if isinstance(f, Tensor) and f.ndim and not f.requires_grad
    ]
    return any(bool(((f == 0) | (f == 1)).all()) for f in factors)


def nodes_between(top: Tensor, leaf: Tensor) -> list[Any]:
    """Return the graph nodes between `leaf` and `top`, without those that only reach parameters."""
    parents: dict[Any, list[Any]] = {top.grad_fn: []}  # the nodes that use a node's output
    stack: list[Any] = [top.grad_fn]
    while stack:
        node = stack.pop()
        for child, _ in node.next_functions:
            if child is not None and child not in parents:
                stack.append(child)
            if child is not None:
                parents.setdefault(child, []).append(node)
    stack = [node for node in parents if getattr(node, "variable", None) is leaf]
    visited = dict.fromkeys(stack)
    while stack:
        unvisited = [node for node in parents[stack.pop()] if node not in visited]
        visited |= dict.fromkeys(unvisited)
        stack += unvisited
    return list(visited)
