"""Attribution methods by name, and `explain`, which calls one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Attribution, Target
from zfnet.attribution.cam import cam, grad_cam, grad_cam_plus_plus, guided_grad_cam
from zfnet.attribution.custom import Method, explain_with
from zfnet.attribution.gradients import gradient_x_input, integrated_gradients, saliency, smoothgrad
from zfnet.attribution.guided import deconvnet, guided_backprop
from zfnet.data import no_progress
from zfnet.occlusion import occlude
from zfnet.validation import at_least_float32, check_input


def occlusion(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    size: int | None = None,
    stride: int | None = None,
    fill: float | Tensor = 0.0,
    batch: int = 64,
    progress: Callable = no_progress,
) -> Attribution:
    r"""Average the drop of the logit over the occluders that cover each pixel.

    The drop is $S(x) - S(\tilde x)$. Zeiler & Fergus, section 4.2. `zfnet.occlude` returns maps
    over occluder positions; this map is over pixels.

    Args:
        model: Any network that returns logits.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        target: A class, one class per image, or None for the predicted classes.
        size: The side of the occluder, in pixels; None for 32, or for a third of the image's
            shorter side where that is less.
        stride: The distance between positions, in pixels, at most `size`; None for size / 4.
        fill: The content of the occluder: a number (0 is the mean gray), one number per channel, or
            a tensor that broadcasts to x.
        batch: The number of positions per forward pass.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        `map` (N, 1, H, W) is signed, in logits: positive where occlusion lowers the class's logit.

    Raises:
        ValueError: If x, target, size, stride, fill or batch is wrong.
        UnsupportedNetwork: If the network does not return logits.

    Example:
        >>> import torch, zfnet
        >>> occlusion(zfnet.mnist(), torch.rand(2, 3, 28, 28), target=8, size=8).map.shape
        torch.Size([2, 1, 28, 28])
    """
    check_input(model, x)
    size = max(1, min(32, min(x.shape[2:]) // 3)) if size is None else size
    stride = max(1, size // 4) if stride is None else stride
    o = occlude(
        model, x, target, size=size, stride=stride, fill=fill, batch=batch, progress=progress
    )
    occluded = o.logit.reshape(len(x), *o.boxes.shape[:2])  # (N, rows, cols)
    drop = at_least_float32(o.baseline.logit.reshape(-1, 1, 1) - occluded)
    row, column = (
        coverage(edges, n, drop) for edges, n in zip(spans(o.boxes), x.shape[2:], strict=True)
    )
    # An occluder is the product of a row span and a column span.
    total = row.T @ drop @ column  # (N, H, W)
    count = row.sum(0)[:, None] * column.sum(0)
    return Attribution((total / count)[:, None], None, "occlusion", o.target.reshape(-1))


def spans(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Split a grid of boxes (rows, cols, 4) into row spans (rows, 2) and column spans (cols, 2)."""
    return boxes[:, 0, 0::2], boxes[0, :, 1::2]


def coverage(edges: Tensor, n: int, like: Tensor) -> Tensor:
    """Return whether each span (M, 2) covers each of n positions, as 1 or 0 (M, n)."""
    position = torch.arange(n, device=edges.device)
    return ((position >= edges[:, :1]) & (position < edges[:, 1:])).to(like)


METHODS: dict[str, Callable[..., Attribution]] = {
    "saliency": saliency,
    "gradient_x_input": gradient_x_input,
    "smoothgrad": smoothgrad,
    "integrated_gradients": integrated_gradients,
    "guided_backprop": guided_backprop,
    "deconvnet": deconvnet,
    "cam": cam,
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "guided_grad_cam": guided_grad_cam,
    "occlusion": occlusion,
}


def explain(
    model: nn.Module, x: Tensor, method: str | Method, target: Target = None, **options: Any
) -> Attribution:
    """Explain the class of each image with a method of `zfnet.METHODS` or a function of your own.

    Args:
        model: Any network that returns logits. cam, guided_backprop, deconvnet and guided_grad_cam
            have further requirements; see their functions.
        x: Images (N, C, H, W), as `zfnet.preprocess` returns them.
        method: A name in `zfnet.METHODS`, such as "grad_cam", or a function `method(model, x,
            target)` that returns maps (N, 1, H, W) or values (N, C, H, W).
        target: A class, one class per image, or None for the predicted classes.
        **options: Options of the method; see its function.

    Returns:
        The attribution: `map` (N, 1, H, W), raw; `pixels` (N, C, H, W), signed, or None; and the
        `state` of each image: "ok", "all zero", "constant" or "not finite".

    Raises:
        ValueError: If the method is unknown, or x or target is wrong.
        TypeError: If the method has no such option.
        UnknownLayer: If an option names a layer that the network does not have.
        UnsupportedNetwork: If the method does not apply to the network.

    Example:
        >>> import torch, zfnet
        >>> a = zfnet.explain(zfnet.mnist(), torch.rand(2, 3, 28, 28), "saliency", target=8)
        >>> a.map.shape, a.pixels.shape, a.method
        (torch.Size([2, 1, 28, 28]), torch.Size([2, 3, 28, 28]), 'saliency')
    """
    if callable(method):
        return explain_with(method, model, x, target, **options)
    if method not in METHODS:
        raise ValueError(f"{method!r} is not a method; available: {', '.join(METHODS)}")
    return METHODS[method](model, x, target, **options)
