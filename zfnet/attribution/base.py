"""The result of an attribution, and the gradient of a logit with an optional rule for ReLUs."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zfnet.forward import evaluating, logits_of
from zfnet.graph import UnsupportedNetwork
from zfnet.validation import Target, check_input, resolve_target

# Graph nodes that `rectify` leaves alone: linear, selecting or normalizing operations.
PLAIN = (
    r"AccumulateGrad|Convolution|Linear|Add[bm]*m|Mm|Bmm|Mv|T|Add|Rsub|Sub|Mul|Div|Neg|Sum|Mean|Cat|Stack|Split(WithSizes)?|Unbind|"
    r"Select|Slice|Index|Gather|View|AsStrided|ReshapeAlias|UnsafeView|Alias|Squeeze|Unsqueeze|Expand|Repeat|Permute|Transpose|Clone|"
    r"ToCopy|Flip|Roll|ConstantPadNd|ReflectionPad2D|ReplicationPad2D|PixelShuffle|Upsample(Bilinear|Nearest)2D|"
    r"(Adaptive)?MaxPool2D(WithIndices)?|(Adaptive)?AvgPool[123]D|\w*BatchNorm|NativeGroupNorm|NativeLayerNorm|Pow|Sqrt|Rsqrt|_LRN"
)


@dataclass(frozen=True, eq=False)
class Attribution:
    """The attribution of N images. Values are raw; drawing normalizes them.

    Attributes:
        map: The map (N, 1, H, W), with channels reduced as in the method's paper.
        pixels: The signed map (N, C, H, W), or None for a method without one.
        method: The method's name in `zfnet.METHODS`.
        target: The explained classes (N,).
        coarse: A class-activation map (N, 1, h, w) before enlargement; None for other methods.
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
        """The state of each image's map: "ok", "all zero" or "not finite"."""
        finite, zero = self.map.isfinite().flatten(1).all(1), (self.map == 0).flatten(1).all(1)
        pairs = zip(finite.tolist(), zero.tolist(), strict=True)
        return tuple("all zero" if z else "ok" if f else "not finite" for f, z in pairs)


def forward(
    model: nn.Module, x: Tensor, watching: AbstractContextManager | None = None
) -> tuple[Tensor, Tensor]:
    """Return a copy of x that collects gradients, and its logits (N, classes).

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W).
        watching: A context that is entered around the forward pass.

    Raises:
        ValueError: If x is wrong, or if the weights are inference tensors.
        UnsupportedNetwork: If the network does not return logits.
    """
    check_input(model, x)
    if any(weight.is_inference() for weight in model.parameters()):
        raise ValueError(
            "the network was built under torch.inference_mode, which disables gradients: build it outside"
        )
    leaf = x.detach().clone().requires_grad_()
    images = leaf.clone()  # an in-place first module overwrites the clone
    with watching or nullcontext():
        logits = logits_of(model, images)
    return leaf, logits


def derivative(logits: Tensor, target: Tensor, below: Tensor) -> Tensor:
    """Return the gradient of each image's target logit with respect to `below`.

    Raises:
        UnsupportedNetwork: If the logit does not depend on `below`.
    """
    return slope(
        logits.gather(1, target[:, None].clone()), below
    )  # autograd cannot save inference tensors


def slope(value: Tensor, point: Tensor, *, keep: bool = False) -> Tensor:
    """Return the gradient of the sum of `value` with respect to `point`.

    Args:
        value: Values of any shape.
        point: The tensor to differentiate by.
        keep: Whether to keep the graph for another backward pass.

    Raises:
        UnsupportedNetwork: If `value` does not depend on `point`.
    """
    g = (
        torch.autograd.grad(value.sum(), point, allow_unused=True, retain_graph=keep)[0]
        if value.requires_grad
        else None
    )
    if g is None:
        raise UnsupportedNetwork(
            "no gradient reaches the input: the network's forward pass detaches the signal"
        )
    return g


def gradient(
    model: nn.Module, x: Tensor, target: Target = None, rule: Callable | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of each image's target logit with respect to its pixels.

    The network runs in evaluation mode. Its parameters and their `.grad` stay untouched.

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
        return derivative(logits, target, leaf), target


def rectify(logits: Tensor, leaf: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replace the backward pass of every ReLU between `leaf` and `logits` by `rule`.

    The hooks belong to the autograd graph, so nothing remains on the network. The graph shows a
    module, a function, an in-place ReLU and a clamp at 0 alike.

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

    for node in between(logits, leaf):
        kind = re.sub(r"Backward\d*$", "", type(node).__name__)
        if is_rectifier(kind, node):
            node.register_hook(hook)
        elif not re.fullmatch(PLAIN, kind) or (kind == "Mul" and is_mask(node)):
            operation = "multiplies by a mask" if kind == "Mul" else f"applies {kind}"
            raise UnsupportedNetwork(
                f"the network {operation}, for which guided backpropagation and the deconvnet have no rule; they need "
                "ReLUs (nn.ReLU, F.relu, clamp at 0) between convolutions, dense layers, pooling and normalization"
            )


def is_rectifier(kind: str, node: Any) -> bool:
    """Whether a graph node is max(0, x): a ReLU, or a clamp at 0 from below."""
    low, high = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
    return kind == "Relu" or (kind in ("Clamp", "ClampMin") and low == 0 and high is None)


def is_mask(node: Any) -> bool:
    """Whether a graph node multiplies by constant zeros and ones, as in x * (x > 0)."""
    factors = [
        f
        for f in (node._saved_self, node._saved_other)
        if isinstance(f, Tensor) and f.ndim and not f.requires_grad
    ]
    return any(bool(((f == 0) | (f == 1)).all()) for f in factors)


def between(top: Tensor, leaf: Tensor) -> list[Any]:
    """Return the graph nodes between `leaf` and `top`, without those that only reach parameters."""
    above: dict[Any, list[Any]] = {top.grad_fn: []}
    waiting: list[Any] = [top.grad_fn]
    while waiting:
        node = waiting.pop()
        for below, _ in node.next_functions:
            if below is not None and below not in above:
                waiting.append(below)
            if below is not None:
                above.setdefault(below, []).append(node)
    waiting = [node for node in above if getattr(node, "variable", None) is leaf]
    reached = dict.fromkeys(waiting)
    while waiting:
        fresh = [node for node in above[waiting.pop()] if node not in reached]
        reached |= dict.fromkeys(fresh)
        waiting += fresh
    return list(reached)
