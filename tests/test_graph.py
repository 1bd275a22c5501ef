"""Which layers a network has, by name, and which networks are refused."""

import copy
import threading
from collections import OrderedDict
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

import zfnet
from tests.conftest import random_he
from zfnet import graph
from zfnet.analysis.correspondence import correspondence
from zfnet.analysis.invariance import invariance
from zfnet.analysis.statistics import population
from zfnet.graph import UnknownLayer, UnsupportedNetwork


class Functional(nn.Module):
    """A chain that calls functions: its layers are named as those of modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.deep = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4 * 4, 2)

    def forward(self, x):
        x = F.max_pool2d(torch.relu_(self.conv(x)), 2)
        x = F.relu(self.deep(x), inplace=True)
        x = F.dropout(x, training=self.training)
        return self.fc(x.view(len(x), -1))


def test_functions_are_the_modules_that_they_equal():
    functional = Functional().eval()
    modules = nn.Sequential(
        functional.conv, nn.ReLU(), nn.MaxPool2d(2), functional.deep, nn.ReLU(), nn.Dropout(),
        nn.Flatten(), functional.fc,
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 10, 10)
    a, b = zfnet.trace(functional, x), zfnet.trace(modules, x)
    assert graph.is_chain(a.steps)
    assert a.layers == b.layers == ("conv1", "conv2", "fc3")
    for layer in a.layers:
        assert torch.equal(a[layer], b[layer])
        for p, q in zip(
            *(vars(zfnet.project(m, x, layer, 1)).values() for m in (functional, modules)),
            strict=True,
        ):
            assert torch.equal(p, q)


class Residual(nn.Module):
    """A residual network with one ReLU for all, in place, and a functional pooling."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.fc = nn.Linear(8 * 4 * 4, 4, bias=False)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        y = self.relu(self.conv2(x))
        y += x
        return self.fc(F.avg_pool2d(y, 2).flatten(1))


def hooked(model, x, path, call=-1):
    """What a forward hook sees of a module, at one of its calls."""
    kept = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda module, inputs, output: kept.append(output.detach().clone())
    )
    with torch.no_grad():
        model(x.clone())
    handle.remove()
    return kept[call]


@pytest.mark.parametrize(
    "build",
    [
        Residual, lambda: models.resnet18(num_classes=5), lambda: models.squeezenet1_1(num_classes=5),
        lambda: models.shufflenet_v2_x0_5(num_classes=5), lambda: models.efficientnet_b0(num_classes=5),
    ],
    ids=["own", "resnet18", "squeezenet", "shufflenet", "efficientnet"],
)  # fmt: skip
def test_a_layer_is_what_a_forward_hook_sees(build):
    """Of every module and block, those that work in place and those that are called twice too."""
    torch.manual_seed(0)
    model = build().eval()
    x = torch.randn(2, 3, *((8, 8) if isinstance(model, Residual) else (64, 64)))
    kept, handles = {}, []
    for path, module in model.named_modules():
        keep = partial(lambda path, m, i, output: kept.update({path: output.clone()}), path)
        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        logits = model(x)
    for handle in handles:
        handle.remove()
    t = zfnet.trace(model, x)
    assert set(t.layers) == set(kept) - {""}
    assert torch.equal(t.logits, logits)
    for path in t.layers:
        assert torch.equal(t[path], kept[path]), path


