"""ZFNet and its deconvnet: train it, visualize it, and reproduce Zeiler & Fergus (ECCV 2014)."""

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
