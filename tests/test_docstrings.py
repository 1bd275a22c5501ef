"""Docstrings name every argument, and their examples run."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "zfnet").rglob("*.py"))
DOCUMENTED = (
    "analysis",
    "attribution",
    "data",
    "synthesis",
    "training",
    "checkpoint.py",
    "labels.py",
    "layers.py",
    "model.py",
    "options.py",
    "plot.py",
    "record.py",
    "rendering.py",
    "tensor_file.py",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public_functions(path: Path) -> list[ast.FunctionDef]:
    """Return the public functions of a module, and the public methods of its classes."""
    functions = []
    for node in ast.parse(path.read_text()).body:
        body = node.body if isinstance(node, ast.ClassDef) else [node]
        functions += [f for f in body if isinstance(f, ast.FunctionDef) and f.name[0] != "_"]
    return functions


@pytest.mark.parametrize(
    "path", [p for p in FILES if ">>> " in p.read_text()], ids=lambda p: str(p.relative_to(ROOT))
)
def test_docstring_examples_run(path):
    result = doctest.testmod(importlib.import_module(module_name(path)))
    assert result.failed == 0


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.relative_to(ROOT / "zfnet").parts[0] in DOCUMENTED],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_docstrings_name_every_argument(path):
    """One line is enough for a helper; a longer docstring has sections."""
    for function in public_functions(path):
        text = ast.get_docstring(function)
        assert text, f"{function.name} has no docstring"
        if "\n" not in text:
            continue
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            documented = argument.arg == "self" or f"\n    {argument.arg}: " in text
            assert documented, f"{function.name}: {argument.arg} is not documented"
