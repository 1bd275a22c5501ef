"""A leading ~/ means the home folder in every path argument."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import zfnet
from zfnet.checkpoint import initialize, read_metadata
from zfnet.cli import main
from zfnet.data.cache import cache_dir
from zfnet.data.frames import load_frames
from zfnet.data.io import atomic_write, expand_path
from zfnet.networks import load_network, load_structure
from zfnet.training.config import load_config


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    for i, name in enumerate(("cat/0.png", "cat/1.png", "dog/0.png")):
        (home / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (40 * i, 0, 0)).save(home / "tree" / name)
    (home / "run.yaml").write_text("name: mine")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return home


def test_every_path_is_expanded(home, monkeypatch, capsys):
    assert len(zfnet.load_folder("~/tree", side=32, size=28)) == 3
    assert zfnet.preprocess("~/tree/cat/0.png").shape == (1, 3, 224, 224)
    assert len(load_frames("~/tree/cat").x) == 2
    assert load_config("~/run.yaml").name == "mine"
    model = zfnet.mnist(2)
    zfnet.save(model, "~/net.safetensors")
    assert zfnet.load("~/net.safetensors").arch == "mnist"
    assert load_network("~/net.safetensors").size == load_structure("~/net.safetensors").size
    assert initialize(model, "~/net.safetensors")["sha256"]
    assert read_metadata("~/net.safetensors")["arch"] == "mnist"
    torch.save(model.state_dict(), home / "state.pt")
    # The file is read, but has another architecture.
    with pytest.raises(ValueError, match="architecture"):
        load_network("torchvision:alexnet", "~/state.pt")
    images = zfnet.load_folder("~/tree", side=32, size=28)
    zfnet.top_activations(model, images, ("conv1",), k=1, state="~/search.safetensors")
    with atomic_write(Path("~/notes.txt")) as partial:
        partial.write_text("text")
    arguments = ["--model", "~/net.safetensors", "--device", "cpu", "--out=~/out.png"]
    assert main(["explain", "~/tree/cat/0.png", *arguments]) == 0
    assert main(["top", "--data=~/tree", "--layer", "conv1", *arguments]) == 0
    # The checkpoint is read, but has other classes.
    assert main(["eval", "--data=~/tree", *arguments[:4]]) == 2
    assert "no output for 2 class folders" in capsys.readouterr().err
    monkeypatch.setenv("ZFNET_CACHE", "~/cache")
    assert cache_dir() == home / "cache"
    for name in ("search.safetensors", "notes.txt", "out.png"):
        assert (home / name).is_file()
    assert not list(Path().iterdir())  # no folder named "~"


def test_output_must_not_overwrite_its_input(home, capsys):
    image = home / "tree" / "cat" / "0.png"
    original = image.read_bytes()
    for image_path, out in (("~/tree/cat/0.png", str(image)), (str(image), "~/tree/cat/0.png")):
        assert main(["explain", image_path, f"--out={out}", "--device", "cpu"]) == 2
        assert "would overwrite the image" in capsys.readouterr().err
    assert image.read_bytes() == original


@given(st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1))
def test_only_the_home_folder_is_expanded(name):
    """File names that start with ~ are not expanded, such as temporary files of Office."""
    assert expand_path(Path("folder") / f"~{name}") == Path("folder") / f"~{name}"
    assert expand_path(f"~/{name}") == Path(os.path.expanduser("~")) / name
    assert expand_path(f"~$ {name}") == Path(f"~$ {name}")


def test_file_name_may_start_with_a_tilde(home):
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save("~$doc.png")
    assert zfnet.preprocess("~$doc.png").shape == (1, 3, 224, 224)
