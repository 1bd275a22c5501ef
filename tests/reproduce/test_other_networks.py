"""Figures on a small residual network: each runs, or says what it needs of a network."""

import pytest
import torch
from torch import nn

import zfnet
from reproduce.core import context as contexts
from reproduce.core.discovery import discover
from reproduce.core.networks import conv_weight, unsupported_network
from reproduce.core.run import _compute
from reproduce.core.stages import CODE, STAGES, has_stages, name_stages, with_paper_layers
from tests.conftest import narrow_vgg11
from tests.golden.inputs import Inputs
from zfnet.data.labels import imagenet_names
from zfnet.graph import UnsupportedNetwork
from zfnet.networks import imagenet_wnids

REFUSED = {  # and what each needs
    "activations": "a chain of layers",  # shows layer 6
    "bench_speed": "a chain of layers",
    "extremes": "a chain of layers",  # minima before the ReLU
    "fig1": "a chain of layers",
    "fig3": "a network of this package",
    "fig9": "a chain of layers",
    "fig7": "a chain of layers",  # the strongest map of the last layer, under the occluder
    "filter_sheets": "a chain of layers",  # features before the ReLU
    "filters": "a chain of layers",  # all weights, layer by layer
    "inversions": "a chain of layers",  # layers 6 and 8
    "tab1": "a chain of layers",  # pooled maps of layer 5
    "tab4": "a chain of layers",
    "tab5": "a chain of layers",
    "tab6": "a chain of layers",
    "tab7": "a chain of layers",
}
QUICK = ("codes", "maps", "mistakes", "fig2")  # the others take minutes together
# The network is untrained, and `accuracy` is a table.
NOTHING_TO_DRAW = ("accuracy", "class_images", "mistakes", "polar_bear")


class Block(nn.Module):
    def __init__(self, below: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(below, channels, 3, 2, 1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(below, channels, 1, 2)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.conv2(self.relu1(self.conv1(x)))
        y += self.shortcut(x)
        return self.relu2(y)


class Residual(nn.Module):
    """The stages of ResNet with few channels; `conv1` names a module of its own, as in ResNet."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 7, 4, 3)  # a stride of 4 makes the figures quicker
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Conv2d(6, 6, 3, 1, 1)
        self.layer2, self.layer3, self.layer4 = Block(6, 8), Block(8, 10), Block(10, 12)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 1000)

    def forward(self, x):
        x = self.maxpool(self.relu(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(torch.relu(self.layer1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def residual():
    torch.manual_seed(0)
    model = Residual().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    x = torch.cat(
        [zfnet.preprocess(zfnet.photograph(name)) for name in ("cat", "coffee", "rocket")]
    )
    model.fc.bias -= model(x).mean(0)  # so that photographs differ in their predicted classes
    model.classes, model.wnids, model.size = list(imagenet_names()), list(imagenet_wnids()), 224
    return model


def test_stages_are_the_last_maps_of_each_size():
    model, x = residual(), torch.randn(2, 3, 224, 224, generator=torch.manual_seed(1))
    staged = name_stages(model, 224)
    assert has_stages(staged)
    outputs, codes = [], []
    for name in ("relu", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda m, i, o: outputs.append(o.clone()))
    model.fc.register_forward_hook(lambda m, i, o: codes.append(i[0]))
    logits = model(x)
    expected = dict(zip(("conv1", "conv3", "conv4", "conv5"), outputs, strict=True))
    taken = {}
    for name in (*STAGES, CODE):
        staged.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: taken.update({name: o.clone()})
        )
    assert torch.equal(staged(x), logits)
    assert [len(taken[name][0]) for name in STAGES] == [6, 6, 8, 10, 12]
    sides = [taken[name].shape[-1] for name in STAGES]
    assert sides == [56, 28, 14, 7, 4]
    for name, maps in expected.items():
        assert torch.equal(taken[name], maps)
    assert torch.equal(conv_weight(staged, "conv1"), model.conv1.weight)
    assert torch.equal(taken[CODE], codes[0])


def test_chains_and_networks_of_other_shapes_are_left_as_they_are():
    chain = narrow_vgg11()
    assert with_paper_layers(chain) is chain
    small = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(900, 5)).eval()
    with pytest.raises(UnsupportedNetwork, match="Sequential has 1 stages of maps, not 5"):
        name_stages(small, 32)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, cache):
    return Inputs(tmp_path_factory.mktemp("other networks"))


@pytest.fixture(scope="module")
def context_of(inputs):
    """The context of a figure, with the residual network as one of torchvision's."""
    opened = {}

    def make(name):
        like = inputs.context(name)
        key = (like.data, like.requested_datasets)
        if key not in opened:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(contexts, "load_network", lambda *arguments: residual())
                other = contexts.Context(
                    "torchvision:resnet18",
                    like.data,
                    datasets=like.requested_datasets,
                    weights="random",
                )
                _ = other.model
            opened[key] = other
        return opened[key]

    return make


def using_a_network():
    return [
        name for name, script in discover().items() if script.FIGURE.uses_model and name != "fig4"
    ]


def test_each_figure_that_refuses_says_what_it_needs(context_of):
    reasons = {
        name: unsupported_network(discover()[name].FIGURE, context_of("fig2"))
        for name in using_a_network()
    }
    refused = {name: reason for name, reason in reasons.items() if reason}
    assert refused.keys() == REFUSED.keys()
    for name, need in REFUSED.items():
        assert refused[name].startswith(f"It needs {need}"), refused[name]
        assert "resnet18" in refused[name]


def test_figure_1_needs_pooling_windows_that_overlap(monkeypatch):
    monkeypatch.setattr(contexts, "load_network", lambda *arguments: narrow_vgg11())
    context = contexts.Context("torchvision:vgg11", None, weights="random")
    result = _compute(discover()["fig1"], context)
    assert result.verdict == "not run"
    assert result.note.startswith("No two pooling windows of this network overlap")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in using_a_network()
        if name not in {*REFUSED, "bench_vgg19"}  # which times VGG-19: test_speed_races.py
    ],
)
def test_a_figure_runs_on_a_residual_network(name, inputs, context_of):
    script, context = discover()[name], context_of(name)
    with inputs.settings(name):
        result = _compute(script, context)
        assert result.verdict != "not run", result.note
        if name not in NOTHING_TO_DRAW:
            assert script.draw(result)
