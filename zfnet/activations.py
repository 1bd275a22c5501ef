"""One forward pass kept: the activations of every layer, the pooling switches, and receptive-field arithmetic.

The deconvnet needs a network that is a chain of modules. `chain` finds that chain in ZFNet, in any `nn.Sequential`, and
in networks such as torchvision's AlexNet and VGG, and refuses a network whose forward pass is anything else.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zfnet.model import LocalResponseNorm, Network, PaperInput
from zfnet.windows import UnsupportedNetwork, Window, output_size, windowed

NORMS = (LocalResponseNorm, nn.LocalResponseNorm)
PASSED = (nn.Identity, nn.Dropout, nn.Dropout2d)  # change nothing in evaluation
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
KNOWN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, *BATCHNORMS, nn.Linear, nn.Flatten, nn.AdaptiveAvgPool2d, PaperInput)


class UnknownLayer(KeyError):
    """A layer that the network does not have. The message lists those that it has."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Step:
    """A module of the chain with its name (conv1, relu1, pool1, norm1, ..., fc8) and the layer that it completes.

    `layer` is set on the last module of a layer's activation: the ReLU of conv1, or conv1 itself where no ReLU follows.
    """

    name: str
    module: nn.Module
    layer: str | None = None


@dataclass(frozen=True, eq=False)
class Trace(Mapping):
    """What one forward pass left behind: a mapping from names to activations.

    `trace["conv3"]` is the rectified map (N, C, H, W) before pooling, `trace["fc7"]` the rectified vector (N, C), and
    `trace["pool5"]` what any other step put out. `switches["pool1"]` (N, C, h, w) int64 holds, as PyTorch does, the flat
    index of each window's maximum in the H x W map below. `logits` (N, classes) is None where the pass stopped earlier.
    """

    steps: tuple[Step, ...]
    outputs: dict[str, Tensor]
    switches: dict[str, Tensor]
    inputs: dict[str, torch.Size]  # step -> shape of what came in, for the way down
    x: Tensor
    logits: Tensor | None = None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.outputs:
            raise UnknownLayer(f"no layer {name!r} in this trace; it has {', '.join(self.layers)}")
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers with weights, in order: conv1 ... fc8."""
        return tuple(step.layer for step in self.steps if step.layer)

    def receptive_field(self, layer: str) -> ReceptiveField:
        """The receptive field of a convolutional layer's units. Raises UnknownLayer."""
        return receptive_field(self.steps, layer)

    def box(self, layer: str, position: Tensor) -> Tensor:
        """The pixels that units at position (..., 2) see: (..., 4) as (top, left, bottom, right), clipped to the image.

        A unit of a dense layer sees the whole image. Raises UnknownLayer.
        """
        ends = [i for i, step in enumerate(self.steps) if layer in (step.layer, step.name)]
        if not ends:
            raise UnknownLayer(unknown_layer(layer, list(self.steps)))
        steps = self.steps[: ends[-1] + 1]
        if any(isinstance(step.module, (nn.Flatten, nn.Linear)) for step in steps):
            return torch.tensor([0, 0, *self.x.shape[2:]], device=position.device).expand(*position.shape[:-1], 4)
        sizes = {name: (shape[-2], shape[-1]) for name, shape in self.inputs.items() if len(shape) == 4}
        return seen(steps, sizes, position)


def trace(model: nn.Module, x: Tensor, *, until: str | None = None) -> Trace:
    """Pass x (N, 3, H, W) through the network once, in evaluation mode, and keep every activation and switch.

    `until` names the last layer that is wanted; nothing above it is computed. For torchvision's networks the layers are
    conv1 ... convN, then fc(N+1) and so on. The network's mode and gradients are left as they were.
    Raises UnsupportedNetwork, UnknownLayer, or ValueError for an x of another shape. Zeiler & Fergus, section 2.1.
    """
    with evaluating(model), torch.no_grad():
        t = record(steps_until(model, x, until), x)
    return t if until else replace(t, logits=t.outputs[t.steps[-1].name])


def steps_until(model: nn.Module, x: Tensor, until: str | None = None) -> list[Step]:
    """The network's chain of modules, for input x, up to the layer or step `until`. Raises as `trace` does."""
    check_input(model, x)
    steps = chain(model, x[:1])
    if until is None:
        return steps
    ends = [i for i, step in enumerate(steps) if until in (step.layer, step.name)]
    if not ends:
        raise UnknownLayer(unknown_layer(until, steps))
    return steps[: ends[-1] + 1]


def steps_up_to(steps: list[Step], layers: Sequence[str]) -> list[Step]:
    """The chain up to the highest of the layers, so that nothing above it is computed. Raises UnknownLayer."""
    ends = {step.layer: i + 1 for i, step in enumerate(steps) if step.layer}
    for layer in layers:
        if layer not in ends:
            raise UnknownLayer(unknown_layer(layer, steps))
    return steps[: max(ends[layer] for layer in layers)]


