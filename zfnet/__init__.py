"""ZFNet and its deconvnet: train it, look inside it, and regenerate the figures of Zeiler & Fergus (ECCV 2014)."""

from zfnet.checkpoint import load
from zfnet.data.images import preprocess
from zfnet.model import alexnet, describe, zfnet

__all__ = ["zfnet", "alexnet", "describe", "load", "preprocess"]
