"""Projections through receptive fields alone, against whole maps."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zfnet
from tests.conftest import any_layers, random_he
from tests.fast.networks import NETWORKS
from zfnet import forward
from zfnet.deconv import backproject
from zfnet.fast import patches
from zfnet.forward import layout, max_pool, trace
from zfnet.projection import project
from zfnet.receptive_field import cut


@torch.no_grad()
def whole_maps(model, x, layer, channel, position):
    """The oracle: one-hot signals carried down through a trace of whole images."""
    t = trace(model, x, until=layer)
    signal, n = torch.zeros_like(t[layer]), torch.arange(len(x))
    signal[n, channel, position[:, 0], position[:, 1]] = t[layer][
        n, channel, position[:, 0], position[:, 1]
    ]
    return backproject(t, signal), signal.sum((1, 2, 3))


def detied(x):
    """In float64, with a little noise, so that no two cells of a pooling window are equal but for rounding.

    Photographs have flat areas, whose maxima rounding alone decides, and kernels of a CPU round otherwise for another size.
    """
    return x.double() + 1e-2 * torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_whole_maps(name, photographs):
    """Corners, sides and the middle of the second, third and last layer; in float64, without ties: see `detied`."""
    model = NETWORKS[name]().double()
    x = detied(photographs[[0, 1, 2, 0, 1, 2]])
    layers = [n for n in trace(model, x[:1]).layers if n.startswith("conv")]
    for layer in (layers[1], layers[2], layers[-1]):
        channels, height, width = trace(model, x[:1], until=layer)[layer].shape[1:]
        r, c = height - 1, width - 1
        position = torch.tensor([[0, 0], [0, c], [r, 1], [r, c], [r // 2, c // 2], [r // 3, 0]])
        channel = torch.arange(6) % channels
        oracle, activation = whole_maps(model, x, layer, channel, position)
        assert oracle.abs().amax() > 0
        for crop in (False, True):
            p = project(model, x, layer, channel, position, crop=crop)
            expected = cut(oracle, p.corner, p.pixels.shape[-1]) if crop else oracle
            assert (p.pixels - expected).abs().max() <= 1e-9 * oracle.abs().max(), (layer, crop)
            torch.testing.assert_close(
                p.activation, activation, rtol=1e-8, atol=1e-9 * float(activation.max())
            )


def test_every_position_of_one_image(photographs):
    """One image with many units is passed whole, once, and its switches cut out: all 169 units of a map of layer 5."""
    model = NETWORKS["zfnet-lrn"]()
    position = torch.cartesian_prod(torch.arange(13), torch.arange(13))
    p = project(model, photographs[:1], "conv5", 3, position)
    parts = [
        whole_maps(model, photographs[:1].expand(len(part), -1, -1, -1), "conv5", 3, part)[0]
        for part in position.split(13)
    ]
    oracle = torch.cat(parts)
    assert (p.pixels - oracle).abs().max() <= 1e-5 * oracle.abs().max()
    # By fields.
    few = [
        project(model, photographs[:1], "conv5", 3, part).pixels for part in position[::40].split(2)
    ]
    assert (torch.cat(few) - p.pixels[::40]).abs().max() <= 1e-5 * oracle.abs().max()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_equals_whole_maps_for_any_geometry(data):
    modules, size = any_layers(data.draw, oblong=False)
    model, x = nn.Sequential(*modules).eval(), torch.randn(5, 3, *size)
    try:
        assume(model(x).numel() > 0)
    except RuntimeError:
        assume(False)
    layer = trace(model, x).layers[-1]
    height, width = trace(model, x)[layer].shape[2:]
    position = torch.stack([torch.randint(height, (5,)), torch.randint(width, (5,))], 1)
    if data.draw(st.booleans()):  # all at one border: what is outside for all is left out
        position[:, 0] = data.draw(st.sampled_from((0, height - 1)))
    if data.draw(st.booleans()):
        position[:, 1] = data.draw(st.sampled_from((0, width - 1)))
    channel = torch.randint(4, (5,))
    oracle, _ = whole_maps(model, x, layer, channel, position)
    torch.testing.assert_close(
        project(model, x, layer, channel, position).pixels, oracle, rtol=1e-4, atol=1e-6
    )


def test_fewer_operations(photographs):
    """All features of Fig. 2, nine images each: seven times fewer multiply-adds than whole maps, forward and back."""
    model = random_he(zfnet.zfnet(10, norm="none", fc_units=16))
    fields = whole = 0
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        size = trace(model, photographs[:1], until=layer)[layer].shape
        position = torch.tensor([[size[2] // 2, size[3] // 2]])
        with FlopCounterMode(display=False) as counter:
            project(model, photographs[:1], layer, 0, position)
        fields += 9 * size[1] * counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            whole_maps(model, photographs[:1], layer, torch.tensor([0]), position)
        whole += 9 * size[1] * counter.get_total_flops()
    assert whole >= 7 * fields


def operations(model, x, layer, position) -> int:
    with FlopCounterMode(display=False) as counter:
        project(model, x, layer, 0, torch.tensor(position))
    return counter.get_total_flops()


def test_what_lies_outside_the_image_for_all_units_is_not_computed(photographs):
    model = random_he(zfnet.zfnet(10, norm="none", fc_units=16))
    x = photographs[:1].expand(4, -1, -1, -1)
    middle = operations(model, x, "conv5", [[6, 6]] * 4)
    assert operations(model, x, "conv5", [[0, 0]] * 4) < 0.45 * middle
    assert operations(model, x, "conv5", [[0, 6]] * 4) < 0.7 * middle
    assert operations(model, x, "conv5", [[0, 0], [12, 12], [0, 12], [12, 0]]) == middle


def test_units_may_come_in_any_order(photographs):
    """They are carried down by position, and returned as they came."""
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
        alone = project(model, x[i : i + 1], "conv5", int(channel[i]), position[i], crop=True)
        assert (p.pixels[i] - alone.pixels[0]).abs().max() <= 1e-5 * alone.pixels.abs().max()
        assert torch.equal(p.corner[i], alone.corner[0])
        assert torch.equal(p.box[i], alone.box[0])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv4"])
def test_known_activations_spare_the_layers_above_the_last_pooling(layer, order, photographs):
    model, x = NETWORKS["zfnet"](), photographs.contiguous(memory_format=order)
    position, channel = torch.tensor([[5, 5], [0, 3], [12, 12]]), torch.arange(3)
    found = project(model, x, layer, channel, position)
    p = project(model, x, layer, channel, position, activation=found.activation)
    assert torch.equal(p.activation, found.activation)
    assert (p.pixels - found.pixels).abs().max() <= 1e-6 * found.pixels.abs().max()
    counts = []
    for known in (None, found.activation):
        with FlopCounterMode(display=False) as counter:
            project(model, x, layer, channel, position, activation=known)
        counts.append(counter.get_total_flops())
    assert counts[1] < counts[0]
    twice = project(model, x, layer, channel, position, activation=2 * found.activation).pixels
    assert (
        twice - 2 * found.pixels
    ).abs().max() <= 1e-6 * found.pixels.abs().max()  # rectification scales
    with pytest.raises(ValueError, match="activation needs a position"):
        project(model, x, layer, channel, activation=found.activation)
    with pytest.raises(ValueError, match="activation needs a position"):
        project(model, x, layer, channel, position, activation=found.activation[:2])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["zfnet-batchnorm", "torchvision-alexnet", "vgg11"])
def test_fields_keep_the_layout_of_the_image(name, order, monkeypatch):
    """Near-equal maxima fall otherwise with other kernels, and each layout has its own; in float32, a few do so anyway."""
    met = []
    monkeypatch.setattr(
        forward, "max_pool", lambda module, x: met.append(layout(x)) or max_pool(module, x)
    )
    model, photographs = NETWORKS[name](), zfnet.load_samples()
    x = photographs.batch(range(12)).contiguous(memory_format=order)
    layer = [n for n in trace(model, x[:1]).layers if n.startswith("conv")][-1]
    side = trace(model, x[:1], until=layer)[layer].shape[2]
    position = torch.stack([torch.arange(12) % side, torch.arange(12) * 5 % side], 1)
    oracle, _ = whole_maps(model, x, layer, torch.arange(12), position)
    p = project(model, x, layer, torch.arange(12), position)
    assert set(met) == {order}
    assert (
        (p.pixels - oracle).abs().amax((1, 2, 3)) <= 5e-5 * oracle.abs().amax((1, 2, 3))
    ).sum() >= 10


def test_the_networks_filters_stay_as_they_were(photographs):
    model = NETWORKS["zfnet"]()
    before, strides = model.conv2.weight.clone(), model.conv2.weight.stride()
    project(model, photographs.contiguous(memory_format=torch.channels_last), "conv3", 0, (5, 5))
    assert torch.equal(model.conv2.weight, before)
    assert model.conv2.weight.stride() == strides
    assert model.conv2.weight.requires_grad
    assert model.conv2.padding == (0, 0)
    assert model.conv3.padding == (1, 1)


def test_no_more_at_once_than_asked(plain, photographs, monkeypatch):
    counts = []
    original = patches.project_signal
    monkeypatch.setattr(
        patches,
        "project_signal",
        lambda t, signal: counts.append(len(signal)) or original(t, signal),
    )
    project(plain, photographs, "conv3", 0, (5, 5), batch=2)
    assert counts == [2, 1]
    counts.clear()
    # A unit of layer 5 takes 67 x 67 cells of layer 1.
    project(plain, photographs.repeat(10, 1, 1, 1), "conv5", 0, (5, 5))
    assert max(counts) * 67 * 67 * 96 <= patches.CHUNK