def record(steps: list[Step], x: Tensor) -> Trace:
    """Apply the steps to x in order, and keep every output and switch."""
    outputs, switches, inputs = {}, {}, {}
    signal = x
    for step in steps:
        inputs[step.name] = signal.shape
        with fitting(x, step):
            if isinstance(step.module, nn.MaxPool2d):
                signal, switches[step.name] = max_pool(step.module, signal)
            else:
                signal = apply(step.module, signal)
        outputs[step.name] = signal
        if step.layer:
            outputs[step.layer] = signal
    return Trace(tuple(steps), outputs, switches, inputs, x)


def chain(model: nn.Module, x: Tensor) -> list[Step]:
    """List the modules that the network applies in order, named by layer. Raises UnsupportedNetwork, saying why.

    For a network that is not ours, x (1, 3, H, W) and noise are passed through it once: each module must be given what the one
    registered before it put out (flattened for the first dense layer), and nothing else may touch it.
    """
    inner = model  # a wrapper's prefix is no part of a module's name
    while isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = inner.module
    inner = getattr(inner, "_orig_mod", inner)  # torch.compile's
    leaves = _leaves(inner)
    for path, module in leaves:
        kind = next((kind for kind in (*KNOWN, *NORMS, *PASSED) if isinstance(module, kind)), None)
        if kind is None or type(module).forward is not kind.forward:  # a subclass may compute something else
            raise UnsupportedNetwork(
                f"{type(model).__name__}: {path} is a {type(module).__name__}, which the deconvnet cannot invert; it needs "
                f"a chain of convolutions, ReLU modules, max pooling, normalisation and dense layers, as in ZFNet or VGG"
            )
        if isinstance(module, BATCHNORMS) and module.running_mean is None:
            raise UnsupportedNetwork(f"{type(model).__name__}: {path} normalises by the batch that it is given, always")
    named = leaves if type(inner) is Network else _name(leaves)
    if type(model) is not Network:
        _verify(inner, named, x)
    return [Step(name, module, layer) for (name, module), layer in zip(named, _ends(named), strict=True)]


def _ends(named: list[tuple[str, nn.Module]]) -> list[str | None]:
    """For each module, the layer whose activation it completes: its ReLU, else the last of its weights and BatchNorm."""
    ends: list[str | None] = [None] * len(named)
    owner = None
    for i, (name, module) in enumerate(named):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            owner, place = name, i
        elif owner and isinstance(module, (*BATCHNORMS, nn.ReLU)):
            ends[place] = None  # pyright: ignore[reportPossiblyUnboundVariable]
            place = i
        else:
            owner = None  # pooling, normalisation or dropout: the layer's own activation is complete
        if owner:
            ends[place] = owner
    return ends


def as_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    """The names of layers, given as one or as several, each once."""
    return (layers,) if isinstance(layers, str) else tuple(dict.fromkeys(layers))


def conv_layers(steps: Sequence[Step]) -> list[str]:
    """The names of the convolutional layers of a chain, in order."""
    return [step.name for step in steps if isinstance(step.module, nn.Conv2d)]


def apply(module: nn.Module, x: Tensor) -> Tensor:
    """One module's output, never in place: torchvision's ReLUs would overwrite the activation that is being kept."""
    if isinstance(module, nn.ReLU):
        return F.relu(x)
    return module(x.clone() if getattr(module, "inplace", False) else x)


def max_pool(module: nn.MaxPool2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """Max pooling and its switches: (N, C, h, w) twice, the second the flat index of each maximum in its H x W map.

    CPUs pool maps that lie channels last in memory ten times faster: those that do not are copied, and the switches stay so.
    """
    kernel, stride, padding, dilation = module.kernel_size, module.stride, module.padding, module.dilation
    order = layout(x)
    if x.device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last)
    pooled, switches = F.max_pool2d(x, kernel, stride, padding, dilation, module.ceil_mode, return_indices=True)
    return pooled.contiguous(memory_format=order), switches


