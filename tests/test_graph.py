"""Layer names of networks, and networks that are rejected."""

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


class FunctionalChain(nn.Module):
    """A chain of functional calls, whose layers are named like those of modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.deep = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4 * 4, 2)

    def forward(self, x):
        x = F.max_pool2d(torch.relu_(self.conv(x)), 2)
        x = F.relu(self.deep(x), inplace=True)
        x = F.dropout(x, training=self.training)
        return self.fc(x.view(len(x), -1))


def test_functional_calls_equal_modules():
    functional = FunctionalChain().eval()
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
    """A residual network with one shared in-place ReLU and functional pooling."""

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


def hook_output(model, x, path, call=-1):
    """Return the output of a module in one of its calls, recorded by a forward hook."""
    outputs = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda module, inputs, output: outputs.append(output.detach().clone())
    )
    with torch.no_grad():
        model(x.clone())
    handle.remove()
    return outputs[call]


@pytest.mark.parametrize(
    "build",
    [
        Residual, lambda: models.resnet18(num_classes=5), lambda: models.squeezenet1_1(num_classes=5),
        lambda: models.shufflenet_v2_x0_5(num_classes=5), lambda: models.efficientnet_b0(num_classes=5),
    ],
    ids=["own", "resnet18", "squeezenet", "shufflenet", "efficientnet"],
)  # fmt: skip
def test_layers_equal_the_outputs_of_forward_hooks(build):
    """This includes blocks, in-place modules and modules that are called twice."""
    torch.manual_seed(0)
    model = build().eval()
    x = torch.randn(2, 3, *((8, 8) if isinstance(model, Residual) else (64, 64)))
    outputs, handles = {}, []
    for path, module in model.named_modules():
        keep = partial(lambda path, m, i, output: outputs.update({path: output.clone()}), path)
        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        logits = model(x)
    for handle in handles:
        handle.remove()
    t = zfnet.trace(model, x)
    assert set(t.layers) == set(outputs) - {""}
    assert torch.equal(t.logits, logits)
    for path in t.layers:
        assert torch.equal(t[path], outputs[path]), path


class OverwritesItsInput(nn.Module):
    """A shortcut that an in-place ReLU overwrites before the addition, as in some ResNets."""

    def __init__(self, variant):
        super().__init__()
        self.conv, self.drop = nn.Conv2d(3, 3, 3, padding=1), nn.Dropout()
        self.relu, self.variant = nn.ReLU(inplace=True), variant

    def forward(self, x):
        x = x * 1.0
        shortcut = self.drop(x)
        match self.variant:
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
        return self.conv(y) + shortcut


@pytest.mark.parametrize("variant", ["module", "function", "method", "assignment"])
def test_overwritten_values_are_traced_as_executed(variant):
    model, x = OverwritesItsInput(variant).eval(), torch.randn(1, 3, 8, 8)
    original = x.clone()
    with torch.no_grad():
        expected = model(x)
    assert torch.equal(zfnet.trace(model, x).logits, expected)
    assert torch.equal(x, original)


def test_overwriting_through_a_view_is_rejected():
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


class LoopOverBatch(nn.Module):
    def forward(self, x):
        return torch.stack([row.relu() for row in x])


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.GELU(), "1 is a GELU, which the deconvnet cannot invert: it is neither linear"),
        (nn.SiLU(), "1 is a SiLU"), (nn.Hardswish(), "1 is a Hardswish"),
        (nn.Softmax(1), "1 is a Softmax, .* its weights depend on the image"),
        (Gate(), "1.mul is a mul, .* as a gate does"),
        (nn.GroupNorm(2, 4), "1 is a GroupNorm, .* it normalizes by statistics of the image"),
    ],
)  # fmt: skip
def test_operations_without_a_rule_are_traced_but_not_projected(module, reason):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), module, nn.Conv2d(4, 5, 3)).eval()
    x = torch.randn(1, 3, 8, 8)
    first_layer, last_layer = ("0", "2") if isinstance(module, Gate) else ("conv1", "conv2")
    assert torch.equal(zfnet.trace(model, x)[last_layer], model(x))
    with pytest.raises(UnsupportedNetwork, match=reason):
        zfnet.project(model, x, last_layer, 1)
    assert zfnet.project(model, x, first_layer, 1).pixels.any()  # the operation is above this layer


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (
            Branching(),
            r"Branching cannot be traced: .*control flow.*test_graph.py, line \d+: `if x.sum",
        ),
        (
            LoopOverBatch(),
            r"LoopOverBatch cannot be traced: .*test_graph.py, line \d+: `return torch.stack",
        ),
    ],
)
def test_untraceable_code_is_reported_with_its_line(module, reason):
    with pytest.raises(UnsupportedNetwork, match=reason):
        zfnet.trace(module, torch.randn(1, 3, 8, 8))


class SeveralOutputs(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 4, 3), kind

    def forward(self, x):
        maps = self.conv(x)
        return {"out": maps, "aux": maps.relu()} if self.kind is dict else (maps, maps.relu())


@pytest.mark.parametrize(("kind", "description"), [(dict, "'out', 'aux'"), (tuple, "a tuple of 2")])
def test_network_with_several_outputs_has_layers_but_no_logits(kind, description):

    model, x = SeveralOutputs(kind).eval(), torch.randn(1, 3, 8, 8)
    with pytest.raises(
        UnsupportedNetwork, match=f"SeveralOutputs returns .*{description}; wrap it"
    ):
        zfnet.trace(model, x)
    assert torch.equal(zfnet.trace(model, x, until="conv")["conv"], model.conv(x))
    assert zfnet.project(model, x, "conv", 1).pixels.any()


def test_wrappers_are_removed_and_torchscript_is_rejected():
    model, x = models.resnet18(num_classes=3).eval(), torch.randn(1, 3, 64, 64)
    expected = zfnet.trace(model, x)
    with_wrapped_block = copy.deepcopy(model)
    with_wrapped_block.layer1 = nn.DataParallel(with_wrapped_block.layer1)
    for wrapped in (
        nn.DataParallel(model),
        torch.compile(model, backend="eager"),
        with_wrapped_block,
    ):
        t = zfnet.trace(wrapped, x)
        assert torch.equal(t.logits, expected.logits)
        assert torch.equal(t["layer3.0"], expected["layer3.0"])
    with pytest.raises(UnsupportedNetwork, match="TorchScript"):
        zfnet.trace(torch.jit.trace(model, x), x)


def test_half_precision_networks_are_projected():
    model, x = Residual().eval(), torch.randn(1, 3, 8, 8)
    full = zfnet.project(model, x, "conv2", 1, (2, 3))
    half = zfnet.project(model.bfloat16(), x.bfloat16(), "conv2", 1, (2, 3))
    assert half.pixels.dtype == torch.bfloat16
    torch.testing.assert_close(half.pixels.float(), full.pixels, rtol=0.1, atol=0.05)


def test_layer_of_a_shared_module_is_its_last_call():
    model, x = Residual().eval(), torch.randn(1, 3, 8, 8)
    t = zfnet.trace(model, x)
    assert torch.equal(t["relu"], F.relu(model.conv2(F.relu(model.conv1(x)))))
    assert torch.equal(t["relu"], hook_output(model, x, "relu"))


def test_unknown_layer_lists_the_available_ones():
    model, x = models.resnet18(num_classes=3).eval(), torch.randn(1, 3, 64, 64)
    for function in (zfnet.project, lambda *args: zfnet.trace(*args[:2], until=args[2])):
        with pytest.raises(
            UnknownLayer,
            match="no layer 'layer2.0.conv9'; the network has conv1, bn1.*layer2.0.conv1",
        ):
            function(model, x, "layer2.0.conv9", 0)


def test_hooks_and_default_arguments_are_traced():
    """Tracing follows a call of the network, including hooks and omitted arguments."""

    class OptionalScale(FunctionalChain):
        def forward(self, x, scale=None):
            return super().forward(x if scale is None else x * scale)

    model, x = OptionalScale().eval(), torch.randn(1, 3, 10, 10)
    assert torch.equal(zfnet.trace(model, x).logits, model(x))
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 2,))
    t = zfnet.trace(model, x)
    assert torch.equal(t.logits, model(x))
    assert not torch.equal(t.logits, FunctionalChain.forward(model, x))


def test_tracing_does_not_affect_other_threads():
    """`torch.fx` patches `nn.Module.__call__` of the whole process during tracing."""
    other_model, image = FunctionalChain().eval(), torch.randn(1, 3, 10, 10)
    expected, outputs = other_model(image), []

    class CallsOtherThread(FunctionalChain):
        def forward(self, x):
            thread = threading.Thread(target=lambda: outputs.append(other_model(image)))
            thread.start()
            thread.join()
            return super().forward(x)

    zfnet.trace(CallsOtherThread().eval(), torch.randn(1, 3, 10, 10))
    assert len(outputs) == 1
    assert torch.equal(outputs[0], expected)


def test_shared_relu_belongs_to_several_layers():
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Flatten(), nn.Linear(64, 2)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    t = zfnet.trace(model, x)
    torch.testing.assert_close(t.logits, model(x))
    assert t["conv2"].min() >= 0
    assert zfnet.project(model, x, "conv2", 1).pixels.abs().max() > 0


def test_layer_with_relu_after_pooling_ends_before_pooling():
    """Positions and boxes refer to the map of the convolution."""
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


def test_layer_names_of_the_paper_are_preserved():
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


def test_wrapped_chain_has_the_layers_of_the_chain():
    model = random_he(
        zfnet.zfnet(3, norm="none", channels=(4, 4, 4, 4, 4), fc_units=8, drop_layers=(3,), size=64)
    )
    x = torch.randn(2, 3, 64, 64)
    t = zfnet.trace(model, x)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        wrapped_trace = zfnet.trace(wrapped, x)
        assert wrapped_trace.layers == t.layers
        assert all(torch.equal(wrapped_trace[layer], t[layer]) for layer in t.layers)


def test_layers_accept_a_single_name(photographs):
    model, squares = (
        random_he(zfnet.zfnet(3, norm="none", channels=(4, 4, 4, 4, 4), fc_units=8)),
        photographs[:2],
    )
    points = torch.full((1, 2, 2), 60)
    single, listed = (
        [
            population(model, squares, layers)["conv1"].counts,
            invariance(model, squares, [0, 1], "translation", [5.0], layers=layers).distance[
                "conv1"
            ],
            correspondence(model, squares, points, size=30, layers=layers).difference["conv1"],
        ]
        for layers in ("conv1", ["conv1"])
    )
    assert all(torch.equal(a, b) for a, b in zip(single, listed, strict=True))


class Clamped(nn.Module):
    """A network that clamps the output of its ReLU module in `forward`."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4 * 30 * 30, 5)

    def forward(self, x):
        return self.fc(self.relu1(self.conv1(x)).clamp(max=6).flatten(1))


