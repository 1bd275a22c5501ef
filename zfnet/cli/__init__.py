"""The command line: `zfnet COMMAND`, or `torchrun ... -m zfnet.cli COMMAND` for several processes."""

from zfnet.cli.main import main

__all__ = ["main"]