def layout(x: Tensor) -> torch.memory_format:
    """How maps lie in memory. Convolutions round differently in either, which can move a switch between near-equal cells."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its modules back into its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            if type(module).train is not nn.Module.train:  # it may do more than set the flag, as merged adapters do
                module.train()
        kept = set(training)
        for module in model.modules():
            module.training = module in kept


class Hook(AbstractContextManager):
    """A context that keeps what a module puts out at one of its calls, -1 for the last, in the thread that entered it.

    The network goes on with a copy, which an in-place ReLU may overwrite.
    """

    def __init__(self, module: nn.Module, call: int = -1):
        self.module, self.call, self.maps = module, call, None

    def __enter__(self):
        calls, thread = itertools.count(), threading.get_ident()

        def keep(module, inputs, output):
            if threading.get_ident() != thread or self.call not in (-1, next(calls)):
                return None
            self.maps = output if isinstance(output, Tensor) else None
            return output if self.maps is None else output.clone()

        self.handle = self.module.register_forward_hook(keep)
        return self

    def __exit__(self, *error) -> None:
        self.handle.remove()


def module_of(model: nn.Module, layer: str, x: Tensor) -> tuple[nn.Module, int]:
    """The module that completes a layer named as in `zfnet.trace`, and at which call; else that at a path, -1.

    Raises UnknownLayer.
    """
    steps: list[Step] = []
    with suppress(UnsupportedNetwork), torch.no_grad():
        steps = chain(model, x[:1])
    for i, step in reversed(list(enumerate(steps))):
        if layer in (step.layer, step.name):
            return step.module, sum(earlier.module is step.module for earlier in steps[:i])
    try:
        return model.get_submodule(layer or "no name"), -1
    except AttributeError:
        names = [step.layer for step in steps if step.layer] or [name for name, _ in model.named_children()]
        raise UnknownLayer(f"no layer {layer!r}; the network has {', '.join(names)}") from None


@contextmanager
def fitting(x: Tensor, step: Step | None = None) -> Iterator[None]:
    """Raise ValueError, naming the step, where a module refuses what has become of x, or the whole network x itself."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        where, reason = f" at {step.name}" if step else "", str(error).splitlines()[0]
        raise ValueError(f"x {tuple(x.shape)} does not fit the network{where}: {reason}") from error


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """The network's logits (N, classes) for x, which it may overwrite. Raises ValueError, UnsupportedNetwork for no logits."""
    with fitting(x):
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedNetwork(f"{type(model).__name__} must return logits ({len(x)}, classes), got {found}")
    return logits


def check_input(model: nn.Module, x: Tensor) -> None:
    """Raise ValueError where x is not a float batch (N, C, H, W) on the network's device and of its dtype."""
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or 0 in x.shape:
        found = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"expected a float batch (N, C, H, W), as zfnet.preprocess makes, got {found}")
    lying = x.permute(0, 2, 3, 1) if layout(x) == torch.channels_last else x  # else it would be copied
    if not all(bound.isfinite() for bound in lying.aminmax()):  # one pass, and no array of booleans
        raise ValueError("x holds values that are not finite")
    weight = next(model.parameters(), x)
    if (x.device, x.dtype) != (weight.device, weight.dtype):
        raise ValueError(f"x is {x.dtype} on {x.device}, the network {weight.dtype} on {weight.device}")


def unknown_layer(name: str, steps: list[Step]) -> str:
    return f"no layer {name!r}; the network has {', '.join(step.layer for step in steps if step.layer)}"


def _leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    modules = model.named_modules(remove_duplicate=False)  # one ReLU may serve several layers
    return [(path, module) for path, module in modules if path and next(module.children(), None) is None]


