"""Variants of the deconvnet against the library, autograd, and hand-computed switches."""

import pytest
import torch

import zfnet
from tests.explorer.conftest import small_zfnet_with_lrn
from zfnet.explorer.backend import Backend
from zfnet.explorer.query import Unit
from zfnet.explorer.variants import Rules, corner_switches, project_variant
from zfnet.networks import load_network


@pytest.fixture(scope="module")
def lrn():
    return small_zfnet_with_lrn()


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def traced(lrn, image):
    return zfnet.trace(lrn, image)


def strongest(traced, layer):
    maps = traced[layer][0]
    if maps.ndim == 1:
        return int(maps.argmax()), (0, 0)
    channel = int(maps.amax((1, 2)).argmax())
    return channel, divmod(int(maps[channel].argmax()), maps.shape[2])


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv4", "conv5", "fc7", "fc8"])
@pytest.mark.parametrize("collision", ["sum", "overwrite"])
def test_default_rules_equal_project(lrn, image, traced, layer, collision):
    channel, at = strongest(traced, layer)
    pixels = project_variant(lrn, traced, layer, channel, at, Rules(collision=collision))
    expected = zfnet.project(lrn, image, layer, channel, at, collision=collision).pixels
    torch.testing.assert_close(pixels, expected, rtol=1e-4, atol=1e-6)
    assert pixels.abs().max() > 0


@pytest.mark.parametrize("layer", ["conv2", "conv5", "fc8"])
def test_gradient_with_normalization_equals_autograd(lrn, image, traced, layer):
    channel, at = strongest(traced, layer)
    rules = Rules("gradient", normalization=True)
    pixels = project_variant(lrn, traced, layer, channel, at, rules)
    x = image.clone().requires_grad_()
    stop = {"conv2": "relu2", "conv5": "relu5", "fc8": "fc8"}[layer]
    signal = x
    for name, module in lrn.named_children():
        signal = module(signal)
        if name == stop:
            break
    value = signal[(0, channel, *at)[: signal.ndim]]
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(pixels, gradient * value.detach(), rtol=1e-3, atol=1e-6)


def test_guided_rule_equals_guided_backprop(network, coffee, coffee_trace):
    target = int(coffee_trace.logits.argmax())
    pixels = project_variant(network, coffee_trace, "fc8", target, (0, 0), Rules("guided"))
    a = zfnet.explain(network, coffee, "guided_backprop", target)
    expected = a.pixels * coffee_trace.logits[0, target]
    torch.testing.assert_close(pixels, expected, rtol=1e-3, atol=1e-5)


def test_each_rule_changes_the_projection(lrn, traced):
    channel, at = strongest(traced, "conv5")
    variants = [
        Rules(), Rules("none"), Rules("guided"), Rules("gradient"), Rules(switches=False),
        Rules(collision="overwrite"), Rules(normalization=True),
    ]  # fmt: skip
    pixels = [project_variant(lrn, traced, "conv5", channel, at, rules) for rules in variants]
    for i, first in enumerate(pixels):
        for second in pixels[i + 1 :]:
            assert not torch.allclose(first, second, rtol=1e-3, atol=1e-7)


def test_corner_switches_by_hand():
    pool = torch.nn.MaxPool2d(3, 2, padding=1)
    like = torch.zeros(1, 1, 3, 3, dtype=torch.int64)
    # The windows of a 5 x 5 map start at -1, 1 and 3; the first is clipped to 0.
    assert corner_switches(pool, (5, 5), like)[0, 0].tolist() == [
        [0, 1, 3], [5, 6, 8], [15, 16, 18]
    ]  # fmt: skip


def test_unknown_rules_are_rejected():
    with pytest.raises(ValueError, match="rectification must be one of deconvnet, guided"):
        Rules("relu")
    with pytest.raises(ValueError, match="collision must be one of sum, overwrite, got 'mean'"):
        Rules(collision="mean")


@pytest.fixture(scope="module")
def residual():
    return load_network("torchvision:resnet18", "random")


def test_branching_network_equals_project_and_autograd(residual, coffee):
    t = zfnet.trace(residual, coffee)
    maps = t["layer2.0.conv2"][0]
    channel = int(maps.amax((1, 2)).argmax())
    at = divmod(int(maps[channel].argmax()), maps.shape[2])
    pixels = project_variant(residual, t, "layer2.0.conv2", channel, at, Rules())
    p = zfnet.project(residual, coffee, "layer2.0.conv2", channel, at)
    torch.testing.assert_close(pixels, p.pixels, rtol=1e-4, atol=1e-7)
    pixels = project_variant(residual, t, "layer2.0.conv2", channel, at, Rules("gradient"))
    x = coffee.clone().requires_grad_()
    outputs = []
    hook = residual.layer2[0].conv2.register_forward_hook(
        lambda m, i, output: outputs.append(output)
    )
    residual(x)
    hook.remove()
    value = outputs[0][0, channel, at[0], at[1]]
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(pixels, gradient * value.detach(), rtol=1e-3, atol=1e-6)


def test_backend_supports_branching_networks(residual):
    backend = Backend(residual, "resnet18")
    names = [layer["name"] for layer in backend.describe()["layers"]]
    assert "layer4.1.conv2" in names
    header, arrays = backend.unit("coffee", Unit("layer3.0.conv1", 5), Rules())
    assert arrays["projection"].shape == arrays["patch"].shape
    assert backend.cover("coffee", (9, 9, 60, 60), None, [])["total"] is None
    assert header["similarity"] == pytest.approx(1) or header["activation"] == 0
