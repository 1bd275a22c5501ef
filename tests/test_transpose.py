"""The deconvnet of branching networks against Captum and autograd with a custom ReLU."""

from functools import partial

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models

import zfnet
from tests.networks import out_of_place
from zfnet.graph import UnsupportedNetwork
from zfnet.projection import read_images

SIZE = 64
# Convolutions, blocks, branches, pooling and dense layers.
LAYERS = {
    "resnet18": ("conv1", "layer2.0.downsample.1", "layer3.0.conv2", "layer4", "fc"),
    "resnet50": ("layer2.1.conv3",),
    "squeezenet1_1": ("features.3.expand3x3", "features.8", "classifier"),
    "shufflenet_v2_x0_5": ("stage2.1", "stage3.2.branch2.5", "fc"),
    "mnasnet0_5": ("layers.8.1", "layers.11", "classifier"),
    "googlenet": ("inception3a.branch2", "inception4b", "fc"),
    "densenet121": ("features.denseblock1", "features.transition1", "classifier"),
    "mobilenet_v2": ("features.5.conv.0", "features.9", "classifier"),
    "own": ("deep", "block", "fc"),
}
CAPTUM = ("resnet18", "resnet50", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5")


class FunctionalResidual(nn.Module):
    """A residual network with functional sums, products, averages and a leaky ReLU."""

    def __init__(self):
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 8, 3, padding=1)
        self.block, self.fc = nn.Conv2d(16, 8, 3, padding=1, groups=2), nn.Linear(16, 5)
        self.register_buffer("gain", torch.tensor([0.5, 2.0]))

    def forward(self, x):
        x = F.leaky_relu(self.stem(x) * self.gain[0] - 0.1, 0.2, inplace=True)
        shortcut = F.avg_pool2d(x, 2)
        x = torch.max_pool2d(self.deep(x).relu_(), 3, 2, 1)
        x = torch.stack([x, shortcut / self.gain[1]]).sum(0)
        first, second = x.split([3, 5], 1)
        x = torch.cat([second, first, F.pad(F.relu6(x)[:, :, 1:], (0, 0, 1, 0))], dim=1)
        x = sum([self.block(x), x[:, :8], x.narrow(1, 8, 8)])
        x = F.hardtanh(F.interpolate(x, scale_factor=2), 0.0, 4.0).transpose(2, 3)
        pooled = [x.mean((2, 3)), F.adaptive_avg_pool2d(x, 1).view(x.shape[0], 8)]
        return self.fc(torch.cat(pooled, -1))


def build(name):
    """Return a network with random weights and BatchNorm statistics of random images."""
    torch.manual_seed(0)
    options = {"transform_input": True, "init_weights": False} if name == "googlenet" else {}
    model = (
        FunctionalResidual() if name == "own" else getattr(models, name)(num_classes=7, **options)
    )
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    for norm in norms:
        norm.momentum = None  # use the statistics of one pass
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(std=0.1)
        norm.train()
    if norms:
        with torch.no_grad():
            model.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
            model(torch.randn(4, 3, SIZE, SIZE))
    return model.eval().requires_grad_(False)


class Rectify(torch.autograd.Function):
    """A rectifier whose backward pass rectifies the gradient."""

    @staticmethod
    def forward(ctx, x, function):
        return function(x)

    @staticmethod
    def backward(ctx, *grads):
        return grads[0].clamp_min(0), None


INFINITY = float("inf")
KINDS = {  # lower bound, upper bound, slope below
    F.relu: (0, INFINITY, 0), torch.relu: (0, INFINITY, 0), torch.Tensor.relu_: (0, INFINITY, 0), F.relu6: (0, 6, 0),
    F.leaky_relu: (0, INFINITY, 0.2), F.hardtanh: (0, 4, 0),
}  # fmt: skip


