"""Random networks of all kinds that the accelerations support."""

import torch
import torchvision

import zfnet
from tests.conftest import narrow_vgg11, random_he

# Fewer channels and units, with the geometry of the bundled network.
NARROW = {"channels": (16, 24, 24, 24, 16), "fc_units": 16}


def batchnorm():
    torch.manual_seed(0)
    model = zfnet.zfnet(7, norm="batch", **NARROW)
    model(torch.randn(4, 3, 224, 224))  # sets the running statistics
    return model.eval()


NETWORKS = {
    "zfnet": lambda: random_he(zfnet.zfnet(7, norm="none", fc_units=16)),
    "zfnet-lrn": lambda: random_he(zfnet.zfnet(7, **NARROW)),
    "zfnet-papers-input": lambda: random_he(zfnet.zfnet(7, **NARROW, input="paper")),
    "zfnet-batchnorm": batchnorm,
    "alexnet": lambda: random_he(zfnet.alexnet(7, **NARROW)),
    "alexnet-groups": lambda: random_he(zfnet.alexnet(7, **NARROW, groups=2)),
    "torchvision-alexnet": lambda: torchvision.models.alexnet(weights=None, num_classes=7),
    "vgg11": narrow_vgg11,
}
