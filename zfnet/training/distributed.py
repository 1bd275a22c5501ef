"""Several processes under torchrun: their ranks, their shares of a batch, and their collectives.

`torchrun --nproc_per_node 8 -m zfnet.cli train ...` starts them. A single process uses
`SINGLE_PROCESS`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

GATHER_TIMEOUT = timedelta(days=1)  # one machine may decode its images slowly
# gloo and NCCL report a lost process as a plain RuntimeError with one of these words.
LOST_PEER = ("gloo", "nccl", "connection", "timed out", "socket", "peer")


class ParallelError(RuntimeError):
    """Several processes cannot start or continue. The message says why."""


class LostPeerError(ParallelError):
    """Another process died."""


def exit_after_lost_peer(status: int) -> NoReturn:
    """End this process without its usual cleanup, in which gloo may abort: the group is broken."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@dataclass(frozen=True)
class DistributedContext:
    """Process `rank` of `size`. Every process must call `sum` and `gather`, in the same order.

    Attributes:
        rank: The number of this process, from 0.
        size: The number of processes.
        group: Process group of `gather`, with a long timeout.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, items: Any) -> Any:
        """Return this process's share: every size-th item.

        Args:
            items: A list or an array.

        Example:
            >>> DistributedContext(rank=1, size=2).share([0, 1, 2, 3])
            [1, 3]
        """
        return items[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of all processes' values, in a new tensor of the same shape."""
        values = values.clone()
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, item: Any) -> list:
        """Return the items of all processes, in order of rank. Tensors must be on the CPU."""
        items = [item] * self.size
        if self.size > 1:
            dist.all_gather_object(items, item, group=self.group)
        return items


SINGLE_PROCESS = DistributedContext()
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


@contextlib.contextmanager
def join(
    device: str = "auto", timeout: float = 600.0
) -> Iterator[tuple[DistributedContext, torch.device]]:
    """Join the processes that torchrun has started.

    A process that dies ends the others: gloo notices it at once, NCCL after the timeout.

    Args:
        device: A torch device, or "auto": a GPU, if there is one. Each process of a machine gets
            its own GPU.
        timeout: Seconds that `sum` and gradients wait for another process. `gather` waits up to
            `GATHER_TIMEOUT`.

    Yields:
        The context of this process, and its device.

    Raises:
        ParallelError: The device cannot be used, a machine has fewer GPUs than processes, or
            another process died.

    Example:
        >>> with join("cpu") as (distributed, device):
        ...     print(distributed.rank, device)
        0 cpu
    """
    environment = {name: os.environ.get(name, default) for name, default in TORCHRUN.items()}
    if not all(value.isdecimal() for value in environment.values()):
        raise ParallelError(
            f"expected numbers in the environment, got {environment}: start with torchrun, or "
            "unset them"
        )
    rank, size, local_rank, local_size = map(int, environment.values())
    torch_device = _choose_device(device, size, local_rank, local_size)
    if size == 1:
        yield SINGLE_PROCESS, torch_device
        return
    _init_process_group(rank, size, torch_device, timeout)
    try:
        group = dist.new_group(backend="gloo", timeout=GATHER_TIMEOUT)
        yield DistributedContext(rank, size, group), torch_device
    except RuntimeError as error:
        text = str(error).splitlines()[0] if str(error) else repr(error)
        is_plain = type(error) is RuntimeError
        lost = is_plain and any(word in text.lower() for word in LOST_PEER)
        if lost or isinstance(error, dist.DistError):
            raise LostPeerError(
                f"process {rank} of {size}: another process died ({text})"
            ) from None
        raise
    dist.destroy_process_group()  # not after an error: it may wait for a dead process


def available_devices() -> list[str]:
    """Return the names of devices that PyTorch can use on this machine, and "auto".

    GPUs are only counted: a tensor would allocate a context on the first one in every process.
    """
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["auto", "cpu", *(["cuda"] if gpus else []), *gpus, *mps]


def _choose_device(device: str, size: int, local_rank: int, local_size: int) -> torch.device:
    """Return this process's device, after a test that it works."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    gpus = torch.cuda.device_count()
    if size > 1 and device.startswith("cuda"):
        if local_size > gpus:
            option = f"--nproc_per_node {gpus}" if gpus else "--device cpu"
            raise ParallelError(
                f"{local_size} processes need a GPU each, and this machine has {gpus}: use {option}"
            )
        device = f"cuda:{local_rank}"
    try:
        torch_device = torch.device(device)
        torch.zeros(1, device=torch_device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        available = ", ".join(available_devices())
        raise ParallelError(f"device {device!r} cannot be used; available: {available}") from None
    if torch_device.type == "cuda" and torch_device.index is not None:
        # Without this, pinned memory would allocate memory on the first GPU.
        torch.cuda.set_device(torch_device)
    return torch_device


def _init_process_group(rank: int, size: int, device: torch.device, timeout: float) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except ValueError as error:
        raise ParallelError(
            f"WORLD_SIZE is {size}, but torchrun has not started this process ({error})"
        ) from None
    except dist.DistError as error:
        reason = str(error).splitlines()[0]
        raise ParallelError(
            f"process {rank} of {size} cannot reach the others ({reason})"
        ) from None
