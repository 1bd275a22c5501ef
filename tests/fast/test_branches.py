"""Receptive fields through networks with branches, against whole maps."""

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

import zfnet
from tests.fast.test_incremental import Residual, of_torchvision
from tests.networks import he
from zfnet.fast import branches

LAYERS = {  # of torchvision's networks, whose fields are a part of the image
    "resnet18": ("layer1", "layer2.0.downsample.0", "layer2.0"), "squeezenet1_1": ("features.4", "features.6"),
    "densenet121": ("features.denseblock1.denselayer2",), "shufflenet_v2_x0_5": ("stage2.0", "stage2.1"),
    "mobilenet_v2": ("features.4",), "googlenet": ("inception3a",),
}  # fmt: skip


def both_ways(model, x, layer, position, **options):
    """Units of all positions, corners and borders included, with and without accelerations."""
    channel = torch.arange(len(position)) % 4
    if len(x) == 1:
        x = x.expand(1, -1, -1, -1)
    fast = zfnet.project(model, x, layer, channel, position, **options)
    with zfnet.fast.disabled():
        full = zfnet.project(model, x, layer, channel, position, **options)
    return fast, full


def positions(model, x, layer, count):
    """Positions on all borders, in the corners and inside."""
    height, width = zfnet.trace(model, x[:1], until=layer)[layer].shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    every = torch.stack([rows.flatten(), columns.flatten()], 1)
    return every[torch.linspace(0, len(every) - 1, count).long()]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("crop", [False, True])
def test_fields_are_whole_maps_in_networks_of_torchvision(name, crop, monkeypatch):
    model, x = of_torchvision(name).double(), torch.randn(1, 3, 96, 80, dtype=torch.float64)
    monkeypatch.setattr(branches, "SHARE", 10)
    calls = []
    project = branches.project_units
    monkeypatch.setattr(branches, "project_units", lambda *args: calls.append(1) or project(*args))
    for layer in LAYERS[name]:
        position = positions(model, x, layer, 7)
        fast, full = both_ways(model, x, layer, position, crop=crop)
        assert full.pixels.abs().max() > 0
        torch.testing.assert_close(fast.pixels, full.pixels, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(fast.activation, full.activation, rtol=1e-9, atol=1e-9)
    assert len(calls) == len(LAYERS[name])


@pytest.mark.parametrize("layer", ["conv2", "narrow", "wide", "conv3"])
def test_every_position_of_a_small_network(layer, monkeypatch):
    """Chunks of units that reach outside on different sides."""
    model, x = he(Residual()).double(), torch.randn(1, 3, 30, 42, dtype=torch.float64)
    monkeypatch.setattr(branches, "SHARE", 10)
    position = positions(model, x, layer, 60)
    for batch in (60, 7):
        fast, full = both_ways(model, x, layer, position, batch=batch)
        torch.testing.assert_close(fast.pixels, full.pixels, rtol=1e-9, atol=1e-9)


def test_project_top_uses_fields():
    """An early layer of ResNet-18 takes several times fewer operations, and gives the same."""
    model, images = he(torchvision.models.resnet18(num_classes=7)), torch.randn(3, 3, 128, 128)
    top = zfnet.top_activations(model, images, "layer1.0.conv2", k=2)

    def project():
        parts = zfnet.project_top(model, images, top)
        found = {
            (int(p.channel[i]), int(rank[i])): p.pixels[i]
            for _, rank, p in parts
            for i in range(len(rank))
        }
        return torch.stack([found[key] for key in sorted(found)])

    with FlopCounterMode(display=False) as few:
        fast = project()
    with zfnet.fast.disabled(), FlopCounterMode(display=False) as many:
        full = project()
    assert (fast - full).abs().max() <= 1e-5 * full.abs().max()
    assert many.get_total_flops() > 5 * few.get_total_flops()


def test_what_reads_everything_is_left_to_whole_maps():
    class Gate(Residual):
        def forward(self, x):
            y = self.conv1(x)
            return self.conv2(y * y.mean((2, 3), keepdim=True) + y)

    model, x = he(Gate()), torch.randn(1, 3, 40, 40)
    steps = zfnet.forward.network_steps(model, x, "conv1")
    needed, _ = branches.needed_windows(steps, torch.tensor([[5, 6]]))
    assert needed[""].size.tolist() == [[5, 5]]
    with pytest.raises(zfnet.graph.UnsupportedNetwork, match="reads more than a window"):
        branches.needed_windows(
            zfnet.forward.network_steps(model, x, "conv2"), torch.tensor([[5, 6]])
        )
