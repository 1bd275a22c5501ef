"""The incremental pass against whole passes."""

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import zfnet
from tests.conftest import any_layers, random_he
from tests.fast.networks import NETWORKS
from zfnet.fast import incremental
from zfnet.fast.cost import predict
from zfnet.fast.incremental import Incremental
from zfnet.graph import UnsupportedNetwork, chain
from zfnet.occlusion import occlude, occluder_boxes


@pytest.fixture(scope="module")
def small():
    return random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))


def both_ways(model, x, **options):
    """Occlusion by whole passes, and incrementally whatever the count of operations says."""
    with zfnet.fast.disabled():
        full = occlude(model, x, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "pays", lambda share: True)
        return full, occlude(model, x, **options)


def assert_incremental_is_full(model, x, tolerance=1e-5, **options):
    full, exact = both_ways(model, x, **options)
    for name in ("activation", "probability", "logit"):
        a, b = getattr(exact, name), getattr(full, name)
        assert (a - b).abs().max() <= tolerance * b.abs().max(), name
    assert torch.equal(full.channel, exact.channel)
    return exact


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stride", [64, 61])
def test_incremental_is_full(name, stride, photographs):
    """Every position, borders included; an odd stride meets every phase of pooling. float32 rounds by up to 2e-5 with AVX2."""
    model, x = NETWORKS[name]().double(), photographs[:1].double()
    assert_incremental_is_full(model, x, tolerance=1e-9, size=stride, stride=stride, fill=0.7)


@pytest.mark.parametrize(("size", "stride"), [(44, 1), (8, 5), (32, 9), (90, 7), (64, 64)])
def test_incremental_is_full_for_any_occluder(small, size, stride):
    """Stride 1, an occluder larger than the image, several images, a picture as filling, and little memory."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    whole = assert_incremental_is_full(small, x, size=size, stride=stride, fill=torch.randn_like(x))
    torch.manual_seed(0)
    x, fill = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    _, little = both_ways(small, x, size=size, stride=stride, fill=fill, batch=1)
    torch.testing.assert_close(little.logit, whole.logit, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_incremental_is_full_for_any_geometry(data):
    """Kernels that skip cells, oblong windows, dilation, ceil mode, odd images."""
    draw, (modules, size) = data.draw, any_layers(data.draw, oblong=True)
    body = nn.Sequential(*modules)
    try:
        features = body(torch.zeros(1, 3, *size)).numel()
    except RuntimeError:
        assume(False)
    model = nn.Sequential(*modules, nn.Flatten(), nn.Linear(features, 5)).eval()
    occluder = draw(st.integers(1, 30))
    x = torch.randn(1, 3, *size)
    full, exact = both_ways(model, x, size=occluder, stride=min(occluder, 5))
    torch.testing.assert_close(exact.logit, full.logit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exact.activation, full.activation, rtol=1e-4, atol=1e-5)


def test_memory_is_bounded_by_the_batch(photographs):
    """The largest patch and table of the positions that go at once hold no more numbers than `batch` whole maps."""
    x, boxes = photographs[:1], occluder_boxes(224, 224, 32, 2).view(-1, 4)
    network = Incremental(chain(NETWORKS["zfnet"]()), x, torch.zeros_like(x), torch.tensor([0]))
    few, many = predict(network, boxes, 1)[1], predict(network, boxes, 16)[1]
    assert 1 <= few < many < len(boxes)
    largest = []
    for count in (few, many):
        with torch.no_grad(), Largest() as seen:
            network(0, boxes[4000 : 4000 + count])
        largest.append(seen.numbers)
    whole = 96 * 110 * 110 + 3 * 224 * 224  # layer 1's output and its input
    assert largest[1] <= 16 * whole
    assert largest[0] < largest[1] / 4


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any floating-point result held."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.numbers = max(
                self.numbers, result.untyped_storage().nbytes() // result.element_size()
            )
        return result


@pytest.mark.parametrize(("size", "least"), [(32, 4.5), (16, 5.5)])
def test_incremental_does_fewer_operations(photographs, size, least):
    """The released geometry at stride 8: at 32 x 32 the whole network takes 4.5 times fewer multiply-adds or better."""
    model = random_he(zfnet.zfnet(10, norm="none", fc_units=1024))
    boxes = occluder_boxes(224, 224, size, 8).view(-1, 4)
    steps = chain(model)
    with torch.no_grad():
        network = Incremental(
            steps, photographs[:1], torch.zeros_like(photographs[:1]), torch.tensor([0])
        )
        with FlopCounterMode(display=False) as whole:
            model(photographs[:1])
        network(0, boxes[:1])  # the unoccluded pass, once
        # Every 16th position, so every phase and distance from a border.
        chosen = boxes[torch.arange(3, len(boxes), 16)]
        with FlopCounterMode(display=False) as counter:
            network(0, chosen)
    assert whole.get_total_flops() * len(chosen) >= least * counter.get_total_flops()


def test_the_choice_follows_the_count(photographs, monkeypatch):
    """A small occluder in a large network is worth it; one that covers everything, or a tiny network, is not."""
    model, chosen = NETWORKS["zfnet"](), []
    monkeypatch.setattr(
        Incremental,
        "__call__",
        lambda self, n, boxes: chosen.append(1) or (boxes[:, 0] * 0.0, torch.zeros(len(boxes), 7)),
    )
    occlude(model, photographs[:1], 0, size=32, stride=8)
    assert chosen
    chosen.clear()
    occlude(model, photographs[:1], 0, size=224, stride=224)
    tiny = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
    occlude(tiny, photographs[:1, :, :12, :12], 0, size=4, stride=4)
    assert not chosen


def test_a_network_that_is_not_a_chain_is_passed_whole():
    with pytest.raises(UnsupportedNetwork, match="not a chain of modules"):
        Incremental([], torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), None)
    full, fast = both_ways(
        torchvision.models.resnet18(weights=None), torch.randn(1, 3, 64, 64), size=32, stride=32
    )
    assert full.activation is None
    torch.testing.assert_close(fast.logit, full.logit, rtol=1e-4, atol=1e-5)
