"""Help of all commands, and the entry points `zfnet` and `python -m zfnet.cli`."""

import argparse
import subprocess
import sys

import pytest

import zfnet
from zfnet.cli.main import COMMANDS, main, new_parser


def arguments():
    """Yield every argument of every command, with its command and parser."""
    for action in new_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from (
                    (name, sub, a) for a in sub._actions if not isinstance(a, argparse._HelpAction)
                )


@pytest.mark.parametrize(
    ("command", "parser", "action"),
    [pytest.param(*a, id=f"{a[0]}-{a[2].dest}") for a in arguments()],
)
def test_every_argument_has_help_with_its_default_and_unit(command, parser, action):
    assert action.help, f"{command} {action.dest} has no help"
    text = parser._get_formatter()._expand_help(action)
    if action.option_strings and not action.required:
        assert "(default: " in text
    if action.default not in (None, False, []):
        assert f"(default: {action.default})" in text
    if action.type is int:
        units = ("pixels", "channel", "from 0", "from 1", "per image", "per channel", "per class")
        assert any(unit in text for unit in units)
    assert "Path(" not in text
    assert "None" not in text


def test_every_command_has_help(capsys):
    assert [c.NAME for c in COMMANDS] == [
        "describe", "train", "distill-labels", "eval", "top", "project", "occlude", "explain", "bench", "video", "explore",
    ]  # fmt: skip
    for command in (*([c.NAME] for c in COMMANDS), []):
        with pytest.raises(SystemExit) as exit:
            main([*command, "--help"])
        assert exit.value.code == 0
        assert "usage: zfnet" in capsys.readouterr().out


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"zfnet {zfnet.__version__}\n"


def test_python_m_runs_the_command():
    """Invalid input sets the exit status of the process."""
    process = subprocess.run(
        [sys.executable, "-m", "zfnet.cli", "describe", "--model", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("zfnet describe: no bundled network 'nothing'")
    assert len(process.stderr.splitlines()) == 1


def test_interrupt_exits_with_130(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("zfnet.cli.describe.load_structure", interrupted)
    assert main(["describe"]) == 130
    assert capsys.readouterr().err == "zfnet describe: interrupted\n"
