"""Batches of decoded images on the network's device: all of them kept there where they fit, else read ahead by threads."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from zfnet.data.cache import Images

AHEAD = 3  # batches read while the device works
SPARED = 0.25  # of a GPU's memory, which the network needs for itself
CHUNK = 512  # images that go to the device at a time


class Feed:
    """Some images as batches on a device: raw squares (n, S, S, 3) uint8 as they are kept, and labels (n,) int64.

    With `keep`, a GPU that has room takes all images once, and every batch is gathered there: `resident` says so. Otherwise a
    thread reads the next batches while one is used; for a GPU several do, and send them from pinned memory on its own stream.
    """

    def __init__(self, images: Images, device: torch.device, *, keep: bool = False):
        self.images, self.device = images, device
        size = images.pixels[:1].nbytes * len(images)
        self.resident = keep and device.type == "cuda" and fits(size, *room(device))
        self._stream = (
            _stream(torch.empty(0, device=device).device) if device.type == "cuda" else None
        )
        if self.resident:
            self._pixels = torch.empty(
                (len(images), *images.pixels.shape[1:]), dtype=torch.uint8, device=device
            )
            self._labels = torch.from_numpy(images.labels).to(device)
            for start in range(0, len(images), CHUNK):
                part = np.arange(start, min(start + CHUNK, len(images)))
                self._pixels[start : start + CHUNK] = images.raw(part).to(device)

    def batches(self, parts: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """The images at the indices of each part, in its order."""
        if self.resident:
            for part in parts:
                chosen = to_device(torch.from_numpy(part), self.device)
                yield self._pixels[chosen], self._labels[chosen]
            return
        waiting: deque = deque()
        if self._stream is None:
            readers = ThreadPoolExecutor(1)  # a CPU's cores have enough to do
        else:  # a new thread begins on the first GPU, and would take some of its memory
            readers = ThreadPoolExecutor(
                AHEAD, initializer=torch.cuda.set_device, initargs=(self._stream.device,)
            )
        with readers as reader:
            for part in parts:
                waiting.append(reader.submit(self._read, part))
                if len(waiting) > AHEAD:
                    yield self._arrived(*waiting.popleft().result())
            while waiting:
                yield self._arrived(*waiting.popleft().result())

    def _read(self, part: np.ndarray) -> tuple[Tensor, Tensor, torch.Event | None]:
        raw, labels = self.images.raw(part), torch.from_numpy(self.images.labels[part])
        if self._stream is None:
            return raw, labels, None
        with torch.cuda.stream(self._stream):
            return (
                to_device(raw, self.device),
                to_device(labels, self.device),
                self._stream.record_event(),
            )

    def _arrived(
        self, raw: Tensor, labels: Tensor, event: torch.Event | None
    ) -> tuple[Tensor, Tensor]:
        if event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            for tensor in (raw, labels):
                tensor.record_stream(stream)  # its memory was allocated on the other stream
        return raw, labels


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies of a GPU (by its number), one for all feeds: the allocator keeps each stream's memory apart."""
    return torch.cuda.Stream(device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on a device. To a GPU it goes from pinned memory, so that nobody waits until its queue of work is done."""
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


def room(device: torch.device) -> tuple[int, int]:
    """A GPU's free and total bytes; what PyTorch holds back of tensors that are gone counts as free."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)


def fits(size: int, free: int, total: int) -> bool:
    """Whether images of `size` bytes fit into a GPU's free bytes beside a network, to which a quarter of its memory is left."""
    return size <= free - SPARED * total
