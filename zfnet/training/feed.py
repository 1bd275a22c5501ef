"""Batches of decoded images on the network's device: kept there if they fit, else read ahead."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from zfnet.data.dataset import Images

AHEAD = 3  # batches that are read while the device computes
RESERVED = 0.25  # share of a GPU's memory that the network needs
CHUNK = 512  # images per copy to the device


class Feed:
    """Batches of images on a device.

    A thread reads the next batches while one is used. For a GPU several threads copy from pinned
    memory on a separate stream.

    Args:
        images: The images.
        device: Where batches are needed.
        keep: Keep all images on a GPU that has room for them.

    Attributes:
        resident: Whether all images are on the GPU.
    """

    def __init__(self, images: Images, device: torch.device, *, keep: bool = False):
        self.images, self.device = images, device
        size = images.pixels[:1].nbytes * len(images)
        self.resident = keep and device.type == "cuda" and fits(size, *gpu_memory(device))
        self._stream = None
        if device.type == "cuda":
            self._stream = _copy_stream(torch.empty(0, device=device).device)
        if self.resident:
            shape = (len(images), *images.pixels.shape[1:])
            self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
            self._labels = torch.from_numpy(images.labels).to(device)
            for start in range(0, len(images), CHUNK):
                part = np.arange(start, min(start + CHUNK, len(images)))
                self._pixels[start : start + CHUNK] = images.raw(part).to(device)

    def batches(self, parts: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images of each part, in its order.

        Args:
            parts: Arrays (n,) of indices.

        Yields:
            Squares (n, S, S, 3) uint8 and labels (n,) int64, on the device.
        """
        if self.resident:
            for part in parts:
                rows = to_device(torch.from_numpy(part), self.device)
                yield self._pixels[rows], self._labels[rows]
            return
        if self._stream is None:
            pool = ThreadPoolExecutor(1)  # the other cores compute
        else:
            # Without set_device, a new thread would allocate memory on the first GPU.
            device = self._stream.device
            pool = ThreadPoolExecutor(AHEAD, initializer=torch.cuda.set_device, initargs=(device,))
        pending: deque = deque()
        with pool:
            for part in parts:
                pending.append(pool.submit(self._read, part))
                if len(pending) > AHEAD:
                    yield self._wait(*pending.popleft().result())
            while pending:
                yield self._wait(*pending.popleft().result())

    def _read(self, part: np.ndarray) -> tuple[Tensor, Tensor, torch.Event | None]:
        raw, labels = self.images.raw(part), torch.from_numpy(self.images.labels[part])
        if self._stream is None:
            return raw, labels, None
        with torch.cuda.stream(self._stream):
            raw, labels = to_device(raw, self.device), to_device(labels, self.device)
            return raw, labels, self._stream.record_event()

    def _wait(
        self, raw: Tensor, labels: Tensor, event: torch.Event | None
    ) -> tuple[Tensor, Tensor]:
        """Make the current stream wait for a copy."""
        if event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            for tensor in (raw, labels):
                tensor.record_stream(stream)  # its memory was allocated on the copy stream
        return raw, labels


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a GPU's stream for copies: one for all feeds, as each has its own memory pool."""
    return torch.cuda.Stream(device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device; to a GPU with a pinned, non-blocking copy."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def gpu_memory(device: torch.device) -> tuple[int, int]:
    """Return a GPU's free and total bytes; memory that PyTorch caches counts as free."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)


def fits(size: int, free: int, total: int) -> bool:
    """Whether images fit into a GPU next to a network, which has a quarter of its memory.

    Args:
        size: Bytes of the images.
        free: The GPU's free bytes.
        total: The GPU's total bytes.

    Example:
        >>> fits(50, 80, 100), fits(60, 80, 100)
        (True, False)
    """
    return size <= free - RESERVED * total
