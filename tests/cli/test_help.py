"""Help of all commands, and the entry points `zfnet` and `python -m zfnet.cli`."""

import argparse
import importlib
import subprocess
import sys

import pytest

import zfnet
from tests.conftest import ROOT
from zfnet.benchmarking.data import DRAWN, TARGETS
from zfnet.benchmarking.metrics import COSTS, DEFAULT, GROUPS, METRICS
from zfnet.cli import arguments as shared
from zfnet.cli import image_arguments, run_arguments
from zfnet.cli.main import main
from zfnet.cli.parser import COMMANDS, new_parser
from zfnet.model import ARCHITECTURES


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
    assert [c.name for c in COMMANDS] == [
        "describe", "train", "distill-labels", "eval", "top", "project", "occlude", "explain", "bench", "video", "explore",
    ]  # fmt: skip
    for command in (*([c.name] for c in COMMANDS), []):
        with pytest.raises(SystemExit) as exit:
            main([*command, "--help"])
        assert exit.value.code == 0
        assert "usage: zfnet" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["bench", "--help"], ["tpo"]])
def test_help_answers_without_torch(arguments):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None;"
        "from zfnet.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert process.returncode == (2 if arguments == ["tpo"] else 0), process.stderr
    assert "zfnet" in (process.stdout or process.stderr)


def test_names_in_the_help_are_those_of_the_library():
    """They are written twice, because the modules that define them import torch."""
    assert tuple(zfnet.METHODS) == shared.METHODS
    assert tuple(sorted(ARCHITECTURES)) == image_arguments.ARCHITECTURES
    assert (DRAWN, TARGETS) == (run_arguments.DRAWN, run_arguments.TARGETS)
    assert (*METRICS, *COSTS, *GROUPS) == run_arguments.METRICS
    assert (*DEFAULT, "speed") == run_arguments.DEFAULT_METRICS


def test_every_public_name_is_imported_at_its_first_use():
    assert set(zfnet._MODULES) == set(zfnet.__all__)
    for name in zfnet.__all__:
        module = importlib.import_module(f"zfnet.{zfnet._MODULES[name]}")
        assert getattr(zfnet, name) is getattr(module, name)
    assert set(zfnet.__all__) <= set(dir(zfnet))
    with pytest.raises(AttributeError, match="module 'zfnet' has no attribute 'projects'"):
        _ = zfnet.projects


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"zfnet {zfnet.__version__}\n"


def test_python_m_runs_the_command():
    """Wrong input sets the exit status of the process."""
    process = subprocess.run(
        [sys.executable, "-m", "zfnet.cli", "describe", "--model", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("zfnet describe: no bundled network 'nothing'")
    assert len(process.stderr.splitlines()) == 1


def test_an_interrupt_is_status_130(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("zfnet.cli.describe.load_structure", interrupted)
    assert main(["describe"]) == 130
    assert capsys.readouterr().err == "zfnet describe: interrupted\n"
