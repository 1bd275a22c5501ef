"""Incremental occlusion against full forward passes, in chains and networks with branches."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import zfnet
from tests.conftest import random_he, random_layers
from tests.fast.networks import NETWORKS
from tests.networks import he
from zfnet.fast import incremental
from zfnet.fast.incremental import Incremental, plan_occlusion
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
        if b is None:  # not a chain
            assert a is None
        else:
            scale = 1 if name == "probability" else b.abs().max()
            assert (a - b).abs().max() <= tolerance * scale, name
    assert full.channel is None or torch.equal(full.channel, exact.channel)
    assert torch.equal(full.label, exact.label)
    return exact


def planned(model, x, size, stride, batch=64):
    """The plan, the head and the counted operations."""
    boxes = occluder_boxes(x.shape[2], x.shape[3], size, stride).view(-1, 4)
    with torch.no_grad():
        return plan_occlusion(model, x, boxes, batch)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stride", [64, 61])
def test_incremental_equals_full(name, stride, photographs):
    """An odd stride gives all phases of pooling. In float64, as float32 rounds by up to 2e-5."""
    model, x = NETWORKS[name]().double(), photographs[:1].double()
    assert_incremental_equals_full(model, x, tolerance=1e-9, size=stride, stride=stride, fill=0.7)


@pytest.mark.parametrize(("size", "stride"), [(44, 1), (8, 5), (32, 9), (63, 7), (63, 63)])
def test_incremental_equals_full_for_any_occluder(model, size, stride):
    """Stride 1, a large occluder, several images, an image as fill, and batch 1."""
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
    occluder = draw(st.integers(1, min(30, max(size) - 1)))
    x = torch.randn(1, 3, *size)
    full, exact = occlude_full_and_incremental(model, x, size=occluder, stride=min(occluder, 5))
    torch.testing.assert_close(exact.logit, full.logit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exact.activation, full.activation, rtol=1e-4, atol=1e-5)


def test_memory_is_bounded_by_the_batch(photographs):
    """The largest tensor has at most the size of `batch` full maps."""
    model, x = NETWORKS["zfnet"](), photographs[:1]
    boxes = occluder_boxes(224, 224, 32, 2).view(-1, 4)
    counts, largest = [], []
    for batch in (1, 16):
        with torch.no_grad(), LargestTensor() as recorder:
            network = Incremental.of(
                model, chain(model), x, torch.zeros_like(x), boxes, torch.tensor([0]), batch
            )
            network(0, network.chunks[0])
        counts.append(len(network.chunks[0]))
        largest.append(recorder.numbers)
    assert 1 <= counts[0] < counts[1] < len(boxes)
    full_maps = 96 * 110 * 110 + 3 * 224 * 224  # layer 1's output and its input
    assert largest[1] <= 16 * full_maps
    assert largest[0] <= 2 * full_maps  # a table contains the unoccluded maps, too


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
    # Every 16th position covers all pooling phases and distances from the border.
    sample = boxes[torch.arange(3, len(boxes), 16)]
    assert_cost_equals_measured_flops(model, photographs[:1], sample, speedup)


def test_operations_are_counted_in_networks_with_branches():
    model, x = he(torchvision.models.resnet18(num_classes=7)), torch.randn(1, 3, 96, 96)
    assert_cost_equals_measured_flops(model, x, occluder_boxes(96, 96, 16, 16).view(-1, 4), 1.5)


def assert_cost_equals_measured_flops(model, x, boxes, speedup):
    """The estimated multiply-adds of both methods equal the count of PyTorch's FlopCounterMode."""
    with torch.no_grad():
        network = Incremental.of(model, [], x, torch.zeros_like(x), boxes, None, 64)
        with FlopCounterMode(display=False) as full_counter:
            model(x)
        network(0, network.chunks[0])  # computes the unoccluded pass
        with FlopCounterMode(display=False) as counter:
            for chunk in network.chunks:
                network(0, chunk)
    cost = network.cost
    assert cost.whole == pytest.approx(full_counter.get_total_flops() / 2 * len(boxes))
    assert cost.incremental == pytest.approx(counter.get_total_flops() / 2)
    assert cost.bound >= speedup


