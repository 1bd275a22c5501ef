"""The deconvnet against hand-computed arrays, the gradient of pooling, and its adjoint."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from zfnet.acceleration import accelerate
from zfnet.deconv import backproject, unpool
from zfnet.fast import kernels
from zfnet.forward import trace

POOL = nn.MaxPool2d(3, 2, ceil_mode=True)


def test_unpooling_by_hand():
    """Unpool a 4 x 4 map with four 3 x 3 windows at stride 2, which share maxima."""
    x = torch.tensor([[1.0, 2, 3, 0], [0, 1, 0, 2], [4, 0, 9, 1], [0, 3, 2, 5]]).view(1, 1, 4, 4)
    pooled, switches = F.max_pool2d(x, 3, 2, ceil_mode=True, return_indices=True)
    assert pooled.flatten().tolist() == [9, 9, 9, 9]
    x[0, 0, 0, 2] = 10  # the upper two windows share (0, 2), the lower two (2, 2)
    pooled, switches = F.max_pool2d(x, 3, 2, ceil_mode=True, return_indices=True)
    assert switches.flatten().tolist() == [2, 2, 10, 10]
    signal = torch.tensor([1.0, 20, 300, 4000]).view(1, 1, 2, 2)
    summed = torch.tensor([[0.0, 0, 21, 0], [0, 0, 0, 0], [0, 0, 4300, 0], [0, 0, 0, 0]])
    overwritten = torch.tensor([[0.0, 0, 20, 0], [0, 0, 0, 0], [0, 0, 4000, 0], [0, 0, 0, 0]])
    assert torch.equal(unpool(signal, switches, (4, 4), POOL)[0, 0], summed)
    assert torch.equal(unpool(signal, switches, (4, 4), POOL, "overwrite")[0, 0], overwritten)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 4), st.integers(1, 4), st.integers(0, 1), st.integers(1, 2), st.booleans(), st.integers(5, 14), st.integers(5, 14), st.integers(0, 9999)
)  # fmt: skip
def test_unpooling_is_the_transpose_of_pooling(
    kernel, stride, padding, dilation, ceil, height, width, seed
):
    """Unpooling equals backpropagation through max pooling for any window."""
    assume(padding <= kernel // 2)
    assume(dilation * (kernel - 1) + 1 <= min(height, width) + 2 * padding)
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    generator = torch.Generator().manual_seed(seed)
    # Integers make ties.
    x = torch.randint(0, 4, (2, 3, height, width), generator=generator).float().requires_grad_()
    pooled, switches = F.max_pool2d(x, kernel, stride, padding, dilation, ceil, return_indices=True)
    signal = torch.randn(pooled.shape, generator=generator)
    oracle = torch.autograd.grad(pooled, x, signal)[0]
    for function in (unpool, kernels.unpool):
        unpooled = function(signal, switches, (height, width), pool)
        torch.testing.assert_close(unpooled, oracle, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(unpooled.sum((2, 3)), signal.sum((2, 3)), rtol=1e-4, atol=1e-4)
    overwritten = torch.zeros(2, 3, height * width)
    for i in range(switches[0, 0].numel()):  # window by window in reading order
        overwritten.scatter_(
            2, switches.flatten(2)[:, :, i : i + 1], signal.flatten(2)[:, :, i : i + 1]
        )
    assert torch.equal(
        unpool(signal, switches, (height, width), pool, "overwrite").flatten(2), overwritten
    )


@settings(max_examples=15, deadline=None)
@given(
    st.integers(60, 90),
    st.integers(60, 90),
    st.integers(0, 999),
    st.sampled_from(["zfnet", "alexnet"]),
)
def test_without_relu_the_deconvnet_is_the_adjoint_of_the_forward_pass(height, width, seed, arch):
    """Without biases and LRN, and with fixed switches: <A x, y> = <x, A' y>, for any image size."""
    torch.manual_seed(seed)
    model = (
        getattr(zfnet, arch)(3, norm="none", channels=(6, 8, 8, 6, 6), fc_units=8).double().eval()
    )
    x = torch.randn(1, 3, height, width, dtype=torch.float64)
    t = trace(model, x, until="conv5")
    steps = tuple(step for step in t.steps if not isinstance(step.module, nn.ReLU))
    signal = torch.randn_like(x)
    y = torch.randn_like(t["conv5"])
    forward = signal
    for step in steps:
        if isinstance(step.module, nn.MaxPool2d):
            forward = (
                forward.flatten(2)
                .gather(2, t.switches[step.name].flatten(2))
                .view_as(t.switches[step.name])
            )
        else:
            forward = F.conv2d(
                forward, step.module.weight, None, step.module.stride, step.module.padding
            )
    down = backproject(replace(t, steps=steps), y)
    assert float((forward * y).sum().detach()) == pytest.approx(
        float((signal * down).sum()), rel=1e-9
    )


def test_unpooling_supports_non_square_windows():
    pool = nn.MaxPool2d((3, 2), (2, 1))
    x = torch.randn(1, 2, 9, 8, requires_grad=True)
    pooled, switches = F.max_pool2d(x, (3, 2), (2, 1), return_indices=True)
    oracle = torch.autograd.grad(pooled, x, pooled)[0]
    torch.testing.assert_close(unpool(pooled, switches, (9, 8), pool), oracle)


@pytest.mark.reference
def test_input_signal_is_not_modified(plain_zfnet, photographs):
    """The first step is a ReLU, which the accelerated pass applies in place in later steps."""
    t = trace(plain_zfnet, photographs, until="conv3")
    signal = torch.randn(t["conv3"].shape)
    given = signal.clone()
    accelerated = accelerate(backproject)
    down = accelerated(t, signal)
    assert torch.equal(signal, given)
    assert torch.equal(down, accelerated(t, given.relu()))
