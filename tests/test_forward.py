"""One forward pass: trace, run, and the checks of their input."""

import pytest
import torch
import torchvision
from torch import nn

import zfnet
from zfnet.forward import max_pool
from zfnet.graph import UnknownLayer, UnsupportedNetwork


def test_trace_keeps_rectified_maps_before_pooling(plain_zfnet, photographs):
    t = zfnet.trace(plain_zfnet, photographs)
    assert t.layers == ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    assert {n: tuple(t[n].shape[1:]) for n in ("conv1", "conv5", "fc7")} == {
        "conv1": (96, 110, 110),
        "conv5": (256, 13, 13),
        "fc7": (32,),
    }
    conv1 = plain_zfnet.relu1(plain_zfnet.conv1(photographs))
    torch.testing.assert_close(t["conv1"], conv1)
    pooled, switches = nn.functional.max_pool2d(conv1, 3, 2, ceil_mode=True, return_indices=True)
    torch.testing.assert_close(t["pool1"], pooled)
    assert torch.equal(t.switches["pool1"], switches)
    torch.testing.assert_close(t.logits, plain_zfnet(photographs))
    assert t["fc7"].min() >= 0


def test_trace_stops_at_the_requested_layer(plain_zfnet, photographs):
    # Layers below the dense ones accept any image size.
    t = zfnet.trace(plain_zfnet, photographs[:1, :, :150, :170], until="conv5")
    assert t.logits is None
    assert t.layers[-1] == "conv5"
    with pytest.raises(UnknownLayer, match="no layer 'fc7' in this trace"):
        t["fc7"]


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn"])
def test_torchvision_networks_are_traced(name, photographs):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    x = photographs[:2, :, :96, :96]
    t = zfnet.trace(model, x)
    convs = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert t.layers == (
        *(f"conv{i + 1}" for i in range(convs)),
        *(f"fc{convs + i}" for i in (1, 2, 3)),
    )
    torch.testing.assert_close(t.logits, model(x))
    # All layers are rectified.
    assert all(t[layer].min() >= 0 for layer in t.layers[:-1])
    assert t["conv1"].max() > 0


def test_trace_preserves_mode_buffers_and_hooks(photographs):
    model = zfnet.zfnet(4, fc_units=8, norm="batch")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.drop6.eval()
    a, b = zfnet.trace(model, photographs).logits, zfnet.trace(model, photographs).logits
    assert torch.equal(a, b)  # dropout is inactive
    assert model.training
    assert not model.drop6.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 224, 224),
        torch.zeros(1, 1, 224, 224),
        torch.zeros(1, 3, 224, 224, dtype=torch.uint8),
        "cat.jpg",
        torch.zeros(1, 3, 224, 224).double(),
        torch.zeros(0, 3, 224, 224),
    ],
)
def test_wrong_input_is_a_value_error(plain_zfnet, x):
    with pytest.raises(
        ValueError, match=r"expected a float batch|does not fit the network at conv1|float64"
    ):
        zfnet.trace(plain_zfnet, x)


@pytest.mark.parametrize("side", [5, 8, 20])
def test_too_small_image_is_a_value_error(plain_zfnet, side):
    x = torch.randn(2, 3, side, side)
    for options in ({}, {"crop": True}, {"position": (0, 0)}):
        with pytest.raises(ValueError, match="does not fit the network at"):
            zfnet.project(plain_zfnet, x, "conv5", 1, **options)
    with pytest.raises(ValueError, match="does not fit the network"):
        zfnet.explain(plain_zfnet, x, "saliency", 1)


def test_slice_of_a_network_is_a_chain(plain_zfnet, photographs):
    part = plain_zfnet[:3]
    assert list(dict(part.named_children())) == ["conv1", "relu1", "pool1"]
    torch.testing.assert_close(part(photographs), zfnet.trace(plain_zfnet, photographs)["pool1"])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_pooling_preserves_the_memory_layout(order):
    pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    x = torch.randn(2, 5, 12, 9).round().contiguous(memory_format=order)  # rounding makes ties
    pooled, switches = max_pool(pool, x)
    expected = nn.functional.max_pool2d(
        x.contiguous(), 3, 2, 1, ceil_mode=True, return_indices=True
    )
    assert torch.equal(pooled, expected[0])
    assert torch.equal(switches, expected[1])
    assert pooled.is_contiguous(memory_format=order)


def test_images_are_occluded_one_by_one_if_the_network_normalizes_by_the_batch():
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 4)
    ).eval()
    x = torch.randn(1, 3, 16, 16)
    o = zfnet.occlude(model, x, 0, size=8, stride=8, fill=0.0)
    occluded = x.clone()
    occluded[..., :8, :8] = 0
    torch.testing.assert_close(o.logit[0, 0], model(occluded)[0, 0].detach())
    with pytest.raises(UnsupportedNetwork, match="normalizes by the batch"):
        zfnet.trace(model, x)


class Adapter(nn.Linear):
    """A layer that merges its update into the weight for evaluation, as LoRA does."""

    merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -1.0 if mode else 1.0
            self.merged = not mode
        return self


def test_train_and_eval_methods_are_called_symmetrically():
    adapter = Adapter(4 * 36, 5)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), adapter)
    before = adapter.weight.clone()
    zfnet.explain(model, torch.randn(1, 3, 8, 8), "saliency", 1)
    torch.testing.assert_close(adapter.weight, before)
    assert adapter.training
    assert not adapter.merged


def test_network_created_in_inference_mode_is_rejected_for_gradients():
    with torch.inference_mode():
        loaded, created = zfnet.load("imagenet65k"), zfnet.mnist()
    assert zfnet.explain(loaded, torch.zeros(1, 3, 224, 224), "saliency", 1).map.shape == (
        1,
        1,
        224,
        224,
    )
    with pytest.raises(ValueError, match="created in torch.inference_mode"):
        zfnet.explain(created.eval(), torch.zeros(1, 3, 28, 28), "saliency", 1)
    x = torch.randn(1, 3, 28, 28)  # functions without gradients work
    with torch.no_grad():
        logits = created(x)
    torch.testing.assert_close(zfnet.trace(created, x).logits, logits)
    torch.testing.assert_close(
        zfnet.occlude(created, x, 0, size=7, stride=7).baseline.logit, logits[0, 0]
    )
