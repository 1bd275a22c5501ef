"""trace and receptive fields, on our networks and on torchvision's; refusals."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from tests.conftest import random_he
from zfnet.activations import UnknownLayer, UnsupportedNetwork, chain, max_pool, receptive_field
from zfnet.methods.correspondence import correspondence
from zfnet.methods.invariance import invariance
from zfnet.methods.statistics import population


def test_trace_keeps_rectified_maps_before_pooling(plain, photographs):
    t = zfnet.trace(plain, photographs)
    assert t.layers == ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    assert {n: tuple(t[n].shape[1:]) for n in ("conv1", "conv5", "fc7")} == {
        "conv1": (96, 110, 110),
        "conv5": (256, 13, 13),
        "fc7": (32,),
    }
    conv1 = plain.relu1(plain.conv1(photographs))
    torch.testing.assert_close(t["conv1"], conv1)
    pooled, switches = nn.functional.max_pool2d(conv1, 3, 2, ceil_mode=True, return_indices=True)
    torch.testing.assert_close(t["pool1"], pooled)
    assert torch.equal(t.switches["pool1"], switches)
    torch.testing.assert_close(t.logits, plain(photographs))
    assert t["fc7"].min() >= 0


def test_trace_stops_where_it_is_told(plain, photographs):
    t = zfnet.trace(plain, photographs[:1, :, :150, :170], until="conv5")  # any size will do below the dense layers
    assert t.logits is None
    assert t.layers[-1] == "conv5"
    with pytest.raises(UnknownLayer, match="no layer 'fc7' in this trace"):
        t["fc7"]


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn"])
def test_torchvisions_networks_are_traced(name, photographs):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    x = photographs[:2, :, :96, :96]
    t = zfnet.trace(model, x)
    convs = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert t.layers == (*(f"conv{i + 1}" for i in range(convs)), *(f"fc{convs + i}" for i in (1, 2, 3)))
    torch.testing.assert_close(t.logits, model(x))
    assert all(t[layer].min() >= 0 for layer in t.layers[:-1])  # in-place ReLUs did not overwrite, rectified all
    assert t["conv1"].max() > 0


def test_the_mode_and_gradients_are_left_alone(photographs):
    model = zfnet.zfnet(4, fc=8, norm="batch")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.drop6.eval()
    a, b = zfnet.trace(model, photographs).logits, zfnet.trace(model, photographs).logits
    assert torch.equal(a, b)  # no dropout
    assert model.training
    assert not model.drop6.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (torchvision.models.resnet18(weights=None), "residual"), (Functional(), "functional ReLU"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()), "GELU, which the deconvnet cannot invert"),
        (torchvision.models.squeezenet1_0(weights=None), "not its modules one after the other"),
    ],
)  # fmt: skip
def test_what_cannot_be_inverted_is_refused_with_a_reason(model, reason):
    with pytest.raises(UnsupportedNetwork, match=reason):
        zfnet.trace(model.eval(), torch.randn(1, 3, 8, 8) if isinstance(model, Functional) else torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 224, 224),
        torch.zeros(1, 1, 224, 224),
        torch.zeros(1, 3, 224, 224, dtype=torch.uint8),
        "cat.jpg",
        torch.zeros(1, 3, 224, 224).double(),
        torch.zeros(0, 3, 224, 224),
    ],
)
def test_a_wrong_input_is_a_value_error(plain, x):
    with pytest.raises(ValueError, match=r"expected a float batch|does not fit the network at conv1|float64"):
        zfnet.trace(plain, x)


@pytest.mark.parametrize("side", [5, 8, 20])
def test_an_image_too_small_is_a_value_error(plain, side):
    x = torch.randn(2, 3, side, side)
    for options in ({}, {"crop": True}, {"position": (0, 0)}):
        with pytest.raises(ValueError, match="does not fit the network at"):
            zfnet.project(plain, x, "conv5", 1, **options)
    with pytest.raises(ValueError, match="does not fit the network"):
        zfnet.explain(plain, x, "saliency", 1)


def test_receptive_fields_of_the_paper(plain, photographs):
    steps = chain(plain, photographs[:1])
    fields = [receptive_field(steps, f"conv{i}") for i in range(1, 6)]
    assert [f.size for f in fields] == [7, 27, 75, 107, 139]
    assert [f.stride for f in fields] == [2, 8, 16, 16, 16]
    box = zfnet.trace(plain, photographs[:1]).box("conv5", torch.tensor([[0, 0], [6, 6], [12, 12]]))
    assert box[0, :2].tolist() == [0, 0]
    assert box[2, 2:].tolist() == [224, 224]
    assert (box[1, 2:] - box[1, :2]).tolist() == [139, 139]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 3, 5, 7]), st.integers(1, 3), st.integers(0, 2), st.booleans()), min_size=1, max_size=4
    ),
    st.integers(0, 10**6),
)
def test_the_receptive_field_is_the_support_of_the_gradient(rows, pick):
    """On a network of the same geometry with positive weights and average pooling, every pixel of the field has a gradient."""
    side, modules, linear, names, channels = 61, [], [], [], 1
    for number, (kernel, stride, padding, pool) in enumerate(rows, 1):
        stride, padding = min(stride, kernel), min(padding, kernel // 2)  # a stride above the kernel leaves gaps
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
        return  # nothing left of the map
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


class Block(nn.Module):
    """A residual block: modules one after the other are not what it computes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


