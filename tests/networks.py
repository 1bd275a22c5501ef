"""Networks for attribution tests: chains, residual networks, and in-place or functional ReLUs."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

import zfnet
from tests.conftest import narrow_vgg11, random_he
from zfnet.model import Network

SIZE = 64  # image height; the width is 64 or 80


def he(model):
    """Set He weights and small random biases in any network, and return it in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.data = (
                torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5
            )
            if module.bias is not None:
                module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.1
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    return model.eval()


def vgg11():
    model = narrow_vgg11(10)
    model.classifier = nn.Sequential(
        nn.Linear(64 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10)
    )
    return he(model)


def resnet18():
    return he(models.resnet18(num_classes=10))


def small_zfnet(norm="none"):
    return random_he(
        zfnet.zfnet(10, norm=norm, channels=(16, 24, 24, 24, 16), fc_units=32, size=SIZE)
    )


def small_alexnet():
    return random_he(
        zfnet.alexnet(10, norm="none", channels=(16, 24, 24, 24, 16), fc_units=32, size=SIZE)
    )


def mnist():
    return random_he(zfnet.mnist(10, norm="none"))


BUILD = {
    "zfnet": small_zfnet,
    "alexnet": small_alexnet,
    "mnist": mnist,
    "vgg11": vgg11,
    "resnet18": resnet18,
}


def two_images(model):
    """Return two random images: square for our networks, non-square for torchvision's."""
    size = (model.size, model.size) if isinstance(model, Network) else (SIZE, SIZE + 16)
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


class Rectified(nn.Module):
    """A small network with global pooling that uses the given `relu`."""

    def __init__(self, relu):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 6, 5, 2), nn.Conv2d(6, 8, 3), nn.Linear(8, 4)
        self.relu = relu
        he(self)

    def forward(self, x):
        x = F.max_pool2d(self.relu(self.conv1(x)), 2)
        return self.fc(self.relu(self.conv2(x)).mean((2, 3)))


def out_of_place(model):
    """Return a copy whose ReLU modules are not in-place, as Captum's hooks require."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model
