"""Freed memory stays with the process, in a process of its own: the setting cannot be taken back."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
{setting}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**24)
before = faults()
for _ in range(20):
    torch.ones(2**24)  # 64 MB
print(faults() - before)
"""


def faults(setting: str = "") -> int:
    found = subprocess.run([sys.executable, "-c", FAULTS.format(setting=setting)], check=True, capture_output=True, text=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep their own ways")
def test_kept_memory_is_not_fetched_from_the_system_again():
    assert 10 * faults("import zfnet.memory; zfnet.memory.keep_freed()") < faults("import zfnet.memory")


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    from zfnet import memory

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed()
