"""Load any network by name: a bundled one, a checkpoint, or a classifier of torchvision.

A loaded network has three attributes that the rest of the package reads: `classes` (the names of
its outputs), `wnids` (their WordNet ids) and `size` (the side of its square input in pixels).
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zfnet.checkpoint import BUNDLED, CheckpointError, assign, load, structure
from zfnet.data.images import MEAN, STD
from zfnet.data.io import expand_path
from zfnet.data.labels import ILSVRC_2012, imagenet_names, names_digest
from zfnet.data.tensor_file import read_metadata

TORCHVISION = "torchvision:"
UNTRAINED = "random"
# torchvision's port of these weights from TensorFlow expects inputs in [-1, 1]: the network
# converts its input. The weights include auxiliary classifiers, which only training uses.
PORTED = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# torchvision renames these keys when it loads its own DenseNet weights ("norm.1" to "norm1").
DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def load_network(name: str | Path, weights: str | Path | None = None) -> nn.Module:
    """Load a network for analysis: evaluation mode, float32, CPU, gradients off.

    Args:
        name: A bundled name ("imagenet65k"), the path of a checkpoint, or "torchvision:NAME", where
            NAME is a classifier of `torchvision.models`, such as "torchvision:resnet18".
        weights: Only for torchvision. The path of a state dict (.pth, .pt or .safetensors), or
            "random" for an untrained network (seed 0). None loads torchvision's default weights,
            which torchvision downloads once and keeps in its cache.

    Returns:
        The network, with `classes` (names), `wnids` (WordNet ids) and `size` (pixels). Images are
        resized to 256/224 of `size` and cropped, as in the paper. torchvision evaluated some of its
        weights with another resize (232, say), so their accuracy may differ slightly here.

    Raises:
        CheckpointError: The name is unknown, or the weights cannot be found, downloaded or used.

    Example:
        >>> model = load_network("torchvision:squeezenet1_1", weights="random")
        >>> model.classes[281], model.wnids[281], model.size
        ('tabby', 'n02123045', 224)
    """
    if not str(name).startswith(TORCHVISION):
        _refuse_builder_name(name)
        if weights is not None:
            raise CheckpointError(
                f"{name} includes its weights; weights={str(weights)!r} is only for "
                "torchvision:NAME"
            )
        return load(name)
    builder = _builder_name(name)
    if weights != UNTRAINED:
        _check_normalization(builder)
    state = None if weights in (None, UNTRAINED) else _read_state(weights)
    with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if weights is None:
            model = _download(builder)
        else:
            model = _build(builder, pretrained=state is not None)
            if state is not None:
                _assign_foreign(model, builder, state, str(weights))
    return _labeled(model, builder).float().eval().requires_grad_(False)


def load_structure(name: str | Path) -> nn.Module:
    """Build a network without its weights: all parameters are on the meta device.

    Args:
        name: As in `load_network`. Nothing is downloaded, and a checkpoint's weights are not read.

    Returns:
        The network in evaluation mode, with `classes`, `wnids` and `size`.

    Raises:
        CheckpointError: The name is unknown.

    Example:
        >>> load_structure("torchvision:alexnet").features[0].weight.device
        device(type='meta')
    """
    if not str(name).startswith(TORCHVISION):
        _refuse_builder_name(name)
        return structure(name)
    builder = _builder_name(name)
    with torch.random.fork_rng(devices=[]), _EmptyOnMeta():
        model = _build(builder, pretrained=True)
    return _labeled(model, builder).to("meta").eval().requires_grad_(False)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1000 WordNet ids of ILSVRC 2012 in sorted order, the order of the outputs.

    torchvision has only the names. The ids are in the description of a bundled checkpoint.
    """
    for path in sorted(BUNDLED.glob("*.safetensors")):
        wnids = read_metadata(path)["wnids"]
        if names_digest(wnids) == ILSVRC_2012:
            return tuple(wnids)
    raise CheckpointError(f"{BUNDLED}: no bundled checkpoint with the 1000 classes of ILSVRC 2012")