def test_incremental_is_used_if_it_needs_fewer_operations(photographs, monkeypatch):
    """It pays for a small occluder, not for one that covers the image or for a tiny network."""
    model, counts = NETWORKS["zfnet"](), []

    def call(self, n, chunk):
        counts.append(len(chunk))
        return torch.zeros(len(chunk)), torch.zeros(len(chunk), 7)

    monkeypatch.setattr(Incremental, "__call__", call)
    occlude(model, photographs[:1], 0, size=32, stride=8)
    assert sum(counts) == 25 * 25
    counts.clear()
    occlude(model, photographs[:1], 0, size=223, stride=1)
    tiny_network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))
    occlude(tiny_network, photographs[:1, :, :12, :12], 0, size=4, stride=4)
    assert not counts


# Networks with branches.

TORCHVISION = (
    "resnet18", "resnet50", "squeezenet1_1", "vgg16_bn", "alexnet", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet",
    "densenet121", "mobilenet_v2",
)  # fmt: skip


def of_torchvision(name):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return he(torchvision.models.get_model(name, weights=None, num_classes=7, **options))


@pytest.mark.parametrize("name", TORCHVISION)
def test_incremental_equals_full_in_networks_of_torchvision(name):
    """On non-square images. An odd occluder gives all phases of the strides."""
    model, x = of_torchvision(name).double(), torch.randn(1, 3, 96, 79, dtype=torch.float64)
    assert_incremental_equals_full(model, x, tolerance=1e-9, size=27, stride=27, fill=0.7)
    plan, head, cost = planned(model, x, 27, 27)
    assert len(plan.nodes) >= 8
    assert not any(isinstance(step.module, nn.Conv2d) for step in head.rest)
    assert cost.bound > 1.1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_float32_rounding_is_close_to_that_of_full_passes(name):
    """Compared with float64. Full passes of MobileNet with these weights are off by 1.7e-5, too."""
    torch.manual_seed(0)
    model, x, options = of_torchvision(name), torch.randn(1, 3, 96, 96), {"size": 33, "stride": 32}
    full, exact = occlude_full_and_incremental(model, x, target=1, **options)
    with zfnet.fast.disabled():
        truth = occlude(model.double(), x.double(), target=1, **options).logit

    def error(logit):
        return (logit.double() - truth).abs().max() / truth.abs().max()

    assert error(exact.logit) <= max(1e-5, 2.5 * error(full.logit))


class Residual(nn.Module):
    """Skip connections, functional and in-place ReLUs, pooling at stride 1, and a concatenation of windows of several sizes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.skip = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(3, 8, 1, 2)
        self.conv2, self.bn = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.wide, self.narrow = nn.Conv2d(8, 6, 5, padding=2), nn.Conv2d(8, 4, 1)
        self.conv3, self.shortcut = nn.Conv2d(18, 12, 3, 2, 1), nn.Conv2d(18, 12, 1, 2, bias=False)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        first = F.relu(self.conv1(x) + self.skip(x), inplace=True)
        y = first + F.relu6(self.bn(self.conv2(first)))
        pooled = F.avg_pool2d(F.max_pool2d(y, 3, 1, 1), 3, 1, 1)
        y = torch.cat([self.narrow(y), pooled, self.wide(y)], 1)
        y = F.relu_(self.conv3(y) + self.shortcut(y))
        return self.fc(y.mean((2, 3)))


class Gated(Residual):
    """A gate spreads a change to all positions, so the layers above are computed in full."""

    def forward(self, x):
        y = F.relu(self.conv2(self.conv1(x)))
        y = y * F.adaptive_avg_pool2d(y, 1).sigmoid()
        return self.fc(torch.cat([self.wide(y), self.wide(y)], 1).amax((2, 3)))


class Shuffled(Residual):
    """Sizes in the graph, chunked and shuffled channels, a flattened map, a constant per channel."""

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.rand(8, 1, 1))
        self.fc = nn.Linear(8 * 12 * 10, 5)

    def forward(self, x):
        y = self.conv1(x) * self.gain
        count, channels, height, width = y.size()
        left, right = (
            y.view(count, 2, channels // 2, height, width)
            .transpose(1, 2)
            .reshape(y.shape)
            .chunk(2, dim=1)
        )
        y = F.max_pool2d(torch.cat([left, right.relu()], 1), 3, 2, ceil_mode=True)
        return self.fc(y.view(count, -1))


class Placed(Residual):
    """A bias per position and a hard-coded size, which do not work on windows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bias", torch.rand(8, 25, 21))

    def forward(self, x):
        y = F.relu(self.conv1(x)) + self.bias
        y = self.conv2(y).view(-1, 8, 25, 21).relu()
        return self.fc(torch.cat([y, y[:, :4]], 1).mean((2, 3)))