class RectifyGradients(TorchFunctionMode):
    """Replace every ReLU of a forward pass by `Rectify`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func not in KINDS:
            return func(*args, **(kwargs or {}))
        low, high, slope = KINDS[func]
        if func is F.hardtanh and kwargs.get("max_val", 4) == 6:  # nn.ReLU6
            high = 6
        return Rectify.apply(
            args[0], lambda x: x.detach().clamp(low, high) + slope * x.detach().clamp_max(0)
        )


def project_by_autograd(model, x, layer, channel, position):
    """Return the deconvnet projection of a unit by backpropagation through custom ReLUs."""
    outputs, leaf = [], x.clone().requires_grad_()
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda m, inputs, output: outputs.append(output))
    with RectifyGradients():
        model(leaf)
    handle.remove()
    maps = outputs[-1] if outputs[-1].ndim == 4 else outputs[-1][:, :, None, None]
    activation = maps[0, channel, *position]
    return torch.autograd.grad(activation, leaf)[0] * activation.detach()


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("name", LAYERS)
def test_projection_equals_captum_and_autograd(name):
    model = build(name)
    oracle = out_of_place(model)
    generator = torch.Generator().manual_seed(1)
    for i, layer in enumerate(LAYERS[name]):
        order = (torch.contiguous_format, torch.channels_last)[i % 2]
        x = torch.randn(1, 3, SIZE, SIZE, generator=generator).contiguous(memory_format=order)
        original = x.clone()
        maps = zfnet.trace(model, x, until=layer)[layer]
        maps = maps if maps.ndim == 4 else maps[:, :, None, None]
        channel = int(maps[0].amax((1, 2)).argmax())
        p = zfnet.project(model, x, layer, channel)
        assert torch.equal(x, original)
        assert p.activation > 0
        position = p.position[0].tolist()
        expected = project_by_autograd(oracle, x, layer, channel, position)
        assert (p.pixels - expected).abs().max() <= 1e-5 * expected.abs().max(), layer
        if name in CAPTUM:
            unit = (
                (channel, *position)
                if layer not in ("fc", "classifier") or name.startswith("sq")
                else channel
            )
            method = captum.attr.NeuronDeconvolution(oracle, oracle.get_submodule(layer))
            captum_pixels = (
                method.attribute(x.clone().requires_grad_(), unit).detach() * p.activation
            )
            assert (p.pixels - captum_pixels).abs().max() <= 1e-5 * captum_pixels.abs().max(), layer
        top, left, bottom, right = p.box[0].tolist()
        outside = p.pixels.clone()
        outside[..., top:bottom, left:right] = 0
        assert outside.abs().max() == 0
        with zfnet.fast.disabled():
            unaccelerated = zfnet.project(model, x, layer, channel)
        assert (unaccelerated.pixels - p.pixels).abs().max() <= 1e-5 * p.pixels.abs().max(), layer


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "own"])
def test_top_activations_and_project_top_of_branching_networks(name):
    """Compare with sorting all activations, and with individual projections."""
    layers = {
        "resnet18": ("layer2.0", "layer1.1.conv2", "layer2.0.downsample"),
        "squeezenet1_1": ("features.3", "features.4.squeeze"),
        "own": ("stem", "block", "fc"),
    }[name]
    model = build(name)
    images = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    top = zfnet.top_activations(model, images, layers, 3, batch=6)
    t = zfnet.trace(model, images)
    for layer in layers:
        maps = t[layer] if t[layer].ndim == 4 else t[layer][:, :, None, None]
        value, cell = maps.flatten(2).max(2)
        value, index = value.T.sort(dim=1, descending=True, stable=True)
        torch.testing.assert_close(top[layer].value, value[:, :3])
        assert torch.equal(top[layer].index, index[:, :3])
        position = torch.stack([cell // maps.shape[3], cell % maps.shape[3]], -1).transpose(0, 1)
        rows = torch.arange(len(index))[:, None]
        assert torch.equal(top[layer].position, position[rows, index[:, :3]])
    layer = layers[0]
    original_index = top[layer].index.clone()
    top[layer].index[2:] = -1
    count = 0
    for name, rank, p in zfnet.project_top(model, images, top, layer):
        x = read_images(images, top[name].index[p.channel, rank].tolist(), torch.device("cpu"))
        single = zfnet.project(model, x, layer, p.channel, p.position, crop=True)
        torch.testing.assert_close(p.pixels, single.pixels, rtol=1e-4, atol=1e-6)
        assert torch.equal(p.box, single.box)
        count += len(rank)
    assert count == 6
    top[layer].index[:] = original_index


def test_layers_above_the_requested_one_are_not_computed():
    model, calls = build("resnet18"), []

    def record_call(path, module, inputs, output):
        if not output.is_meta:
            calls.append(path)

    for path, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(partial(record_call, path))
    x = torch.randn(2, 3, SIZE, SIZE)
    for function in (
        lambda: zfnet.trace(model, x, until="layer1.1.conv1"),
        lambda: zfnet.project(model, x, "layer1.1.conv1", 3),
        lambda: zfnet.top_activations(model, x, ("layer1.1.conv1", "conv1"), 2),
    ):
        calls.clear()
        function()
        assert "layer1.1.conv1" in calls
        assert not [path for path in calls if path.startswith(("layer2", "layer1.1.bn1", "fc"))]


class Adaptive(nn.Module):
    """Adaptive max pooling with overlapping windows of several sizes, as a module and a function."""

    def __init__(self):
        super().__init__()
        self.conv1, self.pool = nn.Conv2d(3, 6, 5, 2), nn.AdaptiveMaxPool2d((13, 9))
        self.conv2, self.fc = nn.Conv2d(6, 8, 3), nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.conv2(self.pool(self.conv1(x).relu_())))
        x = x + 0.5 * x  # not a chain
        return self.fc(F.adaptive_max_pool2d(x, (2, 1)).flatten(1))


def test_adaptive_max_pooling_is_unpooled_at_its_switches():
    torch.manual_seed(0)
    model, x = Adaptive().eval().requires_grad_(False), torch.randn(1, 3, SIZE, SIZE)
    for layer in ("conv2", "fc"):
        values = zfnet.trace(model, x)[layer]
        channel = int(
            values[0].flatten(1).amax(1).argmax() if layer == "conv2" else values[0].argmax()
        )
        p = zfnet.project(model, x, layer, channel)
        assert p.activation > 0
        expected = project_by_autograd(model, x, layer, channel, p.position[0].tolist())
        assert expected.abs().max() > 0
        torch.testing.assert_close(p.pixels, expected, rtol=1e-5, atol=1e-6)
        twice = zfnet.project(model, x, layer, torch.tensor([3, 3]), collision="overwrite")
        assert twice.pixels.shape == (2, 3, SIZE, SIZE)
    layers = {layer.name: layer.uses for layer in zfnet.list_layers(model, SIZE)}
    assert "project" in layers["fc"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_project_top_and_occlude_in_half_precision(dtype):
    """Results have the dtype of the network and equal those in float32 up to rounding."""
    torch.manual_seed(0)
    model, x = build("own"), torch.rand(2, 3, 32, 32)
    full = zfnet.project(model, x[:1], "deep", 2, (3, 3))
    occluded = zfnet.occlude(model, x, 1, size=8, stride=8)
    model, x, tolerance = model.to(dtype), x.to(dtype), 50 * torch.finfo(dtype).eps

    def assert_near(a, b):
        assert a.dtype == dtype
        assert (a.float() - b).abs().max() <= tolerance * b.abs().max()

    assert_near(zfnet.project(model, x[:1], "deep", 2, (3, 3)).pixels, full.pixels)
    assert_near(zfnet.occlude(model, x, 1, size=8, stride=8).logit, occluded.logit)
    top = zfnet.top_activations(model, x, "deep", k=2)
    parts = [p for _, _, p in zfnet.project_top(model, x, top)]
    assert sum(len(p.pixels) for p in parts) == 16
    assert all(p.pixels.isfinite().all() for p in parts)


def test_projection_of_a_graph_without_relu_is_the_gradient():
    class Linear(FunctionalResidual):
        def forward(self, x):
            x = self.stem(x)
            return F.avg_pool2d(torch.cat([self.deep(x), x], 1), 2)

    model, x = Linear().eval(), torch.randn(1, 3, 16, 16, requires_grad=True)
    value = model.deep(model.stem(x))[0, 2, 1, 1]
    expected = torch.autograd.grad(value, x)[0] * value.detach()
    p = zfnet.project(model, x.detach(), "deep", 2, (1, 1))
    torch.testing.assert_close(p.pixels, expected)


def test_projection_without_relu_is_the_gradient():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3)).eval()
    x = torch.randn(1, 3, 12, 12, requires_grad=True)
    value = model(x)[0, 2, 1, 1]
    expected = torch.autograd.grad(value, x)[0] * value.detach()
    p = zfnet.project(model, x.detach(), "conv2", 2, (1, 1))
    torch.testing.assert_close(p.pixels, expected)


def test_layer_without_maps_is_rejected():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.LayerNorm(4)

        def forward(self, x):
            maps = self.conv(x)
            maps = maps + maps.mean(1, keepdim=True)
            return self.norm(maps.flatten(2).transpose(1, 2)).mean(1)

    model, x = Tokens().eval(), torch.randn(1, 3, 8, 8)
    for function in (zfnet.project, lambda m, x, layer, _: zfnet.top_activations(m, x, layer)):
        with pytest.raises(UnsupportedNetwork, match=r"norm returns \('N', 36, 4\), neither maps"):
            function(model, x, "norm", 0)
    assert zfnet.trace(model, x)["norm"].shape == (1, 36, 4)


@pytest.mark.parametrize("channels", [1, 4])
def test_wrong_input_names_the_operation(channels):
    model = build("resnet18")
    with pytest.raises(ValueError, match="does not fit the network at conv1: .*channels"):
        zfnet.project(model, torch.randn(1, channels, SIZE, SIZE), "layer1", 0)