def test_a_sequential_is_verified_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Block(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    with pytest.raises(UnsupportedNetwork, match="residual"):
        zfnet.trace(model, torch.randn(1, 3, 8, 8))


def test_one_relu_may_serve_several_layers():
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.randn(2, 3, 8, 8)
    t = zfnet.trace(model, x)
    torch.testing.assert_close(t.logits, model(x))
    assert t["conv2"].min() >= 0
    assert zfnet.project(model, x, "conv2", 1).pixels.abs().max() > 0


def test_layers_end_where_their_geometry_does():
    """Rectified after pooling: the layer is the convolution's map, so that positions and boxes are its own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Dropout(), nn.ReLU()
    ).eval()
    x = torch.randn(1, 3, 20, 20)
    t = zfnet.trace(model, x)
    assert t.layers == ("conv1", "conv2")
    assert t["conv1"].shape == (1, 4, 18, 18)
    p = zfnet.project(model, x, "conv2", 0, (3, 4))
    top, left, bottom, right = p.box[0].tolist()
    outside = p.pixels.clone()
    outside[..., top:bottom, left:right] = 0
    assert outside.abs().max() == 0
    assert p.pixels.abs().max() > 0


def test_names_of_the_paper_are_kept():
    children = {"conv1": nn.Conv2d(3, 4, 3), "relu1": nn.ReLU(), "conv5": nn.Conv2d(4, 4, 3), "relu5": nn.ReLU()}
    model = nn.Sequential(OrderedDict(children | {"flatten": nn.Flatten(), "fc8": nn.Linear(64, 2)}))
    t = zfnet.trace(model.eval(), torch.randn(1, 3, 8, 8))
    assert t.layers == ("conv1", "conv5", "fc8")
    assert "conv5" in t
    assert "conv2" not in t
    assert t["relu5"] is t["conv5"]


def test_a_slice_of_a_network_is_a_plain_chain(plain, photographs):
    part = plain[:3]
    assert list(dict(part.named_children())) == ["conv1", "relu1", "pool1"]
    torch.testing.assert_close(part(photographs), zfnet.trace(plain, photographs)["pool1"])


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_pooling_leaves_maps_in_their_layout(order):
    pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    x = torch.randn(2, 5, 12, 9).round().contiguous(memory_format=order)  # rounded: many ties
    pooled, switches = max_pool(pool, x)
    expected = nn.functional.max_pool2d(x.contiguous(), 3, 2, 1, ceil_mode=True, return_indices=True)
    assert torch.equal(pooled, expected[0])
    assert torch.equal(switches, expected[1])
    assert pooled.is_contiguous(memory_format=order)


class Residual(nn.Module):
    """Without biases: of a grey image everything in it is 0, and it looks like its modules one after the other."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU()
        self.fc3 = nn.Linear(8 * 8 * 8, 4, bias=False)

    def forward(self, x):
        x = self.relu1(self.conv1(x))
        return self.fc3(self.relu2(self.conv2(x) + x).flatten(1))


def test_a_grey_image_does_not_hide_that_a_network_is_no_chain():
    with pytest.raises(UnsupportedNetwork, match="not its modules one after the other"):
        zfnet.trace(Residual(), torch.zeros(1, 3, 8, 8))


def test_a_wrapped_network_has_the_layers_of_the_network():
    model = random_he(zfnet.zfnet(3, norm="none", maps=(4, 4, 4, 4, 4), fc=8, without=(3,), size=64))
    x = torch.randn(2, 3, 64, 64)
    t = zfnet.trace(model, x)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        found = zfnet.trace(wrapped, x)
        assert found.layers == t.layers
        assert all(torch.equal(found[layer], t[layer]) for layer in t.layers)


def test_a_layer_may_be_named_alone(photographs):
    model, squares = random_he(zfnet.zfnet(3, norm="none", maps=(4, 4, 4, 4, 4), fc=8)), photographs[:2]
    points = torch.full((1, 2, 2), 60)
    alone, listed = (
        [
            population(model, squares, layers)["conv1"].counts,
            invariance(model, squares, [0, 1], "translation", [5.0], layers=layers).distance["conv1"],
            correspondence(model, squares, points, size=30, layers=layers).difference["conv1"],
        ]
        for layers in ("conv1", ["conv1"])
    )
    assert all(torch.equal(a, b) for a, b in zip(alone, listed, strict=True))


class Clamped(nn.Module):
    """Its ReLU is cut at six by a function, between two modules."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4 * 30 * 30, 5)

    def forward(self, x):
        return self.fc(self.relu1(self.conv1(x)).clamp(max=6).flatten(1))


class NewlyHeaded(nn.Module):
    """A new last layer, of zeros: its logits tell nothing of what lies below."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 256, 5)
        nn.init.zeros_(self.fc.weight)

    def forward(self, x):
        h = self.conv1(x).relu()
        return self.fc((h + self.conv2(h)).flatten(1))


class Halved(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(x) * 0.5


def test_what_a_network_does_between_its_modules_is_seen():
    x = torch.rand(1, 3, 32, 32)  # on which the clamp does nothing
    for model, image in ((Clamped().eval(), x), (NewlyHeaded().eval(), x[..., :16, :16])):
        with pytest.raises(UnsupportedNetwork, match="not its modules one after the other"):
            zfnet.trace(model, image)
        o = zfnet.occlude(model, image, 0, size=8, stride=8)
        torch.testing.assert_close(o.baseline.logit, model(image)[0, 0].detach())


def test_a_module_that_changes_its_kinds_forward_is_none_of_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Halved(2), nn.Flatten(), nn.Linear(4 * 15 * 15, 5)).eval()
    x = torch.randn(1, 3, 32, 32)
    with pytest.raises(UnsupportedNetwork, match="2 is a Halved"):
        zfnet.trace(model, x)
    o = zfnet.occlude(model, x, 0, size=8, stride=8)
    torch.testing.assert_close(o.baseline.logit, model(x)[0, 0].detach())
    like = nn.Sequential(type("Same", (nn.Conv2d,), {})(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 5)).eval()
    torch.testing.assert_close(zfnet.trace(like, x).logits, like(x))


def test_an_image_is_occluded_alone_where_a_network_normalises_by_its_batch():
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 4)).eval()
    x = torch.randn(1, 3, 16, 16)
    o = zfnet.occlude(model, x, 0, size=8, stride=8, fill=0.0)
    covered = x.clone()
    covered[..., :8, :8] = 0
    torch.testing.assert_close(o.logit[0, 0], model(covered)[0, 0].detach())
    with pytest.raises(UnsupportedNetwork, match="normalises by the batch"):
        zfnet.trace(model, x)


