"""Receptive fields and boxes of units."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from zfnet.graph import UnknownLayer, UnsupportedNetwork, chain
from zfnet.receptive_field import receptive_field


def test_receptive_fields_of_the_paper(plain_zfnet, photographs):
    steps = chain(plain_zfnet)
    fields = [receptive_field(steps, f"conv{i}") for i in range(1, 6)]
    assert [f.size for f in fields] == [7, 27, 75, 107, 139]
    assert [f.stride for f in fields] == [2, 8, 16, 16, 16]
    box = zfnet.trace(plain_zfnet, photographs[:1]).box(
        "conv5", torch.tensor([[0, 0], [6, 6], [12, 12]])
    )
    assert box[0, :2].tolist() == [0, 0]
    assert box[2, 2:].tolist() == [224, 224]
    assert (box[1, 2:] - box[1, :2]).tolist() == [139, 139]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 3, 5, 7]), st.integers(1, 3), st.integers(0, 2), st.booleans()
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 10**6),
)
def test_receptive_field_is_the_support_of_the_gradient(rows, pick):
    """With positive weights and average pooling, every pixel of the field has a gradient."""
    side, modules, linear, names, channels = 61, [], [], [], 1
    for number, (kernel, stride, padding, pool) in enumerate(rows, 1):
        # A stride larger than the kernel would leave gaps.
        stride, padding = (min(stride, kernel), min(padding, kernel // 2))
        conv = nn.Conv2d(channels, 2, kernel, stride, padding, bias=False)
        nn.init.constant_(conv.weight, 0.5)
        channels = 2
        modules += [conv, nn.ReLU(), *([nn.MaxPool2d(3, 2)] if pool else [])]
        linear += [conv, *([nn.AvgPool2d(3, 2)] if pool else [])]
        names.append(f"conv{number}")
    x = torch.zeros(1, 1, side, side, requires_grad=True)
    try:
        out = nn.Sequential(*linear)(x)
    except RuntimeError:
        return  # the map is empty
    if modules and isinstance(modules[-1], nn.MaxPool2d):
        modules, linear = modules[:-1], linear[:-1]
        out = nn.Sequential(*linear)(x)
    r, c = (pick // 7) % out.shape[2], (pick // 131) % out.shape[3]
    support = torch.autograd.grad(out[0, 0, r, c], x)[0][0, 0] != 0
    t = zfnet.trace(nn.Sequential(*modules), x.detach())
    top, left, bottom, right = t.box(names[-1], torch.tensor([r, c])).tolist()
    assert max(bottom - top, right - left) <= t.receptive_field(names[-1]).size
    expected = torch.zeros(side, side, dtype=torch.bool)
    expected[top:bottom, left:right] = True
    assert torch.equal(support, expected)


def test_receptive_field_above_adaptive_pooling_is_the_image():
    dense = nn.Linear(5 * 64, 4)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(8),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.Flatten(),
        dense,
    )
    x = torch.randn(1, 3, 24, 24)
    t = zfnet.trace(model.eval(), x)
    with pytest.raises(UnsupportedNetwork, match="windows of several sizes"):
        t.receptive_field("conv2")
    assert t.box("conv2", torch.tensor([0, 0])).tolist() == [0, 0, 24, 24]
    p = zfnet.project(model, x, "conv2", 1, (3, 4), crop=True)
    assert p.pixels.shape == x.shape  # the whole image
    assert p.box.tolist() == [[0, 0, 24, 24]]
    assert not zfnet.graph.is_chain(t.steps)
    assert t.receptive_field("conv1").size == 3
    assert zfnet.project(model, x, "conv1", 1).pixels.any()
    assert zfnet.project(model, x, "fc3", 1).pixels.shape == x.shape


def test_receptive_field_of_a_dense_unit_is_the_image(plain_zfnet, photographs):
    t = zfnet.trace(plain_zfnet, photographs)
    assert t.box("fc7", torch.tensor([0, 0])).tolist() == [0, 0, 224, 224]
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        t.box("conv9", torch.tensor([0, 0]))
