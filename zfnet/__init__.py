"""ZFNet and its deconvnet: train it, visualize it, and reproduce Zeiler & Fergus (ECCV 2014)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zfnet.attribution.registry import METHODS, explain
    from zfnet.benchmarking import benchmark
    from zfnet.checkpoint import load, save
    from zfnet.data.digits import load_digits
    from zfnet.data.folders import load_folder
    from zfnet.data.images import preprocess
    from zfnet.data.samples import load_samples, photograph
    from zfnet.data.scenes import load_scenes
    from zfnet.explorer.notebook import explore
    from zfnet.forward import trace
    from zfnet.layer_list import list_layers
    from zfnet.model import alexnet, describe, fold, mnist, zfnet
    from zfnet.occlusion import occlude
    from zfnet.projection import project, project_top
    from zfnet.ranking import TopActivations
    from zfnet.top import top_activations
    from zfnet.training.evaluate import evaluate

__version__ = "0.1.0"

# In the order of a first session: a network, an image, and visualizations of both.
__all__ = [
    "zfnet", "alexnet", "mnist", "describe", "list_layers", "fold", "load", "save",
    "preprocess", "photograph", "load_samples", "load_folder", "load_scenes", "load_digits",
    "trace", "project", "top_activations", "TopActivations", "project_top", "occlude", "explain",
    "METHODS", "benchmark", "evaluate", "explore",
]  # fmt: skip

# A name is imported at its first use (PEP 562): torch takes seconds, which `zfnet --help` saves.
_MODULES = {
    "METHODS": "attribution.registry",
    "explain": "attribution.registry",
    "benchmark": "benchmarking",
    "load": "checkpoint",
    "save": "checkpoint",
    "load_digits": "data.digits",
    "load_folder": "data.folders",
    "preprocess": "data.images",
    "load_samples": "data.samples",
    "photograph": "data.samples",
    "load_scenes": "data.scenes",
    "explore": "explorer.notebook",
    "trace": "forward",
    "list_layers": "layer_list",
    "alexnet": "model",
    "fold": "model",
    "mnist": "model",
    "zfnet": "model",
    "occlude": "occlusion",
    "project": "projection",
    "project_top": "projection",
    "TopActivations": "ranking",
    "describe": "model",
    "top_activations": "top",
    "evaluate": "training.evaluate",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(f"zfnet.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and importlib.util.find_spec(f"zfnet.{name}"):
        return importlib.import_module(f"zfnet.{name}")  # a submodule, such as `zfnet.fast`
    raise AttributeError(f"module 'zfnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
