"""Golden numbers as JSON: how a result is summarized, kept, and compared within a tolerance."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch

from reproduce.core.discovery import discover
from reproduce.core.figure import Result
from tests.golden.inputs import CANNOT_RUN, SETTINGS, Inputs

FOLDER = Path(__file__).parent
VALUES = 16  # evenly spaced values of an array that are kept
DIGITS = 7  # significant


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from its golden value: `rtol` of that value (of an array: or of its deviation) plus `atol`.

    `skip` are patterns of names that are not compared, such as measured times.
    """

    rtol: float = 1e-3
    atol: float = 1e-4
    skip: tuple[str, ...] = ()
    reason: str = ""


def compute(name: str, inputs: Inputs) -> dict[str, Any]:
    """Compute a figure on its small inputs, as `reproduce run` does, and summarize its result."""
    if name in CANNOT_RUN:
        return {"cannot_run": CANNOT_RUN[name]}
    return numbers_of(name, inputs, result(name, inputs))


def result(name: str, inputs: Inputs) -> Result:
    """Compute a figure on its small inputs, as `reproduce run` does."""
    script = discover()[name]
    context = inputs.context(name)
    with inputs.settings(name), torch.no_grad():
        torch.manual_seed(script.FIGURE.seed)
        return script.compute(context.for_figure(script.FIGURE))


def numbers_of(name: str, inputs: Inputs, result: Result) -> dict[str, Any]:
    """What is kept of a figure's result on its small inputs."""
    settings = plain(SETTINGS.get(name, {}))
    return {"corpus": inputs.context(name).corpus, "settings": settings} | summary(result)


def summary(result: Result) -> dict[str, Any]:
    """What is kept of a result: its numbers and verdict, and statistics and some values of each array."""
    arrays = {name: array_summary(array) for name, array in sorted(result.arrays.items())}
    return {
        "verdict": result.verdict,
        "n": int(result.n),
        "measured": plain(result.measured),
        "arrays": arrays,
    }


def array_summary(array: np.ndarray) -> dict[str, Any]:
    """Shape and type; of numbers the mean, deviation, absolute sum and evenly spaced values; of texts the values and a hash."""
    flat = array.ravel()
    chosen = flat[np.linspace(0, flat.size - 1, min(flat.size, VALUES)).round().astype(int)]
    about: dict[str, Any] = {
        "shape": list(array.shape),
        "dtype": array.dtype.str if array.dtype.kind != "U" else "text",
    }
    if array.dtype.kind == "U":
        return about | {
            "values": chosen.tolist(),
            "sha256": hashlib.sha256("\n".join(flat.tolist()).encode()).hexdigest(),
        }
    numbers = flat.astype(np.float64)
    if flat.size:
        about |= {
            "mean": numbers.mean(),
            "std": numbers.std(),
            "absolute sum": np.abs(numbers).sum(),
        }
    return plain(about | {"values": chosen.tolist()})


def plain(value: Any) -> Any:
    """Nested numbers as JSON holds them, of seven significant digits; infinities and NaN as text."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value


def differences(
    golden: Any, now: Any, tolerance: Tolerance, path: str = "", scale: float = 0.0
) -> Iterator[str]:
    """Yield a line for each value that is missing, new, or too far from its golden value.

    Args:
        golden: the kept value, a nested structure of dicts, lists, texts and numbers.
        now: the computed one.
        tolerance: what is allowed.
        path: the name of the value, for the messages.
        scale: of an array's values the deviation, of which `rtol` allows a part.
    """
    if any(fnmatch.fnmatch(path, pattern) for pattern in tolerance.skip):
        return
    if isinstance(golden, dict) and isinstance(now, dict):
        scale = golden["std"] if isinstance(golden.get("std"), float) else 0.0
        for name in golden | now:
            place = f"{path}/{name}".lstrip("/")
            if name not in golden or name not in now:
                yield f"{place}: {'new' if name in now else 'missing'}"
            else:
                yield from differences(golden[name], now[name], tolerance, place, scale)
    elif isinstance(golden, list) and isinstance(now, list):
        if len(golden) != len(now):
            yield f"{path}: {len(now)} values, golden {len(golden)}"
        for number, (old, new) in enumerate(zip(golden, now, strict=False)):
            yield from differences(old, new, tolerance, f"{path}/{number}", scale)
    elif not (_number(golden) and _number(now)):
        if golden != now:
            yield f"{path}: {now!r}, golden {golden!r}"
    elif abs(golden - now) > tolerance.rtol * max(abs(golden), scale) + tolerance.atol:
        yield f"{path}: {now:g}, golden {golden:g}"


def _number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def kept(name: str) -> Path:
    """The file of a figure's golden numbers."""
    return FOLDER / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    return json.loads(kept(name).read_text())


def write(name: str, numbers: dict[str, Any]) -> None:
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(
        r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text
    )  # a list of numbers on one line
    kept(name).write_text(text + "\n")
