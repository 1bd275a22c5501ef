"""Incremental occlusion against full forward passes."""

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import zfnet
from tests.conftest import random_he, random_layers
from tests.fast.networks import NETWORKS
from zfnet.fast import incremental
from zfnet.fast.cost import predict
from zfnet.fast.incremental import Incremental
from zfnet.graph import UnsupportedNetwork, chain
from zfnet.occlusion import occlude, occluder_boxes


@pytest.fixture(scope="module")
def model():
    return random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))


def occlude_full_and_incremental(model, x, **options):
    """Return occlusion by full passes and by incremental ones, whatever their cost."""
    with zfnet.fast.disabled():
        full = occlude(model, x, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "pays", lambda share: True)
        return full, occlude(model, x, **options)


def assert_incremental_equals_full(model, x, tolerance=1e-5, **options):
    full, exact = occlude_full_and_incremental(model, x, **options)
    for name in ("activation", "probability", "logit"):
        a, b = getattr(exact, name), getattr(full, name)
        assert (a - b).abs().max() <= tolerance * b.abs().max(), name
    assert torch.equal(full.channel, exact.channel)
    return exact


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stride", [64, 61])
def test_incremental_equals_full(name, stride, photographs):
    """An odd stride gives all phases of pooling. In float64, as float32 rounds by up to 2e-5."""
    model, x = NETWORKS[name]().double(), photographs[:1].double()
    assert_incremental_equals_full(model, x, tolerance=1e-9, size=stride, stride=stride, fill=0.7)


@pytest.mark.parametrize(("size", "stride"), [(44, 1), (8, 5), (32, 9), (90, 7), (64, 64)])
def test_incremental_equals_full_for_any_occluder(model, size, stride):
    """Stride 1, an occluder larger than the image, several images, an image as fill, and batch 1."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    default = assert_incremental_equals_full(
        model, x, size=size, stride=stride, fill=torch.randn_like(x)
    )
    torch.manual_seed(0)
    x, fill = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    _, single = occlude_full_and_incremental(model, x, size=size, stride=stride, fill=fill, batch=1)
    torch.testing.assert_close(single.logit, default.logit, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_incremental_equals_full_for_any_geometry(data):
    """Strides above the kernel, non-square windows, dilation, ceil mode and odd image sizes."""
    draw, (modules, size) = data.draw, random_layers(data.draw, oblong=True)
    body = nn.Sequential(*modules)
    try:
        features = body(torch.zeros(1, 3, *size)).numel()
    except RuntimeError:
        assume(False)
    model = nn.Sequential(*modules, nn.Flatten(), nn.Linear(features, 5)).eval()
    occluder = draw(st.integers(1, 30))
    x = torch.randn(1, 3, *size)
    full, exact = occlude_full_and_incremental(model, x, size=occluder, stride=min(occluder, 5))
    torch.testing.assert_close(exact.logit, full.logit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exact.activation, full.activation, rtol=1e-4, atol=1e-5)


def test_memory_is_bounded_by_the_batch(photographs):
    """The largest tensor has at most the size of `batch` full maps."""
    x, boxes = photographs[:1], occluder_boxes(224, 224, 32, 2).view(-1, 4)
    network = Incremental(chain(NETWORKS["zfnet"]()), x, torch.zeros_like(x), torch.tensor([0]))
    small_count, large_count = predict(network, boxes, 1)[1], predict(network, boxes, 16)[1]
    assert 1 <= small_count < large_count < len(boxes)
    largest = []
    for count in (small_count, large_count):
        with torch.no_grad(), LargestTensor() as recorder:
            network(0, boxes[4000 : 4000 + count])
        largest.append(recorder.numbers)
    full_maps = 96 * 110 * 110 + 3 * 224 * 224  # layer 1's output and its input
    assert largest[1] <= 16 * full_maps
    assert largest[0] < largest[1] / 4


class LargestTensor(TorchDispatchMode):
    """Record the size of the largest floating-point result."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.numbers = max(
                self.numbers, result.untyped_storage().nbytes() // result.element_size()
            )
        return result


@pytest.mark.parametrize(("size", "speedup"), [(32, 4.5), (16, 5.5)])
def test_incremental_does_fewer_operations(photographs, size, speedup):
    """An occluder of 32 x 32 at stride 8 needs at least 4.5 times fewer multiply-adds."""
    model = random_he(zfnet.zfnet(10, norm="none", fc_units=1024))
    boxes = occluder_boxes(224, 224, size, 8).view(-1, 4)
    steps = chain(model)
    with torch.no_grad():
        network = Incremental(
            steps, photographs[:1], torch.zeros_like(photographs[:1]), torch.tensor([0])
        )
        with FlopCounterMode(display=False) as full_counter:
            model(photographs[:1])
        network(0, boxes[:1])  # computes the unoccluded pass
        # Every 16th position covers all pooling phases and distances from the border.
        sample = boxes[torch.arange(3, len(boxes), 16)]
        with FlopCounterMode(display=False) as counter:
            network(0, sample)
    assert full_counter.get_total_flops() * len(sample) >= speedup * counter.get_total_flops()


def test_incremental_is_used_if_it_needs_fewer_operations(photographs, monkeypatch):
    """It pays for a small occluder, not for one that covers the image or for a tiny network."""
    model, calls = NETWORKS["zfnet"](), []
    monkeypatch.setattr(
        Incremental,
        "__call__",
        lambda self, n, boxes: calls.append(1) or (boxes[:, 0] * 0.0, torch.zeros(len(boxes), 7)),
    )
    occlude(model, photographs[:1], 0, size=32, stride=8)
    assert calls
    calls.clear()
    occlude(model, photographs[:1], 0, size=224, stride=224)
    tiny_network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
    occlude(tiny_network, photographs[:1, :, :12, :12], 0, size=4, stride=4)
    assert not calls


def test_networks_that_are_not_chains_use_full_passes():
    with pytest.raises(UnsupportedNetwork, match="not a chain of modules"):
        Incremental([], torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), None)
    full, fast = occlude_full_and_incremental(
        torchvision.models.resnet18(weights=None), torch.randn(1, 3, 64, 64), size=32, stride=32
    )
    assert full.activation is None
    torch.testing.assert_close(fast.logit, full.logit, rtol=1e-4, atol=1e-5)
