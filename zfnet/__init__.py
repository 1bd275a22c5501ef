"""ZFNet and its deconvnet: train it, look inside it, and regenerate the figures of Zeiler & Fergus (ECCV 2014)."""

from zfnet.activations import receptive_field, trace
from zfnet.checkpoint import load, save
from zfnet.data.folders import load_folder
from zfnet.data.images import preprocess
from zfnet.data.samples import load_samples, photograph
from zfnet.data.scenes import load_scenes
from zfnet.deconv import project
from zfnet.model import alexnet, describe, fold, zfnet
from zfnet.occlusion import occlude
from zfnet.top import TopActivations, top_activations
from zfnet.train import evaluate, train

__version__ = "0.1.0"

# In the order a reader meets them: a network, an image, what it does inside, and how it was trained.
__all__ = [
    "TopActivations",
    "alexnet",
    "describe",
    "evaluate",
    "fold",
    "load",
    "load_folder",
    "load_samples",
    "load_scenes",
    "occlude",
    "photograph",
    "preprocess",
    "project",
    "receptive_field",
    "save",
    "top_activations",
    "trace",
    "train",
    "zfnet",
]  # fmt: skip
