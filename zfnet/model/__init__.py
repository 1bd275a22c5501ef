"""ZFNet, AlexNet and every ablation of Table 3, as tables of layers with options."""

from zfnet.model.architectures import (
    ARCHITECTURES,
    Network,
    alexnet,
    fold,
    mnist,
    unwrap_network,
    zfnet,
)
from zfnet.model.modules import device_of, evaluating, unwrap
from zfnet.model.summary import Row, describe

__all__ = [
    "ARCHITECTURES", "Network", "zfnet", "alexnet", "mnist", "fold", "unwrap_network",
    "device_of", "evaluating", "unwrap", "Row", "describe",
]  # fmt: skip