class OverwritesItsInput(nn.Module):
    """A shortcut that an in-place ReLU has overwritten by the time it is added, as in some ResNets."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.drop = nn.Conv2d(3, 3, 3, padding=1), nn.Dropout()
        self.relu, self.how = nn.ReLU(inplace=True), how

    def forward(self, x):
        x = x * 1.0
        same = self.drop(x)
        match self.how:
            case "module":
                y = self.relu(x)
            case "function":
                y = F.relu_(x)
            case "method":
                y = x.clamp_(min=0)
            case "assignment":
                y = x
                y += 1
            case "view":
                y = x.flatten(2).relu_().view_as(x)
        return self.conv(y) + same


@pytest.mark.parametrize("how", ["module", "function", "method", "assignment"])
def test_a_value_that_was_overwritten_is_read_as_it_is_then(how):
    model, x = OverwritesItsInput(how).eval(), torch.randn(1, 3, 8, 8)
    given = x.clone()
    with torch.no_grad():
        expected = model(x)
    assert torch.equal(zfnet.trace(model, x).logits, expected)
    assert torch.equal(x, given)


def test_what_a_view_overwrote_is_refused():
    model = OverwritesItsInput("view").eval()
    with pytest.raises(UnsupportedNetwork, match="is used after relu_ overwrote it through a view"):
        zfnet.trace(model, torch.randn(1, 3, 8, 8))


class Gate(nn.Module):
    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True)


class Branching(nn.Module):
    def forward(self, x):
        x = x + 1
        if x.sum() > 0:
            return x
        return -x


class Untraced(nn.Module):
    def forward(self, x):
        return torch.stack([row.relu() for row in x])


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.GELU(), "1 is a GELU, which the deconvnet cannot invert: it is neither linear"),
        (nn.SiLU(), "1 is a SiLU"), (nn.Hardswish(), "1 is a Hardswish"),
        (nn.Softmax(1), "1 is a Softmax, .* it weights values by other values"),
        (Gate(), "1.mul is a mul, .* as a gate does"),
        (nn.GroupNorm(2, 4), "1 is a GroupNorm, .* it normalizes by the statistics of the image"),
    ],
)  # fmt: skip
def test_what_cannot_be_inverted_is_traced_and_refused_on_the_way_down(module, reason):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), module, nn.Conv2d(4, 5, 3)).eval()
    x = torch.randn(1, 3, 8, 8)
    first, last = ("0", "2") if isinstance(module, Gate) else ("conv1", "conv2")
    assert torch.equal(zfnet.trace(model, x)[last], model(x))
    with pytest.raises(UnsupportedNetwork, match=reason):
        zfnet.project(model, x, last, 1)
    assert zfnet.project(model, x, first, 1).pixels.any()  # it is above this layer


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (
            Branching(),
            r"Branching cannot be traced: .*control flow.*test_graph.py, line \d+: `if x.sum",
        ),
        (Untraced(), r"Untraced cannot be traced: .*test_graph.py, line \d+: `return torch.stack"),
    ],
)
def test_what_cannot_be_traced_is_refused_with_its_line(module, reason):
    with pytest.raises(UnsupportedNetwork, match=reason):
        zfnet.trace(module, torch.randn(1, 3, 8, 8))


class Returns(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 4, 3), kind

    def forward(self, x):
        maps = self.conv(x)
        return {"out": maps, "aux": maps.relu()} if self.kind is dict else (maps, maps.relu())


@pytest.mark.parametrize(("kind", "words"), [(dict, "'out', 'aux'"), (tuple, "a tuple of 2")])
def test_a_network_that_does_not_return_one_tensor(kind, words):
    """Its layers are there; its result is refused."""
    model, x = Returns(kind).eval(), torch.randn(1, 3, 8, 8)
    with pytest.raises(UnsupportedNetwork, match=f"Returns returns .*{words}; wrap it"):
        zfnet.trace(model, x)
    assert torch.equal(zfnet.trace(model, x, until="conv")["conv"], model.conv(x))
    assert zfnet.project(model, x, "conv", 1).pixels.any()


def test_wrappers_are_taken_off_and_scripts_refused():
    model, x = models.resnet18(num_classes=3).eval(), torch.randn(1, 3, 64, 64)
    expected = zfnet.trace(model, x)
    inside = copy.deepcopy(model)
    inside.layer1 = nn.DataParallel(inside.layer1)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager"), inside):
        t = zfnet.trace(wrapped, x)
        assert torch.equal(t.logits, expected.logits)
        assert torch.equal(t["layer3.0"], expected["layer3.0"])
    with pytest.raises(UnsupportedNetwork, match="TorchScript"):
        zfnet.trace(torch.jit.trace(model, x), x)


def test_half_precision_is_projected():
    model, x = Residual().eval(), torch.randn(1, 3, 8, 8)
    full = zfnet.project(model, x, "conv2", 1, (2, 3))
    half = zfnet.project(model.bfloat16(), x.bfloat16(), "conv2", 1, (2, 3))
    assert half.pixels.dtype == torch.bfloat16
    torch.testing.assert_close(half.pixels.float(), full.pixels, rtol=0.1, atol=0.05)


def test_a_module_used_twice_means_its_last_call():
    model, x = Residual().eval(), torch.randn(1, 3, 8, 8)
    t = zfnet.trace(model, x)
    assert torch.equal(t["relu"], F.relu(model.conv2(F.relu(model.conv1(x)))))
    assert torch.equal(t["relu"], hooked(model, x, "relu"))


def test_an_unknown_layer_of_a_network_with_branches():
    model, x = models.resnet18(num_classes=3).eval(), torch.randn(1, 3, 64, 64)
    for function in (zfnet.project, lambda *args: zfnet.trace(*args[:2], until=args[2])):
        with pytest.raises(
            UnknownLayer,
            match="no layer 'layer2.0.conv9'; the network has conv1, bn1.*layer2.0.conv1",
        ):
            function(model, x, "layer2.0.conv9", 0)


def test_hooks_and_default_arguments_count():
    """The network is traced as it is called, not as its class is written."""

    class Scaled(Functional):
        def forward(self, x, scale=None):
            return super().forward(x if scale is None else x * scale)

    model, x = Scaled().eval(), torch.randn(1, 3, 10, 10)
    assert torch.equal(zfnet.trace(model, x).logits, model(x))
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 2,))
    t = zfnet.trace(model, x)
    assert torch.equal(t.logits, model(x))
    assert not torch.equal(t.logits, Functional.forward(model, x))


def test_other_threads_are_left_alone():
    """`torch.fx` replaces `nn.Module.__call__` for the whole process while it traces."""
    other, image = Functional().eval(), torch.randn(1, 3, 10, 10)
    expected, found = other(image), []

    class Waits(Functional):
        def forward(self, x):
            thread = threading.Thread(target=lambda: found.append(other(image)))
            thread.start()
            thread.join()
            return super().forward(x)

    zfnet.trace(Waits().eval(), torch.randn(1, 3, 10, 10))
    assert len(found) == 1
    assert torch.equal(found[0], expected)


def test_one_relu_may_serve_several_layers():
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Flatten(), nn.Linear(64, 2)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    t = zfnet.trace(model, x)
    torch.testing.assert_close(t.logits, model(x))
    assert t["conv2"].min() >= 0
    assert zfnet.project(model, x, "conv2", 1).pixels.abs().max() > 0


def test_layers_end_where_their_geometry_does():
    """Rectified after pooling: the layer is the convolution's map, so that positions and boxes are its own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.Dropout(),
        nn.ReLU(),
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
    children = {
        "conv1": nn.Conv2d(3, 4, 3),
        "relu1": nn.ReLU(),
        "conv5": nn.Conv2d(4, 4, 3),
        "relu5": nn.ReLU(),
    }
    model = nn.Sequential(
        OrderedDict(children | {"flatten": nn.Flatten(), "fc8": nn.Linear(64, 2)})
    )
    t = zfnet.trace(model.eval(), torch.randn(1, 3, 8, 8))
    assert t.layers == ("conv1", "conv5", "fc8")
    assert "conv5" in t
    assert "conv2" not in t
    assert t["relu5"] is t["conv5"]


