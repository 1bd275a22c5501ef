"""Projections of receptive-field patches against projections of full maps."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zfnet
from tests.conftest import random_he, random_layers
from tests.fast.networks import NETWORKS
from zfnet import forward
from zfnet.deconv import backproject
from zfnet.fast import patches
from zfnet.forward import layout, max_pool, trace
from zfnet.projection import project
from zfnet.receptive_field import cut


@torch.no_grad()
def project_full_maps(model, x, layer, channel, position):
    """Project one-hot signals through the trace of full images, as the oracle."""
    t = trace(model, x, until=layer)
    signal, n = torch.zeros_like(t[layer]), torch.arange(len(x))
    signal[n, channel, position[:, 0], position[:, 1]] = t[layer][
        n, channel, position[:, 0], position[:, 1]
    ]
    return backproject(t, signal), signal.sum((1, 2, 3))


def break_ties(x):
    """Add a little noise in float64, so that maxima do not depend on rounding.

    Photographs have uniform areas, and CPU kernels round differently for different sizes.
    """
    return x.double() + 1e-2 * torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_patches_equal_full_maps(name, photographs):
    """Corners, sides and the center of the second, third and last convolution."""
    model = NETWORKS[name]().double()
    x = break_ties(photographs[[0, 1, 2, 0, 1, 2]])
    layers = [n for n in trace(model, x[:1]).layers if n.startswith("conv")]
    for layer in (layers[1], layers[2], layers[-1]):
        channels, height, width = trace(model, x[:1], until=layer)[layer].shape[1:]
        r, c = height - 1, width - 1
        position = torch.tensor([[0, 0], [0, c], [r, 1], [r, c], [r // 2, c // 2], [r // 3, 0]])
        channel = torch.arange(6) % channels
        oracle, activation = project_full_maps(model, x, layer, channel, position)
        assert oracle.abs().amax() > 0
        for crop in (False, True):
            p = project(model, x, layer, channel, position, crop=crop)
            expected = cut(oracle, p.corner, p.pixels.shape[-1]) if crop else oracle
            assert (p.pixels - expected).abs().max() <= 1e-9 * oracle.abs().max(), (layer, crop)
            torch.testing.assert_close(
                p.activation, activation, rtol=1e-8, atol=1e-9 * float(activation.max())
            )


def test_every_position_of_one_image(photographs):
    """For many units of one image, the image is processed once: all 169 units of a conv5 map."""
    model = NETWORKS["zfnet-lrn"]()
    position = torch.cartesian_prod(torch.arange(13), torch.arange(13))
    p = project(model, photographs[:1], "conv5", 3, position)
    parts = [
        project_full_maps(model, photographs[:1].expand(len(part), -1, -1, -1), "conv5", 3, part)[0]
        for part in position.split(13)
    ]
    oracle = torch.cat(parts)
    assert (p.pixels - oracle).abs().max() <= 1e-5 * oracle.abs().max()
    # Few units are processed as patches.
    by_patches = [
        project(model, photographs[:1], "conv5", 3, part).pixels for part in position[::40].split(2)
    ]
    assert (torch.cat(by_patches) - p.pixels[::40]).abs().max() <= 1e-5 * oracle.abs().max()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_patches_equal_full_maps_for_any_geometry(data):
    modules, size = random_layers(data.draw, oblong=data.draw(st.booleans()))
    model, x = nn.Sequential(*modules).eval(), torch.randn(5, 3, *size)
    try:
        assume(model(x).numel() > 0)
    except RuntimeError:
        assume(False)
    layer = trace(model, x).layers[-1]
    height, width = trace(model, x)[layer].shape[2:]
    position = torch.stack([torch.randint(height, (5,)), torch.randint(width, (5,))], 1)
    if data.draw(st.booleans()):  # all at one border, so that the outside cells are cropped
        position[:, 0] = data.draw(st.sampled_from((0, height - 1)))
    if data.draw(st.booleans()):
        position[:, 1] = data.draw(st.sampled_from((0, width - 1)))
    channel = torch.randint(4, (5,))
    oracle, _ = project_full_maps(model, x, layer, channel, position)
    torch.testing.assert_close(
        project(model, x, layer, channel, position).pixels, oracle, rtol=1e-4, atol=1e-6
    )


def test_patches_need_fewer_operations(photographs):
    """The projections of Fig. 2 need seven times fewer multiply-adds than full maps."""
    model = random_he(zfnet.zfnet(10, norm="none", fc_units=16))
    patch_flops = full_flops = 0
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        size = trace(model, photographs[:1], until=layer)[layer].shape
        position = torch.tensor([[size[2] // 2, size[3] // 2]])
        with FlopCounterMode(display=False) as counter:
            project(model, photographs[:1], layer, 0, position)
        patch_flops += 9 * size[1] * counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            project_full_maps(model, photographs[:1], layer, torch.tensor([0]), position)
        full_flops += 9 * size[1] * counter.get_total_flops()
    assert full_flops >= 7 * patch_flops


def operations(model, x, layer, position) -> int:
    with FlopCounterMode(display=False) as counter:
        project(model, x, layer, 0, torch.tensor(position))
    return counter.get_total_flops()


def test_area_outside_the_image_is_not_computed(photographs):
    model = random_he(zfnet.zfnet(10, norm="none", fc_units=16))
    x = photographs[:1].expand(4, -1, -1, -1)
    center = operations(model, x, "conv5", [[6, 6]] * 4)
    assert operations(model, x, "conv5", [[0, 0]] * 4) < 0.45 * center
    assert operations(model, x, "conv5", [[0, 6]] * 4) < 0.7 * center
    assert operations(model, x, "conv5", [[0, 0], [12, 12], [0, 12], [12, 0]]) == center


def test_order_of_units_is_preserved(photographs):
    """Units are sorted by position internally."""
    model = NETWORKS["zfnet"]()
    generator = torch.Generator().manual_seed(0)
    position, channel = (
        torch.randint(13, (40, 2), generator=generator),
        torch.randint(256, (40,), generator=generator),
    )
    x = photographs[torch.arange(40) % 3]
    p = project(model, x, "conv5", channel, position, crop=True)
    assert torch.equal(p.position, position)
    assert torch.equal(p.channel, channel)
    for i in (0, 7, 39):
        single = project(model, x[i : i + 1], "conv5", int(channel[i]), position[i], crop=True)
        assert (p.pixels[i] - single.pixels[0]).abs().max() <= 1e-5 * single.pixels.abs().max()
        assert torch.equal(p.corner[i], single.corner[0])
        assert torch.equal(p.box[i], single.box[0])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv4"])
def test_given_activations_skip_the_layers_after_the_last_pooling(layer, order, photographs):
    model, x = NETWORKS["zfnet"](), photographs.contiguous(memory_format=order)
    position, channel = torch.tensor([[5, 5], [0, 3], [12, 12]]), torch.arange(3)
    computed = project(model, x, layer, channel, position)
    p = project(model, x, layer, channel, position, activation=computed.activation)
    assert torch.equal(p.activation, computed.activation)
    assert (p.pixels - computed.pixels).abs().max() <= 1e-6 * computed.pixels.abs().max()
    counts = []
    for activation in (None, computed.activation):
        with FlopCounterMode(display=False) as counter:
            project(model, x, layer, channel, position, activation=activation)
        counts.append(counter.get_total_flops())
    assert counts[1] < counts[0]
    # The projection is positively homogeneous, as ReLU is.
    doubled = project(model, x, layer, channel, position, activation=2 * computed.activation).pixels
    error = (doubled - 2 * computed.pixels).abs().max()
    assert error <= 1e-6 * computed.pixels.abs().max()
    with pytest.raises(ValueError, match="activation needs a position"):
        project(model, x, layer, channel, activation=computed.activation)
    with pytest.raises(ValueError, match="activation needs a position"):
        project(model, x, layer, channel, position, activation=computed.activation[:2])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["zfnet-batchnorm", "torchvision-alexnet", "vgg11"])
def test_patches_preserve_the_memory_layout(name, order, monkeypatch):
    """Each layout has its own kernels, which round differently and so change near-equal maxima."""
    layouts = []
    monkeypatch.setattr(
        forward, "max_pool", lambda module, x: layouts.append(layout(x)) or max_pool(module, x)
    )
    model, photographs = NETWORKS[name](), zfnet.load_samples()
    x = photographs.batch(range(12)).contiguous(memory_format=order)
    layer = [n for n in trace(model, x[:1]).layers if n.startswith("conv")][-1]
    side = trace(model, x[:1], until=layer)[layer].shape[2]
    position = torch.stack([torch.arange(12) % side, torch.arange(12) * 5 % side], 1)
    oracle, _ = project_full_maps(model, x, layer, torch.arange(12), position)
    p = project(model, x, layer, torch.arange(12), position)
    assert set(layouts) == {order}
    assert (
        (p.pixels - oracle).abs().amax((1, 2, 3)) <= 5e-5 * oracle.abs().amax((1, 2, 3))
    ).sum() >= 10


def test_weights_of_the_network_do_not_change(photographs):
    model = NETWORKS["zfnet"]()
    original, strides = model.conv2.weight.clone(), model.conv2.weight.stride()
    project(model, photographs.contiguous(memory_format=torch.channels_last), "conv3", 0, (5, 5))
    assert torch.equal(model.conv2.weight, original)
    assert model.conv2.weight.stride() == strides
    assert model.conv2.weight.requires_grad
    assert model.conv2.padding == (0, 0)
    assert model.conv3.padding == (1, 1)


def test_batch_limits_the_projected_signals(plain_zfnet, photographs, monkeypatch):
    counts = []
    original = patches.backproject
    monkeypatch.setattr(
        patches,
        "backproject",
        lambda t, signal: counts.append(len(signal)) or original(t, signal),
    )
    project(plain_zfnet, photographs, "conv3", 0, (5, 5), batch=2)
    assert counts == [2, 1]
    counts.clear()
    # A unit of conv5 depends on 67 x 67 cells of conv1.
    project(plain_zfnet, photographs.repeat(10, 1, 1, 1), "conv5", 0, (5, 5))
    assert max(counts) * 67 * 67 * 96 <= patches.CHUNK
