"""`describe`: counts published by torchvision, custom modules, and memory."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import zfnet
from zfnet.networks import load_structure


@pytest.mark.parametrize(
    "name",
    ["alexnet", "vgg11", "resnet18", "squeezenet1_1", "googlenet", "densenet121", "vit_b_16", "swin_t", "efficientnet_b0", "regnet_x_400mf", "convnext_tiny"],
)  # fmt: skip
def test_counts_equal_those_published_by_torchvision(name):
    from torchvision import models

    published = models.get_model_weights(name).DEFAULT.meta
    rows = list(zfnet.describe(load_structure(f"torchvision:{name}")))
    assert sum(row.parameters for row in rows) == published["num_params"]
    assert sum(row.macs for row in rows) / 1e9 == pytest.approx(published["_ops"], abs=1e-3)


def test_custom_network_is_described_and_unchanged():
    class CustomNetwork(nn.Module):
        """A network with a shared ReLU, a bare parameter, and an unused layer."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, (1, 3), stride=(2, 1), padding=(0, 1), bias=False)
            self.relu = nn.ReLU()
            self.fc = nn.Linear(4, 2)
            self.scale = nn.Parameter(torch.ones(7))
            self.unused = nn.Linear(5, 5)

        def forward(self, x):
            x = self.relu(self.conv(x))
            return self.relu(self.fc(x.mean((2, 3))))

    model = CustomNetwork().train()
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    rows = list(zfnet.describe(model, size=8))
    assert [row.name for row in rows] == ["conv", "relu", "fc", "relu", "CustomNetwork"]
    assert rows[0].operation == "conv 1x3, stride 2x1, pad 0x1"
    assert rows[0].shape == (4, 4, 8)
    assert [row.parameters for row in rows] == [36, 0, 10, 0, 7 + 30]
    assert [row.macs for row in rows] == [36 * 4 * 8, 0, 8, 0, 0]
    assert model.training
    assert not model._forward_hooks
    assert not model.conv._forward_hooks
    assert all(torch.equal(weights[name], t) for name, t in model.state_dict().items())


PEAK = """
import re, zfnet, torch
from pathlib import Path
from zfnet.networks import load_structure

def peak():  # MiB; unlike ru_maxrss, this does not include the peak of the parent process
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

list(zfnet.describe(load_structure("torchvision:squeezenet1_1")))  # load imports and initialize the meta device
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc of Linux")
@pytest.mark.parametrize(
    ("code", "low", "high"),
    [
        ('before = peak(); list(zfnet.describe(load_structure("torchvision:vgg16")))', 0, 32),
        ('before = peak(); list(zfnet.describe(load_structure("imagenet65k")))', 0, 32),
        ("model = zfnet.zfnet(); before = peak(); list(zfnet.describe(model))", 0, 32),
        (
            "before = peak(); list(zfnet.describe(zfnet.zfnet()))",
            200,
            400,
        ),  # the 62 million weights take 238 MiB
    ],
)
def test_describe_allocates_no_weights(code, low, high):
    command = [sys.executable, "-c", f"{PEAK}\n{code}\nprint(peak() - before)"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert low <= float(process.stdout) <= high