@pytest.mark.parametrize("network", [Residual, Gated, Shuffled, Placed])
@pytest.mark.parametrize(("size", "stride"), [(9, 7), (17, 3), (45, 45)])
def test_incremental_equals_full_in_custom_networks(network, size, stride):
    """Several images, and an image as fill."""
    torch.manual_seed(0)
    model, x = he(network()).double(), torch.randn(2, 3, 50, 42, dtype=torch.float64)
    options = {"size": size, "stride": stride, "fill": torch.randn_like(x)}
    assert_incremental_equals_full(model, x, tolerance=1e-9, **options)
    plan, head, _ = planned(model, x, size, stride)
    full_steps = {step.name for step in head.rest}
    expected = {Residual: {"fc"}, Gated: {"wide", "wide_1"}, Shuffled: set(), Placed: {"conv2"}}
    assert expected[network] <= full_steps
    nodes = {Residual: 8, Gated: 2, Shuffled: 2, Placed: 1}[network]
    assert size == 60 or len(plan.nodes) == nodes  # all windows are equal there


class Viewed(Residual):
    """A view of maps, which fails if the maps are channels last."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8 * 25 * 21, 5)

    def forward(self, x):
        return self.fc(F.relu(self.conv1(x)).view(-1, 8 * 25 * 21))


def test_views_of_maps():
    assert_incremental_equals_full(he(Viewed()), torch.randn(2, 3, 50, 42), size=9, stride=9)


def test_concatenation_is_computed_on_the_union_of_its_windows():
    """In `Residual` it reads windows of three sizes; the largest contains the others."""
    plan, _, _ = planned(he(Residual()), torch.randn(1, 3, 50, 42), 5, 5)
    windows = plan.windows
    sizes = [windows[name].size for name in ("narrow", "avg_pool2d", "wide", "cat")]
    assert (sizes[0] < sizes[2]).any()
    assert torch.equal(sizes[3], torch.stack(sizes[:3]).amax(0))


def test_changed_cells_are_inside_the_windows():
    """Brute force: compare the maps with and without the occluder."""
    model, x = he(Residual()).double(), torch.rand(1, 3, 50, 42, dtype=torch.float64)
    plan, _, _ = planned(model, x, 9, 9)
    outputs = {}
    for name in ("conv1", "bn", "wide", "conv3"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.__setitem__(
                name, output.detach().clone()
            )
        )
    model(x)
    before = dict(outputs)
    for i, (top, left, bottom, right) in enumerate(
        occluder_boxes(50, 42, 9, 9).view(-1, 4).tolist()
    ):
        covered = x.clone()
        covered[:, :, top:bottom, left:right] = -1
        model(covered)
        for name, values in outputs.items():
            row, column = (values != before[name]).any(1)[0].nonzero().unbind(1)
            window = plan.windows[name][i]
            assert [int(row.min()), int(column.min())] >= window.low.tolist()
            assert (row.min() >= window.low[0]) & (column.min() >= window.low[1])
            assert (row.max() < window.high[0]) & (column.max() < window.high[1])


def test_unsupported_networks_use_full_passes():
    """Hooks, batch statistics, no convolution, and control flow that cannot be traced."""
    hooked = he(Residual())
    hooked.conv2.register_forward_hook(lambda module, inputs, output: output + 1)
    by_batch = he(Residual())
    by_batch.bn = nn.BatchNorm2d(8, track_running_stats=False).eval()
    dense = nn.Sequential(nn.Flatten(), nn.Linear(3 * 50 * 42, 5))

    class Branching(Residual):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    x = torch.randn(1, 3, 50, 42)
    for model in (hooked, by_batch, dense, he(Branching())):
        with pytest.raises(UnsupportedNetwork):
            planned(model, x, 9, 9)
        assert_incremental_equals_full(model, x, size=20, stride=20)
