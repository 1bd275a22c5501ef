"""Parse the command line and run a command.

Wrong input prints one line to stderr, and the exit status is 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from zfnet.cli.parser import new_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command and its arguments; None for those of this process.

    Returns:
        The exit status: 0, 2 for wrong input, or 130 after an interrupt.
    """
    options = new_parser().parse_args(arguments)
    from zfnet.cli.execute import execute  # imports torch, which takes seconds

    return execute(options, is_program=arguments is None)
