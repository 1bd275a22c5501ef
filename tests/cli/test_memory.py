"""Keeping freed memory in the process; a subprocess is used because the setting is permanent."""

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs mallopt of glibc")
def test_freed_memory_is_reused_without_page_faults():
    process = subprocess.run(
        [sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True
    )
    returned, reused = map(int, process.stdout.split())
    assert 10 * reused < returned


def test_without_glibc_the_setting_has_no_effect(monkeypatch):
    from zfnet.cli import memory

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed_memory()
