"""Shared by all tests: a cache of their own, and one scenes network, trained once a session in about a minute."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

import zfnet
from zfnet.config import load_config
from zfnet.data.scenes import load_scenes
from zfnet.train import train

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Decoded images go to a temporary folder, not to the user's cache; random examples are the same on every run."""
    settings.register_profile("same", derandomize=True)
    settings.load_profile("same")
    old = os.environ.get("ZFNET_CACHE")
    os.environ["ZFNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["ZFNET_CACHE"])
    os.environ.pop("ZFNET_CACHE") if old is None else os.environ.update(ZFNET_CACHE=old)


@pytest.fixture(scope="session")
def scenes_val():
    return load_scenes(500, seed=1, size=112, side=128)


@pytest.fixture(scope="session")
def scenes_run(tmp_path_factory, cache, scenes_val):
    """The folder of a whole run of configs/scenes.yaml."""
    config = load_config(ROOT / "configs" / "scenes.yaml")
    out = tmp_path_factory.mktemp("runs") / "scenes"
    images = load_scenes(config.data.scenes, seed=0, size=112, side=128)
    train(config, lambda split, side: images if split == "train" else scenes_val, out)
    return out


@pytest.fixture(scope="session")
def scenes_net(scenes_run):
    return zfnet.load(scenes_run / "model.safetensors")


@pytest.fixture
def tree(tmp_path):
    """A small ImageNet-like tree: train and val, three classes whose images are of one colour each, plus noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for number, wnid in enumerate(("n01440764", "n02088094", "n03000000")):
            folder = tmp_path / "tree" / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (70, 90, 3)).astype(np.uint8)
                pixels[..., number] += 120
                Image.fromarray(pixels).save(folder / f"{wnid}_{i}.JPEG")
    return tmp_path / "tree"


def random_he(model):
    """He weights and small random biases, so that every layer responds; in evaluation mode."""
    torch.manual_seed(0)
    for module in model:
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def any_layers(draw, *, oblong):
    """Up to three random convolutions with ReLU and perhaps pooling, and an image size, drawn by hypothesis."""
    torch.manual_seed(draw(st.integers(0, 999)))
    size = (draw(st.integers(24, 40)), draw(st.integers(24, 40)))
    modules, channels = [], 3
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 5))
        kernel = (rows, draw(st.integers(1, 5)) if oblong else rows)
        stride, padding, dilation = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.integers(1, 2))
        modules += [torch.nn.Conv2d(channels, 4, kernel, stride, padding, dilation), torch.nn.ReLU()]
        channels = 4
        if draw(st.booleans()):
            modules.append(torch.nn.MaxPool2d(3, 2, draw(st.integers(0, 1)), ceil_mode=draw(st.booleans())))
    return modules, size


@pytest.fixture(scope="session")
def plain():
    """A ZFNet without normalisation, on which Captum is an oracle."""
    return random_he(zfnet.zfnet(10, norm="none", fc=32))


@pytest.fixture(scope="session")
def photographs():
    """Three sample photographs as one batch (3, 3, 224, 224)."""
    return torch.cat([zfnet.preprocess(zfnet.photograph(name)) for name in ("cat", "coffee", "astronaut")])