def _name(leaves: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Give the modules of another library's network the names of the paper, and flatten before the first dense layer.

    Modules that already have such names at the top level (conv1, relu1, pool1, ...) keep them, all or none.
    """
    kinds = {nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.BatchNorm2d: "bn", nn.BatchNorm1d: "bn"}
    kinds |= {nn.Dropout: "drop", nn.Conv2d: "conv", nn.Linear: "fc"} | dict.fromkeys(NORMS, "norm")

    def kind_of(module: nn.Module) -> str | None:
        return next((name for kind, name in kinds.items() if isinstance(module, kind)), None)

    weighted = [(path, kind_of(m)) for path, m in leaves if isinstance(m, (nn.Conv2d, nn.Linear))]
    keep = all(re.fullmatch(rf"{kind}\d+", path) for path, kind in weighted)
    named: list[tuple[str, nn.Module]] = []
    number, taken = 0, set()
    for path, module in leaves:
        if isinstance(module, nn.Linear) and not any(isinstance(m, (nn.Flatten, nn.Linear)) for _, m in named):
            named.append(("flatten", nn.Flatten()))
        number += isinstance(module, (nn.Conv2d, nn.Linear))
        kind = kind_of(module)
        name = f"{kind}{number}" if kind and not keep else path
        name = path if name in taken else name  # a second dropout of one layer, say
        taken.add(name)
        named.append((name, module))
    return named


def _verify(model: nn.Module, named: list[tuple[str, nn.Module]], x: Tensor) -> None:
    """Raise UnsupportedNetwork where the network is not the modules one after the other, on x (1, C, H, W) and on noise.

    Logits say little: those of a new last layer may be zero. So what goes into each module is compared with what came before.
    """
    reason = (
        f"{type(model).__name__} cannot be inverted: its forward pass is not its modules one after the other "
        "(residual connections, or functional ReLU or pooling, which leave no switch to follow)"
    )
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)  # a grey x is 0 at every layer without bias
    # Modules, and what went in and came out: the tensors themselves, and copies.
    calls: list[tuple[nn.Module | None, tuple[Tensor, ...], tuple[Tensor, ...]]] = []
    thread = threading.get_ident()

    def before(module: nn.Module, given: tuple) -> None:
        if threading.get_ident() == thread:
            calls.append((module, _kept(given[0] if given else None), ()))

    def after(module: nn.Module, given: tuple, result: object) -> None:
        if threading.get_ident() == thread:
            calls[-1] = (*calls[-1][:2], _kept(result))

    both = torch.cat([x, noise])
    last: tuple[Tensor, ...] = (both, both)
    with ExitStack() as hooks, fitting(x):
        for module in dict.fromkeys(module for _, module in named):
            for handle in (module.register_forward_pre_hook(before), module.register_forward_hook(after)):
                hooks.callback(handle.remove)
        logits = model(both.clone())  # a clone, for it may begin in place
    waiting = iter(calls)
    called, given, result = next(waiting, (None, (), ()))
    for i, (_, module) in enumerate(named):
        if module is not called:
            if isinstance(module, (*PASSED, nn.Flatten)):  # a dropout that is not called here, the flattening that is ours
                continue
            raise UnsupportedNetwork(reason)
        if not given or not result or not _same(last, given, first=i == 0):
            raise UnsupportedNetwork(reason)
        last = result
        called, given, result = next(waiting, (None, (), ()))
    if called is not None or not isinstance(logits, Tensor) or not _same(last, _kept(logits), first=False):
        raise UnsupportedNetwork(reason)


def _kept(value: object) -> tuple[Tensor, ...]:
    """A tensor and a copy of it as it is now; nothing for anything else."""
    return (value, value.clone()) if isinstance(value, Tensor) else ()


def _same(before: tuple[Tensor, ...], after: tuple[Tensor, ...], *, first: bool) -> bool:
    """Whether a module was given what the one before put out: that memory, unchanged; a copy where flattening needs one."""
    (one, was), (other, now) = before, after
    if was.numel() != now.numel() or not torch.allclose(was.reshape(now.shape), now, rtol=0, atol=0, equal_nan=True):
        return False
    return first or one.data_ptr() == other.data_ptr() or not one.is_contiguous()


def sizes(steps: Sequence[Step], size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The size (h, w) of the maps that come into each step, for an image of `size`, and under "" of what leaves the last."""
    found = {}
    for step in steps:
        found[step.name] = size
        size = output_size(step.module, size)
        if min(size) < 1:
            image = found[steps[0].name]
            raise ValueError(f"an image of {image} pixels does not fit the network at {step.name}: nothing is left of it")
    return found | {"": size}


def seen(steps: Sequence[Step], sizes: Mapping[str, tuple[int, int]], position: Tensor) -> Tensor:
    """The pixels that units of the last step at position (..., 2) see: (..., 4) as (top, left, bottom, right), clipped.

    Walked down step by step, and clipped to each map on the way: at a border a unit sees padding, not pixels.
    """
    window = Window(position, position + 1)
    for step in reversed(steps):
        if windowed(step.module):
            window = window.below(step.module).clip(sizes[step.name])
    return torch.cat([window.low, window.high], -1)


@dataclass(frozen=True)
class ReceptiveField:
    """The input pixels that a unit of a layer sees: the unit at (r, c) sees `size` pixels from `offset` + r * `stride`."""

    size: int
    stride: int
    offset: int  # of the first unit; negative where padding reaches outside the image


def receptive_field(steps: Sequence[Step], layer: str) -> ReceptiveField:
    """Compute a convolutional layer's receptive field from the geometry of the steps below it.

    ZFNet's are 7, 27, 75, 107 and 139 pixels. Raises UnknownLayer, or UnsupportedNetwork where the field is not square.
    """
    names = [step.name for step in steps]
    if layer not in conv_layers(steps):
        raise UnknownLayer(unknown_layer(layer, list(steps)))
    cells = torch.tensor([[0, 0], [1, 1]])
    window = Window(cells, cells + 1)  # of the first unit, and of its neighbour
    for step in reversed(steps[: names.index(layer) + 1]):
        if windowed(step.module):
            window = window.below(step.module)
    if any(rows != columns for rows, columns in window.size.tolist() + window.low.tolist()):
        raise UnsupportedNetwork(f"the receptive field of {layer} is not square")
    (size, _), (first, _), (second, _) = window.size[0].tolist(), *window.low.tolist()
    return ReceptiveField(size, second - first, first)
