"""Quantiles against NumPy; shares against a network with known dead filters."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import zfnet
from tests.conftest import random_he
from zfnet.analysis.statistics import RELATIVE_ERROR, Population, bin_values, histogram, population


def population_of(values: np.ndarray) -> Population:
    return Population(1, torch.ones(1), torch.ones(1), histogram(torch.from_numpy(values)))


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_quantiles_are_within_the_stated_error(values, q):
    values = np.array(values, dtype=np.float32)
    expected = np.quantile(values.astype(np.float64), q, method="inverted_cdf")
    result = population_of(values).quantile(q).numpy()
    assert (
        abs(result - expected) <= RELATIVE_ERROR * abs(expected) + 1e-39
    ).all()  # the smallest floats are rounded to 0


def test_quantiles_of_skewed_activations_over_five_orders_of_magnitude():
    rng = np.random.default_rng(0)
    values = np.maximum(rng.lognormal(0, 3, 200_000) - 1, 0).astype(np.float32)
    q = [0.0, 0.1, 0.5, 0.9, 0.99, 0.9999, 1.0]
    expected = np.quantile(values.astype(np.float64), q, method="inverted_cdf")
    result = population_of(values).quantile(q).numpy()
    assert (result[expected == 0] == 0).all()
    np.testing.assert_allclose(result, expected, rtol=RELATIVE_ERROR)
    # Quantiles come from a histogram, so they are not exact.
    assert abs(result / np.maximum(expected, 1e-9) - 1)[expected > 0].max() > 1e-4
    with pytest.raises(ValueError, match=r"\[0, 1\], got \[0.5, 1.5\]"):
        population_of(values).quantile([0.5, 1.5])


def test_floats_are_near_the_middle_of_their_bin():
    values = bin_values()
    finite = values[values.isfinite()]
    assert (
        histogram(finite)[values.isfinite() & (values != 0)] == 1
    ).all()  # each middle is in its own bin
    assert len(finite) == 2 * 255 * 128
    samples = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 100
    middles = values[((samples.view(torch.int32) >> 16) & 0xFFFF).long()]
    assert ((middles - samples).abs() <= RELATIVE_ERROR * samples.abs()).all()


@pytest.fixture
def net_with_dead_filters():
    """Return four filters (v, dead, v > 2, left border only) and images of a constant v."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 2 * 2, 2),
    )
    weight, bias = torch.zeros(4, 3, 3, 3), torch.tensor([0.0, -1.0, -2.0, 0.0])
    weight[0, 0, 1, 1] = weight[2, 0, 1, 1] = 1
    # The pixel minus its left neighbor: zero except next to the padding.
    weight[3, 0, 1, 1], weight[3, 0, 1, 0] = 1, -1
    net[0].weight.data, net[0].bias.data = weight, bias
    return net.eval(), [torch.full((3, 4, 4), float(v)) for v in (1, 2, 3, 4)]


def test_network_with_known_dead_filters(net_with_dead_filters):
    net, images = net_with_dead_filters
    result = population(net, images, ("conv1",), batch=3)["conv1"]
    assert result.images == 4
    assert result.dead.tolist() == [False, True, False, False]
    assert result.excited.tolist() == [1, 0, 0.5, 1]
    assert result.active.tolist() == pytest.approx([1, 0, 0.5, 0.25])
    assert result.sparsity == pytest.approx(1 - 1.75 / 4)
    assert result.counts.sum() == 4 * 4 * 16
    zeros = 4 * 16 + 2 * 16 + 4 * 12
    assert result.counts[0] == zeros
    assert result.quantile(zeros / 256).item() == 0
    assert result.quantile(zeros / 256 + 0.001).item() == pytest.approx(1, rel=RELATIVE_ERROR)
    assert result.quantile(1.0).item() == pytest.approx(4, rel=RELATIVE_ERROR)


def test_population_equals_one_batch_of_all_images():
    net = random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))
    images = list(torch.randn(7, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    labelled = [(x, 0) for x in images]
    result = population(net, labelled, batch=3)
    assert list(result) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
    t = zfnet.trace(net, torch.stack(images))
    for layer, p in result.items():
        a = t[layer].flatten(2) if t[layer].ndim == 4 else t[layer][:, :, None]  # (N, C, positions)
        torch.testing.assert_close(p.active, (a > 0).double().mean((0, 2)), rtol=0, atol=1e-3)
        torch.testing.assert_close(
            p.excited, (a > 0).any(2).double().mean(0), rtol=0, atol=1e-6, check_dtype=False
        )
        expected = np.quantile(a.double().numpy(), [0.5, 0.9, 0.999], method="inverted_cdf")
        np.testing.assert_allclose(
            p.quantile([0.5, 0.9, 0.999]).numpy(), expected, rtol=RELATIVE_ERROR * 1.2, atol=1e-4
        )


def test_activations_that_are_not_finite_are_an_error(net_with_dead_filters):
    net, images = net_with_dead_filters
    net[0].weight.data[0] = torch.inf
    with pytest.raises(ValueError, match="conv1 has activations that are not finite"):
        population(net, images, ("conv1",))


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_quantile_rejects_shares_outside_zero_to_one(q):
    with pytest.raises(ValueError, match="q must be in"):
        Population(1, torch.ones(1), torch.ones(1), histogram(torch.rand(100))).quantile(q)
