"""The table of Fig. 3 for any network: output shapes, parameters and multiply-adds."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zfnet.model.architectures import Network
from zfnet.model.modules import unwrap
from zfnet.normalization import LocalResponseNorm, PaperInput


@dataclass(frozen=True)
class Row:
    """One row of `describe`.

    Attributes:
        name: The path of the module, such as "conv1" or "layer1.0.conv1".
        operation: What the module computes, in words.
        shape: Its output without the batch: (C, H, W), or (C,) of a dense layer.
        parameters: The number of its parameters.
        macs: Its multiply-adds for one image.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    parameters: int
    macs: int


@torch.no_grad()
def describe(model: nn.Module, size: int | None = None) -> Iterator[Row]:
    """Yield one `Row` per module call, in the order of the forward pass.

    Shapes are propagated on the meta device: nothing is computed, and the weights are not copied. A
    module with called submodules has a row only for parameters or multiply-adds of its own, such as
    a class token. Multiply-adds are those of convolutions, matrix products and attention;
    normalization is not counted.

    Args:
        model: A network that takes images (1, C, H, W). Its mode and weights do not change.
        size: The side of the square input in pixels. None takes `model.size`, else 224.

    Example:
        >>> import zfnet
        >>> conv1 = next(describe(zfnet.zfnet(10, fc_units=8)))
        >>> conv1.operation, conv1.shape, conv1.parameters
        ('conv 7x7, stride 2, pad 1', (96, 110, 110), 14208)
    """
    model = unwrap(model)
    declared = getattr(model, "size", None)
    side = size or (declared if isinstance(declared, int) else 224)
    channels = model.options["in_channels"] if isinstance(model, Network) else 3
    model = _meta_copy(model).float().eval()  # layers may differ in precision
    x = torch.zeros(1, channels, side, side, device="meta")
    calls = _record_calls(model, x)

    called, counted = {call.module for call in calls}, set()
    for call in calls:
        own = {p for p in _own_parameters(call.module, called) if p not in counted}
        counted |= own
        if call.innermost or own or call.macs:
            name = call.name or type(model).__name__
            parameters = sum(p.numel() for p in own)
            yield Row(name, _operation(call.module), call.shape, parameters, call.macs)


@dataclass
class _Call:
    """One call of a module. `macs` excludes what its submodules compute."""

    name: str
    module: nn.Module
    start: int  # multiply-adds of the whole pass before this call
    macs: int = 0
    inner_macs: int = 0
    innermost: bool = True
    shape: tuple[int, ...] = ()


def _meta_copy(model: nn.Module) -> nn.Module:
    """Copy a network with all its parameters and buffers on the meta device."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    memo = {
        id(t): _on_meta(t) for t in tensors
    }  # deepcopy takes these instead of copying the weights
    return copy.deepcopy(model, memo)


def _on_meta(tensor: Tensor) -> Tensor:
    meta = tensor.detach().to("meta")
    return nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta


def _record_calls(model: nn.Module, x: Tensor) -> list[_Call]:
    """Pass x through the network, and list its module calls in the order in which they end."""
    from torch.utils.flop_counter import FlopCounterMode  # loads 80 MB of compilers

    counter = FlopCounterMode(display=False)
    # One ReLU may serve several layers under several names: the k-th call gets the k-th name.
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    stack: list[_Call] = []
    calls: list[_Call] = []

    def before(module: nn.Module, inputs: object) -> None:
        waiting = names[module]
        name = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        stack.append(_Call(name, module, counter.get_total_flops() // 2))

    def after(module: nn.Module, inputs: object, output: object) -> None:
        call = stack.pop()
        total = counter.get_total_flops() // 2 - call.start
        call.macs = 0 if isinstance(module, LocalResponseNorm) else total - call.inner_macs
        result = output[0] if isinstance(output, (tuple, list)) else output
        call.shape = tuple(result.shape[1:]) if isinstance(result, Tensor) else ()
        calls.append(call)
        if stack:
            stack[-1].innermost = False
            stack[-1].inner_macs += total

    for module in names:
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
    with counter:
        model(x)
    return calls


def _own_parameters(module: nn.Module, called: set[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module and of its submodules that are never called themselves."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if child not in called:
            yield from _own_parameters(child, called)


def _operation(module: nn.Module) -> str:
    match module:
        case nn.Conv2d():
            text = f"conv {_by(module.kernel_size)}"
            text += f", stride {_side(module.stride)}" if _side(module.stride) != "1" else ""
            text += f", pad {_side(module.padding)}" if _side(module.padding) != "0" else ""
            return text + (f", {module.groups} groups" if module.groups != 1 else "")
        case nn.MaxPool2d():
            return f"max pool {_by(module.kernel_size)}, stride {_side(module.stride)}"
        case LocalResponseNorm():
            return f"contrast normalization over {module.size} channels"
        case nn.BatchNorm2d() | nn.BatchNorm1d():
            return "batch normalization"
        case nn.Linear():
            return f"fully connected, {module.in_features} inputs"
        case nn.Dropout():
            return f"dropout {module.p}"
        case PaperInput():
            return "to [-128, 128], minus the mean image"
    return type(module).__name__


def _by(size: int | str | tuple[int, ...]) -> str:
    """Format a kernel: 3 and (3, 3) as "3x3"."""
    rows, columns = size if isinstance(size, tuple) else (size, size)
    return f"{rows}x{columns}"


def _side(size: int | str | tuple[int, ...]) -> str:
    """Format a stride or padding: 2 and (2, 2) as "2", (0, 3) as "0x3"."""
    return (
        str(size)
        if not isinstance(size, tuple)
        else str(size[0])
        if len(set(size)) == 1
        else _by(size)
    )
