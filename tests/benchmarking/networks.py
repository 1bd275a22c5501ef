"""A small network, images and cases for tests of metrics."""

import torch
from torch import nn

from zfnet.attribution.custom import call_method
from zfnet.benchmarking import Case

SIDE = 12


def small_net(channels=1, classes=5):
    """Return a random network of two convolutions, pooling and two dense layers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 36, 16), nn.ReLU(), nn.Linear(16, classes),
    )  # fmt: skip
    return model.eval().requires_grad_(False)


def image_batch(n=4, channels=1):
    return torch.randn(n, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def gradient_x_input(model, x, target):
    """Compute gradient x input independently of the library, with one value per pixel and channel."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        score = model(leaf).gather(1, target[:, None]).sum()
        return leaf.detach() * torch.autograd.grad(score, leaf)[0]


def make_case(method=gradient_x_input, model=None, x=None, mask=None, batch=7):
    model = small_net() if model is None else model
    x = image_batch() if x is None else x
    target = model(x).argmax(1)
    result = call_method(method, "method", model, x, target)
    return Case(model, x, target, result.map, mask, method, "method", 3, batch, result.pixels)


def disc_mask(n=4):
    mask = torch.zeros(n, SIDE, SIDE, dtype=torch.bool)
    mask[:, 3:8, 2:9] = True
    return mask
