"""Find the scripts of all figures."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import reproduce.bench
import reproduce.lectures
import reproduce.paper


def discover() -> dict[str, ModuleType]:
    """Every script with a FIGURE, by id, in the order of file names."""
    scripts = {}
    for package in (reproduce.paper, reproduce.lectures, reproduce.bench):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            if hasattr(module, "FIGURE"):
                scripts[module.FIGURE.id] = module
    return scripts


def script_folder(script: ModuleType) -> Path:
    """The folder of a figure's script, to which its declared files are relative."""
    return Path(str(script.__file__)).parent
