"""CAM, Grad-CAM, Grad-CAM++ and guided Grad-CAM against Captum and their equations."""

import threading

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import zfnet
from tests.attribution.test_gradients import TARGET, close, hooks
from tests.networks import BUILD, SIZE, Rectified, he, out_of_place, small_zfnet, two_images
from zfnet.attribution.cam import cam, grad_cam, grad_cam_plus_plus, guided_grad_cam
from zfnet.graph import Hook, UnknownLayer, UnsupportedNetwork

# The module of the default layer of each network, and the layer names that refer to it.
LAST_MODULE = {
    "zfnet": "relu5",
    "alexnet": "relu5",
    "mnist": "relu2",
    "vgg11": "features.19",
    "resnet18": "layer4",
}
NAMES = {
    "zfnet": ("conv5", "relu5"),
    "alexnet": ("conv5",),
    "mnist": ("conv2",),
    "vgg11": ("conv8", "relu8"),
    "resnet18": ("layer4.1",),
}


@pytest.fixture(scope="module", params=list(BUILD))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    return BUILD[name]()


@pytest.fixture(scope="module")
def x(network):
    return two_images(network)


def test_grad_cam_equals_captum(name, network, x):
    oracle = out_of_place(network)
    expected = captum.attr.LayerGradCam(oracle, oracle.get_submodule(LAST_MODULE[name])).attribute(
        x, TARGET, relu_attributions=True
    )
    a = grad_cam(network, x, TARGET)
    close(a.coarse, expected)
    upsampled = captum.attr.LayerAttribution.interpolate(expected, x.shape[2:], "bilinear")
    close(a.map, upsampled)
    assert a.pixels is None
    for layer in (LAST_MODULE[name], *NAMES[name]):
        close(grad_cam(network, x, TARGET, layer=layer).coarse, a.coarse)


def test_grad_cam_of_any_layer(name, network, x):
    """The output of a layer is recorded before an in-place ReLU overwrites it."""
    path = {"vgg11": "features.3", "resnet18": "layer2.0.bn1", "mnist": "relu1"}.get(name, "relu3")
    oracle = out_of_place(network)
    expected = captum.attr.LayerGradCam(oracle, oracle.get_submodule(path)).attribute(x, TARGET)
    assert (expected < 0).any()
    close(grad_cam(network, x, TARGET, layer=path).coarse, expected.relu())


@pytest.mark.filterwarnings(
    "ignore:Setting backward hooks", "ignore:Input Tensor", "ignore:.*non-full backward hook"
)
def test_guided_grad_cam_equals_captum(name, network, x):
    oracle = out_of_place(network)
    method = captum.attr.GuidedGradCam(oracle, oracle.get_submodule(LAST_MODULE[name]))
    expected = method.attribute(x.clone().requires_grad_(), TARGET, interpolate_mode="bilinear")
    a = guided_grad_cam(network, x, TARGET)
    close(a.pixels, expected)
    assert torch.equal(a.map, a.pixels.abs().amax(1, keepdim=True))


def activations_and_gradient(network, x, path, target):
    """Return a module's output and its gradient, by a hook; needs ReLUs that are not in-place."""
    network = out_of_place(network)
    outputs = []
    network.get_submodule(path).register_forward_hook(
        lambda m, i, o: (o.retain_grad(), outputs.append(o))[0]
    )
    network(x.clone().requires_grad_())[0, target].backward()
    return outputs[-1][0].detach().double(), outputs[-1].grad[0].double()


def test_grad_cam_plus_plus_equals_a_loop_over_positions(name, network, x):
    maps, g = activations_and_gradient(network, x[:1], LAST_MODULE[name], 3)
    channels, height, width = maps.shape
    total = torch.zeros(height, width, dtype=torch.float64)
    for k in range(channels):
        weight, area = 0.0, float(maps[k].sum())
        for i in range(height):
            for j in range(width):
                d = float(g[k, i, j])
                alpha = d**2 / (2 * d**2 + area * d**3) if d else 0.0
                weight += alpha * max(d, 0.0)
        total += weight * maps[k]
    close(grad_cam_plus_plus(network, x[:1], 3).coarse[0, 0].double(), total.relu())


