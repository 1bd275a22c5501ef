"""Freed memory stays with the process. Tested in a subprocess, because the setting cannot be undone."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch, zfnet.cli.memory
def faults():
    torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
returned = faults()
zfnet.cli.memory.keep_freed_memory()
print(returned, faults())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep their own ways"
)
def test_kept_memory_is_not_fetched_from_the_system_again():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True
    )
    returned, kept = map(int, done.stdout.split())
    assert 10 * kept < returned


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    from zfnet.cli import memory

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed_memory()
