"""Several processes under torchrun: which of them this is, its share of the work, and what all of them found together.

`torchrun --nproc_per_node 8 -m zfnet.cli train ...` starts them. A single process uses `SINGLE_PROCESS`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=1)
BROKEN = (
    "gloo",
    "nccl",
    "connection",
    "timed out",
    "socket",
    "peer",
)  # what the backends' errors speak of


class ParallelError(RuntimeError):
    """Processes that cannot start, or cannot go on, together. The message says why."""


@dataclass(frozen=True)
class DistributedContext:
    """Process `rank` of `size`. Every process must call `sum` and `gather`, in the same order.

    `patient` is a process group for `gather`, which waits for a process that still reads its images; `sum` does not.
    """

    rank: int = 0
    size: int = 1
    patient: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, items: Any) -> Any:
        """Every size-th item of a list or an array, from the rank-th on."""
        return items[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, in a tensor of its own."""
        values = values.clone()
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, item: Any) -> list:
        """What each process has, in order of rank; tensors in it must be on the CPU."""
        found = [item] * self.size
        if self.size > 1:
            dist.all_gather_object(found, item, group=self.patient)
        return found


SINGLE_PROCESS = DistributedContext()
TORCHRUN = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
}  # as it is without


@contextlib.contextmanager
def join(
    device: str = "auto", timeout: float = 600.0
) -> Iterator[tuple[DistributedContext, torch.device]]:
    """This process's distributed, by the environment that torchrun gives it, and its device: of GPUs, each process has its own.

    `timeout` is how many seconds a step waits for a process that does not answer; before a run, and after a search or an
    evaluation, the wait is up to `PATIENCE`, for one machine may read slowly. One that has died is noticed at once by gloo;
    NCCL ends the process when the time is over, unless torchrun did before. Raises ParallelError for a device that cannot be
    used, more processes on a machine than it has GPUs, and a process that died.
    """
    given = {name: os.environ.get(name, default) for name, default in TORCHRUN.items()}
    if not all(number.isdecimal() for number in given.values()):
        raise ParallelError(
            f"torchrun gives numbers, the environment has {given}: start with torchrun, or unset them"
        )
    rank, size, local, here = map(int, given.values())
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.cuda.device_count()
    if size > 1 and device.startswith("cuda"):
        if here > there:
            instead = f"--nproc_per_node {there}" if there else "--device cpu"
            raise ParallelError(
                f"{here} processes want a GPU each, and this machine has {there}: use {instead}"
            )
        device = f"cuda:{local}"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError) as error:
        known = f"; this machine has {there} GPUs" if device.startswith("cuda") else ""
        raise ParallelError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}{known}"
        ) from None
    if (
        chosen.type == "cuda" and chosen.index is not None
    ):  # else pinned memory would take a part of the first GPU
        torch.cuda.set_device(chosen)
    if size == 1:
        yield SINGLE_PROCESS, chosen
        return
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except ValueError as error:
        raise ParallelError(
            f"WORLD_SIZE is {size}, but torchrun has not started this process ({error})"
        ) from None
    except dist.DistError as error:
        raise ParallelError(
            f"process {rank} of {size} cannot reach the others ({str(error).splitlines()[0]})"
        ) from None
    try:
        yield (
            DistributedContext(rank, size, dist.new_group(backend="gloo", timeout=PATIENCE)),
            chosen,
        )
    except RuntimeError as error:
        text = str(error).splitlines()[0] if str(error) else repr(error)
        if isinstance(error, dist.DistError) or (
            type(error) is RuntimeError and any(w in text.lower() for w in BROKEN)
        ):
            raise ParallelError(f"process {rank} of {size} lost another one ({text})") from None
        raise
    dist.destroy_process_group()  # not after an error: it may wait for a process that is gone
