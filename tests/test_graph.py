"""Which layers a network has, by name, and which networks are refused."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn

import zfnet
from tests.conftest import random_he
from zfnet.analysis.correspondence import correspondence
from zfnet.analysis.invariance import invariance
from zfnet.analysis.statistics import population
from zfnet.graph import UnsupportedNetwork


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
        zfnet.trace(
            model.eval(),
            torch.randn(1, 3, 8, 8) if isinstance(model, Functional) else torch.randn(1, 3, 64, 64),
        )


class Block(nn.Module):
    """A residual block: modules one after the other are not what it computes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


def test_a_sequential_is_verified_too():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), Block(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)
    ).eval()
    with pytest.raises(UnsupportedNetwork, match="residual"):
        zfnet.trace(model, torch.randn(1, 3, 8, 8))


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


class NewlyHeaded(nn.Module):
    """A new last layer, of zeros: its logits tell nothing of what lies below."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(4 * 256, 5),
        )
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
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), Halved(2), nn.Flatten(), nn.Linear(4 * 15 * 15, 5)
    ).eval()
    x = torch.randn(1, 3, 32, 32)
    with pytest.raises(UnsupportedNetwork, match="2 is a Halved"):
        zfnet.trace(model, x)
    o = zfnet.occlude(model, x, 0, size=8, stride=8)
    torch.testing.assert_close(o.baseline.logit, model(x)[0, 0].detach())
    like = nn.Sequential(
        type("Same", (nn.Conv2d,), {})(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 5)
    ).eval()
    torch.testing.assert_close(zfnet.trace(like, x).logits, like(x))