def test_a_wrapped_network_has_the_layers_of_the_network():
    model = random_he(
        zfnet.zfnet(3, norm="none", channels=(4, 4, 4, 4, 4), fc_units=8, drop_layers=(3,), size=64)
    )
    x = torch.randn(2, 3, 64, 64)
    t = zfnet.trace(model, x)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        found = zfnet.trace(wrapped, x)
        assert found.layers == t.layers
        assert all(torch.equal(found[layer], t[layer]) for layer in t.layers)


def test_a_layer_may_be_named_alone(photographs):
    model, squares = (
        random_he(zfnet.zfnet(3, norm="none", channels=(4, 4, 4, 4, 4), fc_units=8)),
        photographs[:2],
    )
    points = torch.full((1, 2, 2), 60)
    alone, listed = (
        [
            population(model, squares, layers)["conv1"].counts,
            invariance(model, squares, [0, 1], "translation", [5.0], layers=layers).distance[
                "conv1"
            ],
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


class Halved(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(x) * 0.5


def test_what_a_network_does_between_its_modules_is_seen():
    model, x = Clamped().eval(), 9 * torch.randn(1, 3, 32, 32)
    t = zfnet.trace(model, x)
    assert float(t["clamp"].max()) == 6 < t["relu1"].max()
    torch.testing.assert_close(t.logits, model(x))
    with pytest.raises(UnsupportedNetwork, match="clamp is a clamp"):
        zfnet.project(model, x, "fc2", 1)


def test_a_subclass_with_its_own_forward_pass_is_traced_into():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), Halved(2), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.LazyLinear(5)
    )
    x = torch.randn(1, 3, 32, 32)
    model(x)
    model.eval()
    t = zfnet.trace(model, x)
    torch.testing.assert_close(t.logits, model(x))
    plain = nn.Sequential(*model[:2], nn.MaxPool2d(2), *model[3:])
    halved, whole = (
        zfnet.project(m, x, "conv2", 1, (3, 4), activation=torch.ones(1)) for m in (model, plain)
    )
    torch.testing.assert_close(halved.pixels, whole.pixels / 2)
    same = type("Same", (nn.Conv2d,), {})(3, 4, 3)
    like = nn.Sequential(same, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 5)).eval()
    assert graph.is_chain(zfnet.trace(like, x).steps)
    torch.testing.assert_close(zfnet.trace(like, x).logits, like(x))
