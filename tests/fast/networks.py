"""Networks of every kind that the accelerations support, with random weights."""

import torch
import torchvision

import zfnet
from tests.conftest import random_he


def vgg11():
    torch.manual_seed(0)
    return torchvision.models.vgg11(weights=None, num_classes=7)


def batchnorm():
    torch.manual_seed(0)
    model = zfnet.zfnet(7, norm="batch", fc=16)
    model(torch.randn(4, 3, 224, 224))  # running statistics of its own
    return model.eval()


NETWORKS = {
    "zfnet": lambda: random_he(zfnet.zfnet(7, norm="none", fc=16)),
    "zfnet-lrn": lambda: random_he(zfnet.zfnet(7, fc=16)),
    "zfnet-papers-input": lambda: random_he(zfnet.zfnet(7, fc=16, input="paper")),
    "zfnet-batchnorm": batchnorm,
    "alexnet": lambda: random_he(zfnet.alexnet(7, fc=16)),
    "alexnet-groups": lambda: random_he(zfnet.alexnet(7, fc=16, groups=2)),
    "torchvision-alexnet": lambda: torchvision.models.alexnet(weights=None, num_classes=7),
    "vgg11": vgg11,
}
