"""Every attribution method by its name, and `explain`, which calls one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zfnet.attribution.base import Attribution, Target
from zfnet.attribution.cam import cam, grad_cam, grad_cam_plus_plus, guided_grad_cam
from zfnet.attribution.gradients import (
    deconvnet,
    gradient_x_input,
    guided_backprop,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from zfnet.data import no_progress
from zfnet.occlusion import occlude


def occlusion(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    size: int = 32,
    stride: int = 8,
    fill: float | Tensor = 0.0,
    batch: int = 64,
    progress: Callable = no_progress,
) -> Attribution:
    r"""The fall of the logit under an occluder: $M_{ij}$ is the mean of $S(x) - S(\tilde x)$ over those that cover (i, j).

    Zeiler & Fergus, section 4.2, from `zfnet.occlude`, whose maps are over the occluder's positions; here each pixel has the
    mean of the occluders that cover it. `map` is signed, in logits: positive where covering lowers the class. Arguments and
    errors as `zfnet.occlude`.
    """
    o = occlude(model, x, target, size=size, stride=stride, fill=fill, batch=batch, progress=progress)
    fall = (o.baseline.logit.reshape(-1, 1, 1) - o.logit.reshape(len(x), *o.boxes.shape[:2])).to(x)  # (N, rows, cols)
    row, column = (covered(edges, n, x) for edges, n in zip(spans(o.boxes), x.shape[2:], strict=True))
    total = row.T @ fall @ column  # (N, H, W): the occluders are products of rows and columns
    count = row.sum(0)[:, None] * column.sum(0)
    return Attribution((total / count)[:, None], None, "occlusion", o.target.reshape(-1))


def spans(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (rows, 2) and the columns (cols, 2), from and to, of a grid of boxes (rows, cols, 4)."""
    return boxes[:, 0, 0::2], boxes[0, :, 1::2]


def covered(edges: Tensor, n: int, like: Tensor) -> Tensor:
    """Which of n places each span (M, 2) covers: (M, n), 1 or 0."""
    place = torch.arange(n, device=edges.device)
    return ((place >= edges[:, :1]) & (place < edges[:, 1:])).to(like)


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


def explain(model: nn.Module, x: Tensor, method: str, target: Target = None, **options) -> Attribution:
    """Explain each image's class by a method of `zfnet.METHODS`; see there for its equation, and the options that it takes.

    `x` (N, C, H, W), `target` a class, one for each image (a sequence or tensor), or None: the predicted one. The answer's
    `map` (N, 1, H, W) is raw, `pixels` (N, C, H, W) signed or None, and `state` says of each image whether its map is ok, all
    zero, or not finite. Any `nn.Module` that returns logits will do for most methods; cam, guided_backprop, deconvnet and
    guided_grad_cam say what they need.
    Raises ValueError for an unknown method, a bad x or target; TypeError for an unknown option; UnknownLayer;
    UnsupportedNetwork.
    """
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method](model, x, target, **options)
