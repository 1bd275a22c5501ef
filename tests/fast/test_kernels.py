"""Kernels against their references: unpooling and filtering, full projections, maxima of maps."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.conftest import random_layers
from tests.fast.networks import NETWORKS
from zfnet import deconv
from zfnet.deconv import backproject
from zfnet.fast import kernels
from zfnet.forward import trace
from zfnet.top import strongest_positions


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_projected_signals_equal_the_reference(name, order, photographs):
    """Signals start at the last convolution and at the logits; in float64, sums differ in order only."""
    model, x = NETWORKS[name]().double(), photographs[:2].double().contiguous(memory_format=order)
    t = trace(model, x)
    last_conv = [layer for layer in t.layers if layer.startswith("conv")][-1]
    for until in (last_conv, t.layers[-1]):
        t = trace(model, x, until=until)
        signal = torch.randn(
            t.output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        expected = backproject(t, signal)
        assert expected.abs().max() > 0
        found = kernels.backproject(t, signal)
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_transposed_filters_of_any_geometry(data):
    """Any kernel, stride, padding and image size, including outputs of a single cell."""
    draw = data.draw
    k, s, p = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    size = (draw(st.integers(6, 20)), draw(st.integers(6, 20)))
    conv = nn.Conv2d(draw(st.sampled_from((1, 2, 3, 40))), 5, k, s, p).double()
    if draw(st.booleans()):
        conv = conv.to(memory_format=torch.channels_last)
        size = (k, k) if draw(st.booleans()) else size
    assume(min(size) + 2 * p >= k)
    y = torch.randn_like(conv(torch.zeros(2, conv.in_channels, *size, dtype=torch.float64)))
    expected = deconv.filter_transposed(conv, y, size)
    torch.testing.assert_close(
        kernels.filter_transposed(conv, y, size), expected, rtol=1e-10, atol=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_strongest_positions_of_any_geometry(data):
    modules, size = random_layers(data.draw, oblong=True)
    model, x = nn.Sequential(*modules).double().eval(), torch.randn(3, 3, *size).double()
    try:
        assume(model(x).numel() > 0)
    except RuntimeError:
        assume(False)
    t = trace(model, x)
    expected, actual = (
        f(t.steps, t.layers, x) for f in (strongest_positions, kernels.strongest_positions)
    )
    for layer in t.layers:
        torch.testing.assert_close(actual[layer][0], expected[layer][0], rtol=1e-10, atol=1e-12)
        rows, (r, c) = torch.arange(3)[:, None], actual[layer][1].unbind(-1)
        values_at_position = t[layer][rows, torch.arange(t[layer].shape[1]), r, c]
        torch.testing.assert_close(values_at_position, actual[layer][0], rtol=1e-10, atol=1e-12)


@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    st.integers(1, 3),
    st.randoms(),
)
def test_ties_use_the_first_maximum_in_reading_order(
    channels, height, width, channels_last, levels, random
):
    # A few levels make ties.
    values = [random.randrange(levels) for _ in range(2 * channels * height * width)]
    maps = torch.tensor(values, dtype=torch.float32).view(2, channels, height, width)
    laid_out = maps.contiguous(memory_format=torch.channels_last) if channels_last else maps
    value, position = kernels._first_maxima(laid_out)
    for i in range(2):
        for c in range(channels):
            flat = maps[i, c].flatten().tolist()
            assert value[i, c] == max(flat)
            assert tuple(position[i, c].tolist()) == divmod(flat.index(max(flat)), width)
