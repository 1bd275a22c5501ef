"""The command line: `zfnet COMMAND`, or `torchrun ... -m zfnet.cli COMMAND` on several GPUs."""

from zfnet.cli.main import main

__all__ = ["main"]
