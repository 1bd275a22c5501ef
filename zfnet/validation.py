"""Argument checks of the public functions, one function per kind of argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

Target = int | Sequence[int] | Tensor | None  # a class, one per image, or the predicted ones


def check_input(model: nn.Module, x: Tensor) -> None:
    """Raise ValueError unless x is a finite float batch (N, C, H, W) like the network's weights."""
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or 0 in x.shape:
        kind = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"expected a float batch (N, C, H, W), as zfnet.preprocess returns, got {kind}"
        )
    if x.is_meta:
        raise ValueError("x has no values: it is on the meta device")
    dense = x if x.is_contiguous() else x.permute(0, 2, 3, 1)  # else aminmax copies
    if not all(bound.isfinite() for bound in dense.aminmax()):
        raise ValueError("x has values that are not finite")
    # Layers of a network may differ in precision, and autocast converts x.
    kinds = [(w.device, w.dtype) for w in model.parameters() if w.is_floating_point()]
    dtypes = {x.dtype} if torch.is_autocast_enabled(x.device.type) else {kind[1] for kind in kinds}
    if kinds and not (x.device in {kind[0] for kind in kinds} and x.dtype in dtypes):
        device, dtype = kinds[0]
        raise ValueError(f"x is {x.dtype} on {x.device}, the network {dtype} on {device}")


def check_positive(**values: object) -> None:
    """Raise ValueError, naming the argument, unless every value is an integer of at least 1."""
    for name, value in values.items():
        if not isinstance(value, Integral):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def as_integers(value: object, name: str, device: torch.device) -> Tensor:
    """Return an int64 tensor. Raises ValueError for other numbers, which would be truncated."""
    try:
        tensor = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be whole numbers, got {value!r}") from None
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be whole numbers, got {value!r} ({tensor.dtype})")
    return tensor.to(torch.int64)


def resolve_target(target: Target, logits: Tensor) -> Tensor:
    """Return the class of each image.

    Args:
        target: A class, one class per image, or None for the predicted classes.
        logits: Logits (N, classes).

    Returns:
        Classes (N,) int64.

    Raises:
        ValueError: If a target is not a class, or if their number is neither 1 nor N.
    """
    n, classes = logits.shape
    if target is None:
        return logits.argmax(1)
    if isinstance(target, str):
        raise ValueError(
            f"target must be a class number, got {target!r}; model.class_index finds the number of "
            "a name"
        )
    target = as_integers(target, "target", logits.device).reshape(-1)
    if len(target) not in (1, n):
        raise ValueError(
            f"{len(target)} targets for {n} images: give one for all, or one per image"
        )
    if ((target < 0) | (target >= classes)).any():
        raise ValueError(f"target must be a class from 0 to {classes - 1}, got {target.tolist()}")
    return target.expand(n)


def expand_fill(fill: float | Tensor, x: Tensor, name: str = "fill") -> Tensor:
    """Return the values that replace x where it is covered, as a tensor of x's shape.

    Args:
        fill: A number, one number per channel, or a tensor that broadcasts to x.
        x: Images (N, C, H, W).
        name: The argument that an error names.

    Raises:
        ValueError: If a value is not finite, or if the shapes do not broadcast.
    """
    fill = torch.as_tensor(fill, dtype=x.dtype, device=x.device)
    if fill.ndim == 1:
        fill = fill.view(-1, 1, 1)  # one value per channel
    if not fill.isfinite().all():
        raise ValueError(f"{name} has values that are not finite")
    try:
        return fill.expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"{name} {tuple(fill.shape)} does not broadcast to x {tuple(x.shape)}"
        ) from None


def at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32 in place of half precision, where sums overflow and powers vanish.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.float16)).dtype
        torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def wrap_shape_errors(x: Tensor) -> Iterator[None]:
    """Raise ValueError if a network fails on x, in practice because of its shape.

    Use it around the forward pass of a whole network only. Steps are checked by arithmetic instead.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if x.is_cuda and not _still_works(x.device):
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"x {tuple(x.shape)} does not fit the network: {reason}") from error


def _still_works(device: torch.device) -> bool:
    """Whether a device works; after a CUDA fault every later call fails too."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return False
    return True
