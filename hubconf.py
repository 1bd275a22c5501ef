"""Entry points of `torch.hub`: `torch.hub.load("OWNER/zfnet", "zfnet", classes=10)`."""

from zfnet import alexnet, zfnet
from zfnet import load as _load

dependencies = [
    "torch",
    "torchvision",
    "numpy",
    "PIL",
    "safetensors",
    "tqdm",
    "filelock",
    "platformdirs",
    "pydantic",
]
__all__ = ["alexnet", "pretrained", "zfnet"]  # hub lists every public function of this module


def pretrained(name: str = "imagenet65k"):
    """Load a bundled network in evaluation mode, as `zfnet.load` does.

    Args:
        name: A bundled network.

    Returns:
        The network; `classes` and `wnids` name its outputs.

    Example:
        >>> model = torch.hub.load("OWNER/zfnet", "pretrained")
    """
    return _load(name)
