"""Batches reach the device complete, in order and with their labels."""

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


def test_batches_follow_the_requested_order(images):
    parts = [np.array(p) for p in ([3, 4, 9], [9, 0], [29], [1, 2, 3, 4])]
    batches = list(Feed(images, torch.device("cpu"), keep=True).batches(parts))
    assert len(batches) == len(parts)
    for (raw, labels), part in zip(batches, parts, strict=True):
        assert torch.equal(raw, images.raw(part))
        assert labels.tolist() == images.labels[part].tolist()


def test_prefetching_runs_in_a_thread_and_stops_with_the_iterator(images, monkeypatch):
    reads, original_raw = [], Images.raw

    def recording_raw(self, part):
        reads.append((int(part[0]), threading.get_ident()))
        return original_raw(self, part)

    monkeypatch.setattr(Images, "raw", recording_raw)
    batches = Feed(images, torch.device("cpu")).batches(np.arange(30).reshape(15, 2))
    next(batches)
    batches.close()
    assert [first for first, _ in reads] == [2 * i for i in range(AHEAD + 1)]
    assert threading.get_ident() not in {thread for _, thread in reads}


def test_errors_while_reading_are_raised_in_the_consumer(images):
    with pytest.raises(IndexError):
        list(Feed(images, torch.device("cpu")).batches([np.array([0]), np.array([400])]))


def test_images_may_use_three_quarters_of_the_memory():
    assert fits(75, 100, 100)
    assert not fits(76, 100, 100)
    assert not fits(30, 50, 100)  # half is already in use


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("keep", [True, False])
def test_batches_on_a_gpu_equal_those_on_the_cpu(images, keep):
    feed = Feed(images, torch.device("cuda"), keep=keep)
    assert feed.resident == keep
    parts = np.random.default_rng(0).integers(0, 30, (20, 7))
    for (raw, labels), part in zip(feed.batches(parts), parts, strict=True):
        assert raw.is_cuda
        assert torch.equal(raw.cpu(), images.raw(part))
        assert labels.tolist() == images.labels[part].tolist()
