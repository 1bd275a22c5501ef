"""The progress of a run, and the files that it writes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from zfnet.checkpoint import save
from zfnet.model import Network
from zfnet.training.config import Config
from zfnet.training.state import TrainState, read_state, save_state


def snapshot_name(epoch: float) -> str:
    """Return the file name of a snapshot.

    Args:
        epoch: The epochs trained so far; not whole within an epoch.

    Example:
        >>> snapshot_name(2), snapshot_name(0.25)
        ('epoch-002.safetensors', 'epoch-000.2500.safetensors')
    """
    number = f"{epoch:03.0f}" if epoch == int(epoch) else f"{epoch:08.4f}"
    return f"epoch-{number}.safetensors"


class RunRecord:
    """Counts the epochs, steps and seconds of a run, and writes its log, states and networks.

    Args:
        out: The folder of the run.
        config: The run's configuration.
        data: Digests of the training and validation images.
        snapshots: The epochs to keep, by the number of steps after which they end.
        keep_every: Least number of seconds between two saved states.
        writes: Whether this process writes the files.
        init: `info` of the network that the run starts from, or None.

    Attributes:
        state_file: The file from which the run resumes.
        progress: Epochs finished; steps of the current epoch, with their loss and correct
            answers; seconds; one line per epoch; `info` of the initial network; digests of the
            images. JSON can hold it.
    """

    def __init__(
        self,
        out: Path,
        config: Config,
        data: list[str],
        snapshots: dict[int, float],
        keep_every: float,
        writes: bool,
        init: dict | None,
    ) -> None:
        self.out, self.config, self.snapshots = out, config, snapshots
        self.keep_every, self.writes = keep_every, writes
        self.state_file = out / "state.safetensors"
        self.progress: dict[str, Any] = {"epoch": 0, "step": 0, "sums": [0.0, 0.0], "seconds": 0.0}
        self.progress |= {"log": [], "init": init, "data": data}
        self._saved_at, self._timed_at = time.monotonic(), time.perf_counter()

    @property
    def last_state(self) -> str:
        """Where to resume from, for messages."""
        if self.progress["epoch"]:
            return f"the last good state is {self.state_file}"
        return "no epoch was finished"

    def read(self) -> tuple[dict[str, Tensor], dict]:
        """Continue from the saved state; return its tensors and metadata, for `restore`."""
        tensors, meta = read_state(self.state_file, self.config, self.progress["data"])
        self.progress = meta["progress"]
        self.progress.setdefault("step", 0)  # older states have none
        return tensors, meta

    def start_clock(self) -> None:
        """Begin to count the seconds of an epoch."""
        self._timed_at = time.perf_counter()

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.progress["seconds"] += now - self._timed_at
        self._timed_at = now

    def end_epoch(self, line: dict) -> None:
        """Count an epoch, and add its line to the log."""
        self.progress["log"].append(line)
        self.progress |= {"epoch": self.progress["epoch"] + 1, "step": 0}
        self._count_seconds()

    def write_log(self) -> None:
        """Replace the log by the epochs of the run."""
        if self.writes:
            lines = [json.dumps(line) + "\n" for line in self.progress["log"]]
            (self.out / "log.jsonl").write_text("".join(lines))

    def append_log(self) -> None:
        """Append the last epoch to the log."""
        if self.writes:
            with (self.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(self.progress["log"][-1]) + "\n")

    @property
    def is_due(self) -> bool:
        """Whether the last state is old enough for another one."""
        return time.monotonic() - self._saved_at >= self.keep_every

    def save(self, state: TrainState) -> None:
        """Write the state from which the run can resume."""
        if self.writes:
            save_state(self.state_file, self.config, self.progress, state)
            self._saved_at = time.monotonic()

    def save_within_epoch(self, state: TrainState, step: int, sums: list[float]) -> None:
        """Write the state after `step` steps of an epoch, with their loss and correct answers."""
        self.progress |= {"step": step, "sums": sums}
        self._count_seconds()
        self.save(state)

    def save_snapshot(self, network: Network, step: int) -> None:
        """Keep the network, if the configuration has a snapshot after so many steps of the run."""
        if self.writes and step in self.snapshots:
            save(network, self.out / "snapshots" / snapshot_name(self.snapshots[step]))

    def save_network(self, network: Network) -> None:
        """Write the trained network."""
        if self.writes:
            save(network, self.out / "model.safetensors")
