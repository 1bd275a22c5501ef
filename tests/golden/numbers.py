"""Golden numbers as JSON: summarize, save and compare results."""

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
VALUES = 16  # saved values per array
DIGITS = 7  # significant digits


@dataclass(frozen=True)
class Tolerance:
    """Tolerances of a comparison with golden numbers.

    A number may differ by `rtol` times its golden value plus `atol`. For arrays, `rtol` applies
    to the standard deviation if that is larger. Names that match a pattern in `skip` are not
    compared, such as measured times.
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
    """Return the numbers of a figure's result on its small inputs that are compared."""
    settings = to_json(SETTINGS.get(name, {}))
    return {"corpus": inputs.context(name).corpus, "settings": settings} | summarize(result)


def summarize(result: Result) -> dict[str, Any]:
    """Return the verdict and numbers of a result, and statistics and some values of each array."""
    arrays = {name: summarize_array(array) for name, array in sorted(result.arrays.items())}
    return {
        "verdict": result.verdict,
        "n": int(result.n),
        "measured": to_json(result.measured),
        "arrays": arrays,
    }


def summarize_array(array: np.ndarray) -> dict[str, Any]:
    """Return shape, type, statistics and evenly spaced values of an array; for text, a hash."""
    flat = array.ravel()
    values = flat[np.linspace(0, flat.size - 1, min(flat.size, VALUES)).round().astype(int)]
    description: dict[str, Any] = {
        "shape": list(array.shape),
        "dtype": array.dtype.str if array.dtype.kind != "U" else "text",
    }
    if array.dtype.kind == "U":
        return description | {
            "values": values.tolist(),
            "sha256": hashlib.sha256("\n".join(flat.tolist()).encode()).hexdigest(),
        }
    numbers = flat.astype(np.float64)
    if flat.size:
        description |= {
            "mean": numbers.mean(),
            "std": numbers.std(),
            "absolute sum": np.abs(numbers).sum(),
        }
    return to_json(description | {"values": values.tolist()})


def to_json(value: Any) -> Any:
    """Convert nested values to JSON types, with seven significant digits; inf and NaN become text."""
    if isinstance(value, dict):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [to_json(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value


def differences(
    golden: Any, actual: Any, tolerance: Tolerance, path: str = "", scale: float = 0.0
) -> Iterator[str]:
    """Yield a line for each value that is missing, new, or too far from its golden value.

    Args:
        golden: the saved value: nested dicts, lists, texts and numbers.
        actual: the computed value.
        tolerance: the allowed difference.
        path: the name of the value in messages.
        scale: the standard deviation of the array that the value belongs to, for `rtol`.
    """
    if any(fnmatch.fnmatch(path, pattern) for pattern in tolerance.skip):
        return
    if isinstance(golden, dict) and isinstance(actual, dict):
        scale = golden["std"] if isinstance(golden.get("std"), float) else 0.0
        for name in golden | actual:
            name_path = f"{path}/{name}".lstrip("/")
            if name not in golden or name not in actual:
                yield f"{name_path}: {'new' if name in actual else 'missing'}"
            else:
                yield from differences(golden[name], actual[name], tolerance, name_path, scale)
    elif isinstance(golden, list) and isinstance(actual, list):
        if len(golden) != len(actual):
            yield f"{path}: {len(actual)} values, golden {len(golden)}"
        for number, (golden_item, item) in enumerate(zip(golden, actual, strict=False)):
            yield from differences(golden_item, item, tolerance, f"{path}/{number}", scale)
    elif not (_number(golden) and _number(actual)):
        if golden != actual:
            yield f"{path}: {actual!r}, golden {golden!r}"
    elif abs(golden - actual) > tolerance.rtol * max(abs(golden), scale) + tolerance.atol:
        yield f"{path}: {actual:g}, golden {golden:g}"


def _number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def golden_path(name: str) -> Path:
    """Return the path of the golden numbers of a figure."""
    return FOLDER / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    return json.loads(golden_path(name).read_text())


def write(name: str, numbers: dict[str, Any]) -> None:
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    # Write each list of numbers on one line.
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\n\s*", " ", match[0]), text)
    golden_path(name).write_text(text + "\n")
