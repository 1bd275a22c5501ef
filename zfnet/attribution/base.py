"""What all attributions share: the form of their answer, and the gradient of a class's logit, its ReLUs perhaps redefined."""

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

# What a rectified backward pass may meet beside rectifiers: steps that are linear, choose, or normalise.
PLAIN = (
    r"AccumulateGrad|Convolution|Linear|Add[bm]*m|Mm|Bmm|Mv|T|Add|Rsub|Sub|Mul|Div|Neg|Sum|Mean|Cat|Stack|Split(WithSizes)?|Unbind|"
    r"Select|Slice|Index|Gather|View|AsStrided|ReshapeAlias|UnsafeView|Alias|Squeeze|Unsqueeze|Expand|Repeat|Permute|Transpose|Clone|"
    r"ToCopy|Flip|Roll|ConstantPadNd|ReflectionPad2D|ReplicationPad2D|PixelShuffle|Upsample(Bilinear|Nearest)2D|"
    r"(Adaptive)?MaxPool2D(WithIndices)?|(Adaptive)?AvgPool[123]D|\w*BatchNorm|NativeGroupNorm|NativeLayerNorm|Pow|Sqrt|Rsqrt|_LRN"
)


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a method says of N images. Values are raw: drawing normalises, and says how.

    `map` (N, 1, H, W) is the method's map, channels reduced as its paper does; `pixels` (N, C, H, W) keeps them, signed, and is
    None for methods that have none. `target` (N,) is the class explained. `coarse` (N, 1, h, w) is a class-activation map
    before it was enlarged, and `residual` (N,) what integrated gradients lack of completeness, in logits; of others None.
    """

    map: Tensor
    pixels: Tensor | None
    method: str
    target: Tensor
    coarse: Tensor | None = None
    residual: Tensor | None = None

    @property
    def state(self) -> tuple[str, ...]:
        """For each image "ok", or why its map says nothing: "all zero", or "not finite"."""
        finite, zero = self.map.isfinite().flatten(1).all(1), (self.map == 0).flatten(1).all(1)
        pairs = zip(finite.tolist(), zero.tolist(), strict=True)
        return tuple("all zero" if z else "ok" if f else "not finite" for f, z in pairs)


def forward(model: nn.Module, x: Tensor, watching: AbstractContextManager | None = None) -> tuple[Tensor, Tensor]:
    """A copy of x that gradients reach, where they are enabled, and its logits (N, classes); `watching` spans the pass.

    Raises ValueError for a bad x, and UnsupportedNetwork where the answer is not logits.
    """
    check_input(model, x)
    if any(weight.is_inference() for weight in model.parameters()):
        raise ValueError("the network was made under torch.inference_mode, which bars gradients for good: make it outside")
    leaf = x.detach().clone().requires_grad_()
    given = leaf.clone()  # a network that begins in place changes the clone
    with watching or nullcontext():
        logits = logits_of(model, given)
    return leaf, logits


def derivative(logits: Tensor, target: Tensor, below: Tensor) -> Tensor:
    """The gradient of each image's target logit in `below`, like it. Raises UnsupportedNetwork where there is none."""
    return slope(logits.gather(1, target[:, None].clone()), below)  # a clone, for the record takes none of inference mode


def slope(value: Tensor, point: Tensor, *, keep: bool = False) -> Tensor:
    """The gradient of the sum of values in a point; `keep` the record for another. Raises UnsupportedNetwork."""
    found = torch.autograd.grad(value.sum(), point, allow_unused=True, retain_graph=keep)[0] if value.requires_grad else None
    if found is None:
        raise UnsupportedNetwork("no gradient comes through the network: its forward pass detaches the signal from its input")
    return found


def gradient(model: nn.Module, x: Tensor, target: Target = None, rule: Callable | None = None) -> tuple[Tensor, Tensor]:
    """The gradient of each image's target logit in its pixels, like x, and the targets (N,).

    The network is in evaluation mode meanwhile; its parameters and their `.grad` are not touched. `rule` replaces the backward
    pass of every ReLU: see `rectify`.
    """
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        leaf, logits = forward(model, x)
        target = resolve_target(target, logits)
        if rule:
            rectify(logits, leaf, rule)
        return derivative(logits, target, leaf), target


def rectify(logits: Tensor, leaf: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Give every ReLU between `leaf` and `logits` another backward pass: `rule(incoming, outgoing)`, of the signal, is sent on.

    The rule is hooked to the recorded pass and goes with it: nothing is left on the network. In that record a module, a
    function and an in-place ReLU look alike, as does a clamping at 0 from below.
    Raises UnsupportedNetwork for any other step that is not linear and no pooling or normalisation, for which no rule is
    known.
    """

    def hook(grad_inputs: tuple[Tensor, ...], grad_outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (rule(grad_outputs[0], grad_inputs[0]), *grad_inputs[1:])

    for node in between(logits, leaf):
        kind = re.sub(r"Backward\d*$", "", type(node).__name__)
        if is_rectifier(kind, node):
            node.register_hook(hook)
        elif not re.fullmatch(PLAIN, kind) or (kind == "Mul" and is_mask(node)):
            what = "multiplies by a mask" if kind == "Mul" else f"applies {kind}"
            raise UnsupportedNetwork(
                f"the network {what}, for which guided backpropagation and the deconvnet have no rule; they need "
                "ReLUs (nn.ReLU, F.relu, clamp at 0) between convolutions, dense layers, pooling and normalisation"
            )


def is_rectifier(kind: str, node: Any) -> bool:
    """Whether a recorded step is max(0, x): a ReLU, or one written as a clamp."""
    low, high = getattr(node, "_saved_min", None), getattr(node, "_saved_max", None)
    return kind == "Relu" or (kind in ("Clamp", "ClampMin") and low == 0 and high is None)


def is_mask(node: Any) -> bool:
    """Whether a recorded product is with zeros and ones that have no gradient: perhaps a ReLU, spelt x * (x > 0)."""
    factors = [f for f in (node._saved_self, node._saved_other) if isinstance(f, Tensor) and f.ndim and not f.requires_grad]
    return any(bool(((f == 0) | (f == 1)).all()) for f in factors)


def between(top: Tensor, leaf: Tensor) -> list[Any]:
    """The recorded steps through which `top` depends on `leaf`; those that only reach parameters are left out."""
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
    found = dict.fromkeys(waiting)
    while waiting:
        fresh = [node for node in above[waiting.pop()] if node not in found]
        found |= dict.fromkeys(fresh)
        waiting += fresh
    return list(found)
