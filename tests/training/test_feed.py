"""Batches reach the device in order, whole, and with their labels, however they are read."""

import threading

import numpy as np
import pytest
import torch

from zfnet.data.dataset import Images
from zfnet.data.scenes import load_scenes
from zfnet.training.feed import AHEAD, Feed, fits


@pytest.fixture(scope="module")
def images():
    return load_scenes(30, seed=5, size=28, side=32)


def test_batches_are_the_parts_in_their_order(images):
    parts = [np.array(p) for p in ([3, 4, 9], [9, 0], [29], [1, 2, 3, 4])]
    found = list(Feed(images, torch.device("cpu"), keep=True).batches(parts))
    assert len(found) == len(parts)
    for (raw, labels), part in zip(found, parts, strict=True):
        assert torch.equal(raw, images.raw(part))
        assert labels.tolist() == images.labels[part].tolist()


def test_reading_is_ahead_in_another_thread_and_stops_with_its_user(images, monkeypatch):
    read, whole = [], Images.raw

    def recorded(self, part):
        read.append((int(part[0]), threading.get_ident()))
        return whole(self, part)

    monkeypatch.setattr(Images, "raw", recorded)
    batches = Feed(images, torch.device("cpu")).batches(np.arange(30).reshape(15, 2))
    next(batches)
    batches.close()
    assert [first for first, _ in read] == [2 * i for i in range(AHEAD + 1)]
    assert threading.get_ident() not in {thread for _, thread in read}


def test_an_error_while_reading_reaches_the_user(images):
    with pytest.raises(IndexError):
        list(Feed(images, torch.device("cpu")).batches([np.array([0]), np.array([400])]))


def test_a_quarter_of_the_memory_is_the_networks():
    assert fits(75, 100, 100)
    assert not fits(76, 100, 100)
    assert not fits(30, 50, 100)  # others hold half of it


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("keep", [True, False])
def test_a_gpu_gets_the_same(images, keep):
    feed = Feed(images, torch.device("cuda"), keep=keep)
    assert feed.resident == keep
    parts = np.random.default_rng(0).integers(0, 30, (20, 7))
    for (raw, labels), part in zip(feed.batches(parts), parts, strict=True):
        assert raw.is_cuda
        assert torch.equal(raw.cpu(), images.raw(part))
        assert labels.tolist() == images.labels[part].tolist()