def test_no_receptive_field_is_invented_above_an_adaptive_pooling():
    dense = nn.Linear(5 * 64, 4)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Conv2d(6, 5, 3, padding=1), nn.Flatten(), dense
    )
    x = torch.randn(1, 3, 24, 24)
    t = zfnet.trace(model.eval(), x)
    calls = (
        lambda: t.receptive_field("conv2"), lambda: t.box("conv2", torch.tensor([0, 0])),
        lambda: zfnet.project(model, x, "conv2", 1, (3, 4)), lambda: zfnet.project(model, x, "conv2", 1),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(UnsupportedNetwork, match="windows of several sizes"):
            call()
    assert t.receptive_field("conv1").size == 3
    assert zfnet.project(model, x, "conv1", 1).pixels.any()
    assert zfnet.project(model, x, "fc3", 1).pixels.shape == x.shape


def test_a_dense_unit_sees_the_whole_image(plain, photographs):
    t = zfnet.trace(plain, photographs)
    assert t.box("fc7", torch.tensor([0, 0])).tolist() == [0, 0, 224, 224]
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        t.box("conv9", torch.tensor([0, 0]))


class Adapter(nn.Linear):
    """Merges its update into the weight for evaluation, and takes it out for training, as LoRA's layers do."""

    merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -1.0 if mode else 1.0
            self.merged = not mode
        return self


def test_modules_that_do_more_in_train_are_brought_back():
    adapter = Adapter(4 * 36, 5)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), adapter)
    before = adapter.weight.clone()
    zfnet.explain(model, torch.randn(1, 3, 8, 8), "saliency", 1)
    torch.testing.assert_close(adapter.weight, before)
    assert adapter.training
    assert not adapter.merged


def test_a_network_made_for_inference_is_named():
    with torch.inference_mode():
        loaded, made = zfnet.load("imagenet65k"), zfnet.mnist()
    assert zfnet.explain(loaded, torch.zeros(1, 3, 224, 224), "saliency", 1).map.shape == (1, 1, 224, 224)
    with pytest.raises(ValueError, match="made under torch.inference_mode"):
        zfnet.explain(made.eval(), torch.zeros(1, 3, 28, 28), "saliency", 1)
    x = torch.randn(1, 3, 28, 28)  # what needs no gradients goes on
    with torch.no_grad():
        logits = made(x)
    torch.testing.assert_close(zfnet.trace(made, x).logits, logits)
    torch.testing.assert_close(zfnet.occlude(made, x, 0, size=7, stride=7).baseline.logit, logits[0, 0])