class _EmptyOnMeta(TorchFunctionMode):
    """Create uninitialized tensors, which become parameters, on the meta device.

    `torch.device("meta")` would also move the numbers that RegNet computes its widths from.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def _refuse_builder_name(name: str | Path) -> None:
    """Raise CheckpointError for "resnet18" without its prefix, unless a file has this name."""
    if (BUNDLED / f"{name}.safetensors").exists() or expand_path(name).exists():
        return
    if str(name) in _builders():
        raise CheckpointError(
            f"no bundled network {str(name)!r}; did you mean {TORCHVISION}{name}?"
        )


@cache
def _builders() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.list_models(module=models))


def _builder_name(name: str | Path) -> str:
    builder = str(name).removeprefix(TORCHVISION)
    if builder not in _builders():
        near = difflib.get_close_matches(builder, _builders(), 3, 0.5) or ["resnet18", "vgg16"]
        raise CheckpointError(
            f"torchvision has no classifier {builder!r}; did you mean {' or '.join(near)}?"
        )
    return builder


def _default_weights(builder: str) -> Any:
    from torchvision import models

    return models.get_model_weights(builder).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]


def _check_normalization(builder: str) -> None:
    transforms = _default_weights(builder).transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if (mean, std) != (MEAN, STD):
        raise CheckpointError(
            f"torchvision:{builder}: its weights need inputs normalized by mean {mean} and "
            f"standard deviation {std}; only {MEAN} and {STD} are supported"
        )


def _build(builder: str, *, pretrained: bool) -> nn.Module:
    """Build an architecture as torchvision builds it for its own weights, without loading any."""
    from torchvision import models

    options: dict[str, Any] = {}
    if builder in PORTED:
        options = {
            "transform_input": pretrained,
            "aux_logits": False,
            "init_weights": not pretrained,
        }
    if builder.startswith("vit_"):
        options = {"image_size": _size(builder)}
    return models.get_model(builder, weights=None, **options)


def _download(builder: str) -> nn.Module:
    from torchvision import models

    weights = _default_weights(builder)
    try:
        return models.get_model(builder, weights=weights)
    except (OSError, RuntimeError) as error:  # no network, or a download with the wrong hash
        raise CheckpointError(
            f"torchvision:{builder}: cannot download {weights.url} ({error}); pass weights: "
            f"the path of a state dict, or {UNTRAINED} for an untrained network"
        ) from None


def _read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file."""
    path = expand_path(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # the unpickler raises many types
        reason = (str(error) or repr(error)).splitlines()[0]
        raise CheckpointError(f"{path}: not a file of tensors from torch.save ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        content = (
            f"a dict of {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else ""
        )
        raise CheckpointError(
            f"{path}: expected a state dict (names to tensors), "
            f"got {content or type(state).__name__}"
        )
    return state


def _assign_foreign(model: nn.Module, builder: str, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict, in today's keys or in those of torchvision's own files."""
    auxiliary = PORTED.get(builder, ())
    for key in list(state):
        if key.startswith(auxiliary or ("\0",)):
            del state[key]
        elif builder.startswith("densenet") and key != (new := DENSENET_KEY.sub(r"\1\2.", key)):
            state[new] = state.pop(key)
    for key, tensor in model.state_dict().items():  # absent before PyTorch 0.4.1
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, tensor)
    try:
        assign(model, state, source)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{source}: {str(error).splitlines()[0]}") from None


def _size(builder: str) -> int:
    """Return the side in pixels of the images that torchvision's default weights take."""
    return int(_default_weights(builder).transforms().crop_size[0])


def _labeled(model: nn.Module, builder: str) -> nn.Module:
    """Set `classes`, `wnids` and `size`, which torchvision's classifiers do not use."""
    network: Any = model
    network.classes, network.wnids = list(imagenet_names()), list(imagenet_wnids())
    network.size = _size(builder)
    return model