class HalvedMaxPool(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(x) * 0.5


def test_operations_between_modules_are_traced():
    model, x = Clamped().eval(), 9 * torch.randn(1, 3, 32, 32)
    t = zfnet.trace(model, x)
    assert float(t["clamp"].max()) == 6 < t["relu1"].max()
    torch.testing.assert_close(t.logits, model(x))
    with pytest.raises(UnsupportedNetwork, match="clamp is a clamp"):
        zfnet.project(model, x, "fc2", 1)


def test_subclasses_with_a_forward_method_are_traced():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        HalvedMaxPool(2),
        nn.Conv2d(4, 5, 3),
        nn.Flatten(),
        nn.LazyLinear(5),
    )
    x = torch.randn(1, 3, 32, 32)
    model(x)
    model.eval()
    t = zfnet.trace(model, x)
    torch.testing.assert_close(t.logits, model(x))
    with_plain_pooling = nn.Sequential(*model[:2], nn.MaxPool2d(2), *model[3:])
    halved, full = (
        zfnet.project(m, x, "conv2", 1, (3, 4), activation=torch.ones(1))
        for m in (model, with_plain_pooling)
    )
    torch.testing.assert_close(halved.pixels, full.pixels / 2)
    subclass = type("Same", (nn.Conv2d,), {})(3, 4, 3)
    chain = nn.Sequential(subclass, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 5)).eval()
    assert graph.is_chain(zfnet.trace(chain, x).steps)
    torch.testing.assert_close(zfnet.trace(chain, x).logits, chain(x))