def test_cam_of_resnet_averages_to_its_logits():
    model, x = (
        BUILD["resnet18"](),
        torch.randn(3, 3, SIZE, SIZE + 32, generator=torch.Generator().manual_seed(1)),
    )
    model.requires_grad_(False)
    maps = nn.Sequential(*list(model.children())[:-2])(x)  # the layers before global pooling
    target = torch.tensor([1, 5, 9])
    a = cam(model, x, target)
    for n, c in enumerate(target.tolist()):
        expected = sum(float(model.fc.weight[c, k]) * maps[n, k] for k in range(maps.shape[1]))
        close(a.coarse[n, 0], expected)
    logit = model(x).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(
        a.coarse.mean((1, 2, 3)) + model.fc.bias[target], logit, rtol=1e-4, atol=1e-4
    )
    assert (a.coarse < 0).any()  # no ReLU
    # For such networks Grad-CAM is ReLU(CAM) over the number of positions (Selvaraju et al., 3.1).
    close(grad_cam(model, x, target).coarse, a.coarse.relu() / a.coarse[0].numel())
    assert cam(model, x).target.tolist() == model(x).argmax(1).tolist()


def test_cam_with_a_cam_head():
    model, x = (
        small_zfnet("lrn"),
        torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
    )
    with pytest.raises(UnsupportedNetwork, match=r"use grad_cam, or set model.cam_head"):
        cam(model, x)
    weight = torch.randn(10, 16, generator=torch.Generator().manual_seed(2))
    model.cam_head = (weight, torch.zeros(10))
    maps = zfnet.trace(model, x)["conv5"]
    close(
        cam(model, x, TARGET).coarse,
        torch.stack([torch.tensordot(weight[c], m, 1) for c, m in zip(TARGET, maps, strict=True)])[
            :, None
        ],
    )
    model.cam_head = (weight[:, :3], torch.zeros(10))
    with pytest.raises(ValueError, match=r"weight \(10, 16\) and a bias \(10,\), got \(10, 3\)"):
        cam(model, x)


def test_cam_requires_global_average_pooling():
    class Cubed(Rectified):
        def forward(self, x):
            return super().forward(x) ** 3

    with pytest.raises(UnsupportedNetwork, match="does not end in global average pooling"):
        cam(Cubed(F.relu), torch.randn(1, 3, 21, 21))
    assert cam(Rectified(F.relu), torch.randn(1, 3, 21, 21)).map.shape == (1, 1, 21, 21)


@pytest.mark.parametrize(
    "relu",
    [nn.ReLU(), nn.ReLU(inplace=True), F.relu, lambda x: x.relu_()],
    ids=["module", "in-place module", "F.relu", "relu_"],
)
def test_last_maps_are_rectified_for_every_kind_of_relu(relu):
    x = torch.randn(1, 3, 21, 25, generator=torch.Generator().manual_seed(1))
    model = Rectified(relu)
    maps = F.max_pool2d(F.relu(model.conv1(x)), 2)
    maps = F.relu(model.conv2(maps)).detach()
    expected = torch.tensordot(model.fc.weight[2].detach(), maps[0], 1)
    close(cam(model, x, 2).coarse[0, 0], expected)


