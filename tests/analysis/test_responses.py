"""Responses against single images; extremes against sorting in Python and top_activations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import zfnet
from tests.conftest import narrow_vgg11, random_he
from tests.networks import BUILD, two_images
from zfnet.analysis.directions import sample_vectors
from zfnet.analysis.responses import Responses, responses, stream
from zfnet.analysis.statistics import population
from zfnet.graph import UnknownLayer, UnsupportedNetwork


@pytest.fixture(scope="module")
def model():
    return random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))


@pytest.fixture(scope="module")
def images():
    return list(torch.randn(11, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("rectified", [True, False])
def test_responses_equal_single_images(model, images, rectified):
    tables = responses(model, images, ("conv2", "conv5", "fc7"), rectified=rectified, batch=4)
    # Up to the layer, without the ReLU.
    layers_before_relu = {"conv2": model[:5], "conv5": model[:13], "fc7": model[:20]}
    for layer, table in tables.items():
        for n, x in enumerate(images):
            a = layers_before_relu[layer](x[None])[0].detach()
            a = (a.relu() if rectified else a).reshape(len(a), -1)
            torch.testing.assert_close(table.maximum[n], a.amax(1), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(table.mean[n], a.mean(1), rtol=1e-4, atol=1e-5)
            width = zfnet.trace(model, x[None])[layer].shape[-1] if layer != "fc7" else 1
            flat = table.position[n, :, 0] * width + table.position[n, :, 1]
            torch.testing.assert_close(
                a.gather(1, flat[:, None])[:, 0], a.amax(1), rtol=1e-4, atol=1e-5
            )


def test_directions_are_linear_combinations_of_units(model, images):
    directions = torch.cat([torch.eye(5), torch.tensor([[1.0, -2.0, 0, 0, 0.5]])])
    units = responses(model, images, "conv5")["conv5"]
    projected = responses(model, images, ("conv4", "conv5"), directions={"conv5": directions})
    assert projected["conv4"].maximum.shape == (11, 8)
    torch.testing.assert_close(projected["conv5"].maximum[:, :5], units.maximum)
    assert (projected["conv5"].position[:, :5] == units.position).all()
    for n, x in enumerate(images):
        a = zfnet.trace(model, x[None])["conv5"][0]
        z = a[0] - 2 * a[1] + 0.5 * a[4]
        assert projected["conv5"].maximum[n, 5] == pytest.approx(float(z.max()), rel=1e-4, abs=1e-5)
        assert projected["conv5"].mean[n, 5] == pytest.approx(float(z.mean()), rel=1e-4, abs=1e-5)


def test_extremes_equal_top_activations(model, images):
    groups = [0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5]
    for options in ({}, {"groups": groups}):
        searched = zfnet.top_activations(model, images, ("conv3", "conv5"), k=4, **options)
        for layer, table in responses(model, images, ("conv3", "conv5")).items():
            top = table.extremes(4, **options)
            assert (top.index == searched[layer].index).all()
            assert (top.position == searched[layer].position).all()
            torch.testing.assert_close(top.value, searched[layer].value, rtol=1e-4, atol=1e-5)


@given(
    # model numbers give many ties
    values=st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 0)), min_size=1, max_size=12),
    k=st.integers(1, 5), smallest=st.booleans(), by=st.sampled_from(["maximum", "mean"]), grouped=st.booleans(),
)  # fmt: skip
def test_extremes_equal_sorting_in_python(values, k, smallest, by, grouped):
    table = torch.tensor(values).float()
    n = len(values)
    position = torch.arange(n * 2 * 2).reshape(n, 2, 2)
    groups = [i % 4 for i in range(n)] if grouped else None
    top = Responses(table, table.flip(1), position).extremes(
        k, by=by, largest=not smallest, groups=groups
    )
    for unit in range(2):
        column = (table if by == "maximum" else table.flip(1))[:, unit].tolist()
        order = sorted(range(n), key=lambda i: (column[i] if smallest else -column[i], i))
        expected = [
            i
            for rank, i in enumerate(order)
            if not grouped or i % 4 not in [j % 4 for j in order[:rank]]
        ][:k]
        assert top.index[unit].tolist() == expected + [-1] * (k - len(expected))
        assert top.value[unit].tolist() == [column[i] for i in expected] + [-torch.inf] * (
            k - len(expected)
        )
        assert (top.position[unit, : len(expected)] == position[expected, unit]).all()


def test_torchvision_network(images):
    vgg = narrow_vgg11()
    x = torch.stack(images[:2])
    table = responses(vgg, images[:2], "conv8")["conv8"]
    torch.testing.assert_close(table.maximum, zfnet.trace(vgg, x)["conv8"].amax((2, 3)))


def test_network_without_weights(images):
    # Not a chain, so it is read by hooks.
    network = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.ReLU())
    maximum = responses(network, images[:2], "1", batch=2)["1"].maximum
    torch.testing.assert_close(
        maximum, torch.nn.functional.avg_pool2d(torch.stack(images[:2]), 2).amax((2, 3)).relu()
    )


def test_invalid_arguments_are_rejected(model, images):
    with pytest.raises(UnknownLayer, match="no layer 'conv9'; the network has conv1"):
        responses(model, images, ("conv1", "conv9"))
    for arguments, message in (
        ((model, [], ("conv1",)), "empty"),
        ((model, images, ()), "layers must not be empty"),
    ):
        with pytest.raises(ValueError, match=message):
            next(stream(*arguments))
    with pytest.raises(ValueError, match="on cpu, the network"):
        responses(model, [x.double() for x in images], "conv1")
    with pytest.raises(ValueError, match=r"directions of conv1 must be \(D, "):
        responses(model, images, "conv1", directions={"conv1": torch.zeros(2, 999)})
    with pytest.raises(ValueError, match="items must be tensors .*, got dict"):
        responses(model, [{"x": images[0]}], "conv1")
    table = responses(model, images, "conv1")["conv1"]
    with pytest.raises(ValueError, match="'maximum' or 'mean', got 'median'"):
        table.extremes(3, by="median")
    with pytest.raises(ValueError, match="k must be at least 1"):
        table.extremes(0)
    with pytest.raises(ValueError, match="groups has 1 entries"):
        table.extremes(3, groups=[0])
    with pytest.raises(
        UnknownLayer, match="directions are given for conv2, which is not among `layers`"
    ):
        responses(model, images, "conv1", directions={"conv2": torch.eye(3)})


def test_mode_and_random_state_do_not_change(model, images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.9)).train()
    state = torch.get_rng_state()
    responses(net, images, "conv1")
    assert net.training
    assert (torch.get_rng_state() == state).all()


def test_residual_network_is_read_at_modules(images):
    model = BUILD["resnet18"]()
    x = torch.stack(images[:3])
    with torch.no_grad():
        a = model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(x)))))
        b = model.layer4(model.layer3(model.layer2(a)))
    tables = responses(model, images[:3], ("layer4.1", "layer1", "fc"), batch=2)
    for maps, table in ((a, tables["layer1"]), (b, tables["layer4.1"])):
        torch.testing.assert_close(table.maximum, maps.amax((2, 3)), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(table.mean, maps.mean((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tables["fc"].maximum, model(x).detach(), rtol=1e-4, atol=1e-4)
    before = next(stream(model, images[:1], ("layer1.0.conv1",)))["layer1.0.conv1"]
    assert (before < 0).any()  # the in-place ReLU that follows did not overwrite it
    assert not any(module._forward_hooks for module in model.modules())
    shares = population(model, images[:3], ("layer4",))["layer4"]
    torch.testing.assert_close(shares.active, (b > 0).double().mean((0, 2, 3)), rtol=0, atol=1e-3)
    samples = sample_vectors(model, images[:3], "layer4", torch.Generator(), per_image=2)
    for vector, maps in zip(samples, b.repeat_interleave(2, 0), strict=True):
        assert torch.isclose(maps.flatten(1).T, vector, rtol=1e-4, atol=1e-3).all(1).any()


def test_errors_on_residual_networks(images):
    model = BUILD["resnet18"]()
    with pytest.raises(UnknownLayer, match="no layer 'conv5'; the network has conv1, .*layer4"):
        responses(model, images, "conv5")
    with pytest.raises(UnsupportedNetwork, match="rectified=False needs a network that is a chain"):
        responses(model, images, "layer4", rectified=False)
    model.fc.forward = lambda x: x[:, :, None]
    with pytest.raises(UnsupportedNetwork, match=r"fc returns \('N', 512, 1\), neither maps"):
        responses(model, images[:3], "fc")
    assert not any(module._forward_hooks for module in model.modules())


def test_network_for_digits():
    model = BUILD["mnist"]()
    x = two_images(model)
    t = zfnet.trace(model, x)
    for layer, table in responses(model, list(x), ("conv1", "conv2", "fc3")).items():
        torch.testing.assert_close(
            table.maximum, t[layer].flatten(2).amax(2) if t[layer].ndim == 4 else t[layer]
        )
    tables = population(model, list(x), ("conv1", "conv2", "fc3"))
    assert tables["fc3"].sparsity == pytest.approx(float((t["fc3"] <= 0).double().mean()))
    assert sample_vectors(model, list(x), "conv2", torch.Generator()).shape == (
        16,
        t["conv2"].shape[1],
    )
