"""The list of layers, their supported functions, and the last feature maps of a network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

import zfnet
from tests.conftest import narrow_vgg11
from zfnet.attribution.cam import cam, grad_cam
from zfnet.graph import UnsupportedNetwork
from zfnet.layer_list import example_input, last_maps, list_layers, shaped_steps
from zfnet.receptive_field import ReceptiveField, cut, field_or_image


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_1", "googlenet", "inception_v3", "vgg11"]
)
def test_shapes_and_receptive_fields_match_trace(name):
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(models, name)(num_classes=5, **options) if name != "vgg11" else narrow_vgg11()
    model.eval()
    layers = list_layers(model, 96)
    t = zfnet.trace(model, torch.randn(1, 3, 96, 96))
    assert tuple(layer.name for layer in layers) == t.layers
    steps = shaped_steps(model, example_input(model, 96))
    for layer in layers:
        assert layer.shape == tuple(t[layer.name].shape[1:])
        assert layer.field == field_or_image(steps, layer.name), layer.name
        assert layer.reason is None
        assert "project" in layer.uses
        assert ("project_top" in layer.uses) == (layer.field is not None)


def test_fields_that_are_not_square_are_enlarged_to_squares():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, (1, 7), padding=(0, 3)),  # sees 1 x 7 pixels
        nn.ReLU(),
        nn.Conv2d(4, 4, (7, 1), padding=(3, 0)),  # sees 7 x 7
        nn.ReLU(),
        nn.MaxPool2d(2),  # sees 8 x 8
        nn.Conv2d(4, 5, (1, 5), padding=(0, 2)),  # sees 8 x 16
        nn.ReLU(),
        nn.Conv2d(5, 5, 3, stride=(1, 2)),  # strides differ
    ).eval()
    fields = {layer.name: layer.field for layer in list_layers(model, 40)}
    assert fields == {
        "conv1": ReceptiveField(7, 1, -3),
        "conv2": ReceptiveField(7, 1, -3),
        "conv3": ReceptiveField(16, 2, -7),
        "conv4": None,
    }
    x, steps = torch.randn(1, 3, 40, 40), shaped_steps(model, example_input(model, 40))
    for layer, field in fields.items():
        assert field_or_image(steps, layer) == field
        p = zfnet.project(model, x, layer, 0, (1, 2), crop=True)
        full = zfnet.project(model, x, layer, 0, (1, 2))
        (top, left, bottom, right), image = p.box[0].tolist(), full.pixels.clone()
        image[..., top:bottom, left:right] = 0
        assert not image.any()
        if field is not None:
            patch = cut(full.pixels, full.corner, field.size)
            torch.testing.assert_close(p.pixels, patch, rtol=1e-5, atol=1e-7)


def test_layers_list_their_supported_functions():
    layers = {layer.name: layer for layer in list_layers(models.efficientnet_b0(num_classes=3), 64)}
    first, gate = layers["features.0.0"], layers["features.1.0.block.1.fc1"]
    assert first.uses == ("trace", "top_activations", "grad_cam", "project", "project_top")
    assert first.field is not None
    assert first.field.size == 3
    assert gate.field is None  # after global pooling
    assert gate.uses == ("trace", "top_activations")
    assert gate.reason == "features.0.2: it is neither linear nor a rectifier"
    model = models.efficientnet_b0(num_classes=3).eval()
    with pytest.raises(UnsupportedNetwork, match=r"features.0.2 is a SiLU"):
        zfnet.project(model, torch.randn(1, 3, 64, 64), "features.1", 0)


def test_listing_runs_on_meta_and_preserves_the_mode():
    with torch.device("meta"):
        model = models.resnet18()
    before = [module.training for module in model.modules()]
    assert len(list_layers(model)) == 67
    assert [module.training for module in model.modules()] == before


class BranchedHead(nn.Module):
    """A network with one of several heads: gated maps, attention pooling, a decoder, an early head.

    The logits are computed from `maps` in the way given by `head`.
    """

    def __init__(self, head):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, padding=1)
        self.gate, self.decoder = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 3, 3, padding=1)
        self.early, self.fc, self.head = nn.Linear(6, 4), nn.Linear(8, 4), head

    def forward(self, x):
        stem = self.stem(x).relu()
        maps = self.conv(stem).relu()
        match self.head:
            case "gate":
                maps = maps * torch.sigmoid(self.gate(maps))
                return self.fc(maps.mean((2, 3)))
            case "pool by attention":
                weight = self.gate(maps).flatten(2).softmax(2)  # (N, 1, h w)
                return self.fc((maps.flatten(2) * weight).sum(2))
            case "decoder":
                self.decoder(F.interpolate(maps, scale_factor=2))
                return self.fc(maps.mean((2, 3)))
            case "early head":
                return self.fc(maps.mean((2, 3))) + self.early(stem.mean((2, 3)))
            case "flat":
                return self.fc(maps.flatten(2).mean(2))
            case "channels last":
                maps = maps.permute(0, 2, 3, 1)
                return self.fc(maps.mean((1, 2)))
        raise ValueError(self.head)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("head", ["gate", "decoder", "early head", "flat", "channels last"])
def test_default_maps_are_the_last_ones_before_the_logits(head, order):
    torch.manual_seed(0)
    model = BranchedHead(head).eval().to(memory_format=order)
    x = torch.randn(2, 3, 16, 12).contiguous(memory_format=order)
    a = grad_cam(model, x, 1)
    assert a.coarse.shape == (2, 1, 8, 6)
    maps = F.relu(model.conv(F.relu(model.stem(x)))).detach()
    if head == "gate":
        maps = (maps * model.gate(maps).sigmoid()).detach()
    expected = torch.einsum("nchw,c->nhw", maps, model.fc.weight[1].detach()).relu() / 48
    torch.testing.assert_close(a.coarse[:, 0], expected)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_cam_with_global_pooling_in_any_memory_layout(order):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]  # fmt: skip
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    x = torch.randn(1, 3, 32, 32)
    expected = cam(model, x, 1).coarse
    model, x = model.to(memory_format=order), x.contiguous(memory_format=order)
    torch.testing.assert_close(cam(model, x, 1).coarse, expected)
    assert expected.shape == (1, 1, 7, 7)


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny"])
def test_channels_last_maps_of_swin_and_convnext(name):
    """Their maps have shape (N, H, W, C) and are converted to (N, C, H, W)."""
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=3).eval().requires_grad_(False)
    x = torch.randn(1, 3, 64, 64)
    assert grad_cam(model, x, 1).coarse.shape == (1, 1, 2, 2)
    layer = "features.5.0" if name == "swin_t" else "features.5.0.block.2"
    outputs = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    handle.remove()
    maps = outputs[0]  # (1, 4, 4, C)
    assert maps.shape[1:3] == (4, 4)
    g = torch.autograd.grad(logits[0, 1], maps)[0].permute(0, 3, 1, 2)
    maps = maps.detach().permute(0, 3, 1, 2)
    expected = (g.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    torch.testing.assert_close(grad_cam(model, x, 1, layer=layer).coarse, expected)
    torch.testing.assert_close(zfnet.trace(model, x, until=layer)[layer], maps)
    top = zfnet.top_activations(model, x, layer, 1)[layer]
    torch.testing.assert_close(top.value[:, 0], maps[0].amax((1, 2)))
    assert top.position.amax() <= 3


def test_vision_transformer_has_no_feature_maps():
    model = models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=3).eval()
    with pytest.raises(
        UnsupportedNetwork, match=r"VisionTransformer has no feature maps .* encoder.ln returns tok"
    ):
        grad_cam(model, torch.randn(1, 3, 32, 32), 1)


def test_attention_pooling_requires_a_named_layer():
    model, x = BranchedHead("pool by attention").eval(), torch.randn(1, 3, 16, 12)
    with pytest.raises(UnsupportedNetwork, match="has no feature maps .* returns tokens"):
        last_maps(shaped_steps(model, x, to_result=True))
    assert grad_cam(model, x, 1, layer="conv").coarse.shape == (1, 1, 8, 6)