def small_chain(relu):
    """Return a network of three convolutions whose ReLUs are created by `relu()`."""
    layers = [
        nn.Conv2d(3, 6, 3),
        relu(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        relu(),
        nn.Conv2d(8, 8, 3, padding=1),
        relu(),
    ]
    torch.manual_seed(0)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@pytest.mark.parametrize("method", [grad_cam, grad_cam_plus_plus, guided_grad_cam])
def test_shared_relus(method):
    shared = nn.ReLU()
    with_shared, with_separate = small_chain(lambda: shared), small_chain(nn.ReLU)
    with_shared.load_state_dict(with_separate.state_dict())
    x = torch.randn(2, 3, 24, 28)
    for layer in ("conv1", "conv2", "conv3"):
        assert torch.equal(
            method(with_shared, x, 1, layer=layer).coarse,
            method(with_separate, x, 1, layer=layer).coarse,
        )


class NetworkHead(nn.Module):
    """Two convolutions with pooling, followed by one of several heads."""

    def __init__(self, head):
        super().__init__()
        self.features = small_chain(nn.ReLU)[:5]
        self.last, self.head = nn.Linear(8 if head == "norm of pooled" else 8 * 5 * 4, 5), head
        he(self)

    def forward(self, x):
        x = self.features(x)
        if self.head == "norm of pooled":  # as in ConvNeXt
            x = F.layer_norm(x.mean((2, 3), keepdim=True).permute(0, 2, 3, 1), (8,)).permute(
                0, 3, 1, 2
            )
            return self.last(x.flatten(1))
        x = F.max_pool2d(x, 2)
        if self.head == "channels last":  # as in networks ported from TensorFlow
            return self.last(x.permute(0, 2, 3, 1).reshape(len(x), -1))
        x = F.normalize(x, dim=1) if self.head == "normalized" else x
        return self.last(x.contiguous().view(len(x), -1))


@pytest.mark.parametrize("head", ["norm of pooled", "channels last", "normalized", "contiguous"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_operations_after_the_last_pooling_are_not_maps(head, order):
    model, x = NetworkHead(head), torch.randn(2, 3, 26, 22).contiguous(memory_format=order)
    expected = captum.attr.LayerGradCam(model, model.features[4]).attribute(
        x, 1, relu_attributions=True
    )
    close(grad_cam(model, x, 1).coarse, expected)


def test_hooks_are_per_thread():
    model, x = small_chain(nn.ReLU), torch.randn(2, 3, 24, 28)
    with Hook(model[0]) as hook:
        thread = threading.Thread(target=model, args=(x,))
        thread.start()
        thread.join()
        assert hook.maps is None
        model(x)
    assert torch.equal(hook.maps, model[0](x))


def test_hooks_are_removed_after_errors():
    model, x = BUILD["resnet18"](), torch.randn(1, 3, SIZE, SIZE)
    model.train()
    for method in (cam, grad_cam, grad_cam_plus_plus, guided_grad_cam):
        with torch.no_grad():
            method(model, x)
        assert hooks(model) == 0
    with pytest.raises(ValueError, match="class from 0 to 9"):
        grad_cam(model, x, 10, layer="layer3")
    with pytest.raises(ValueError, match="does not fit the network"):
        grad_cam(model, torch.randn(1, 4, SIZE, SIZE), layer="layer3")
    with pytest.raises(ValueError, match="does not fit the network"):
        grad_cam(model, torch.randn(1, 4, SIZE, SIZE))
    assert hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    torch.relu(x)  # the function mode is removed, too
    assert torch.overrides._get_current_function_mode() is None


def test_wrong_layers():
    x = torch.randn(1, 3, SIZE, SIZE)
    with pytest.raises(UnknownLayer, match="no layer 'conv9'; the network has conv1, conv2"):
        grad_cam(small_zfnet(), x, layer="conv9")
    with pytest.raises(UnknownLayer, match="the network has conv1, bn1, relu, maxpool, layer1"):
        grad_cam(BUILD["resnet18"](), x, layer="layer5")
    with pytest.raises(UnsupportedNetwork, match=r"fc7 has no feature maps .*\(1, 32\)"):
        grad_cam_plus_plus(small_zfnet(), x, layer="fc7")
    with pytest.raises(UnsupportedNetwork, match="Sequential has no feature maps"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4)), x)


def test_state_of_an_all_zero_map():
    model, x = small_zfnet(), torch.randn(1, 3, SIZE, SIZE)
    model.fc8.weight.data[2] = 0
    assert grad_cam(model, x, 2).state == ("all zero",)
    assert grad_cam_plus_plus(model, x, 2).state == ("all zero",)


def test_default_layer_does_not_depend_on_the_image_size():
    torch.manual_seed(0)
    model = torchvision.models.alexnet(num_classes=4).eval()
    # At 256 pixels, adaptive pooling shrinks maps that are already pooled.
    for side, size in ((224, 13), (256, 15)):
        x = torch.randn(1, 3, side, side)
        a = grad_cam(model, x, 1)
        assert a.coarse.shape[2:] == (size, size)
        close(a.coarse, grad_cam(model, x, 1, layer="conv5").coarse)


def test_cam_uses_the_input_of_global_pooling():
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ]
    model, x = nn.Sequential(*layers).eval(), torch.randn(2, 3, 32, 32)
    a = cam(model, x, 1)
    assert a.coarse.shape[2:] == (15, 15)
    torch.testing.assert_close(a.coarse.mean((1, 2, 3)) + model[5].bias[1], model(x)[:, 1])
    assert grad_cam(model, x, 1).coarse.shape[2:] == (30, 30)
