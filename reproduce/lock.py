"""The environment of `requirements.lock`, in which committed results are made. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from reproduce import REPOSITORY
from reproduce.core.record import Record

LOCK = REPOSITORY / "requirements.lock"


def locked_version(package: str, lock: Path = LOCK) -> str:
    """The version of a package in the lock file. Raises KeyError."""
    lines = lock.read_text("utf-8").splitlines()
    versions = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return versions[package]


def other_torch(record: Record, lock: Path = LOCK) -> str:
    """A note on a record of another PyTorch than the lock file's; "" where it is the same.

    Builds of one version, such as 2.14.1+cpu and 2.14.1+cu130, count as the same.
    """
    made, locked = record.environment.get("torch", "unknown"), locked_version("torch", lock)
    if made.split("+")[0] == locked:
        return ""
    return f"made with torch {made}, {lock.name} has {locked}"
