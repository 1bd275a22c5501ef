"""Options of a network, declared once for `zfnet.zfnet(...)`, configuration files and `--set`.

The types and the error texts here also serve the rest of a configuration
(`zfnet.training.config`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass


def _parse_float(value: Any) -> Any:
    """Convert numeric text to a float: YAML 1.1 reads 5e-5 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


# Strict: pydantic would otherwise accept true as 1, and 1.0 as an integer.
Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Str = Annotated[str, Strict()]
Float = Annotated[float, Strict(), BeforeValidator(_parse_float)]
Ints = tuple[Int, ...]
PositiveInt = Annotated[Int, Field(ge=1)]
FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=FORBID)
class ModelOptions:
    """Options of `zfnet.zfnet`, `zfnet.alexnet` and `zfnet.mnist`.

    A new option needs a field here and its use in `zfnet.model.layers`, nothing else.
    """

    norm: Literal["lrn", "batch", "none"] = "lrn"
    """"lrn" (contrast normalization, as in the paper), "batch" (BatchNorm before each ReLU) or
    "none"."""
    fc_units: Annotated[Int, Field(ge=1, le=10**6)] = 4096
    """Units of each hidden fully connected layer: 6 and 7, or 3 of `zfnet.mnist`."""
    channels: tuple[PositiveInt, ...] = ()
    """Output channels of layers 3 to 5 (three numbers) or of all layers. Empty: the paper's."""
    drop_layers: Ints = ()
    """Layers to leave out, from 3, 4, 6 and 7 (Table 3)."""
    groups: Annotated[Int, Field(ge=1, le=1000)] = 1
    """Groups of convolutions 2, 4 and 5. Krizhevsky et al. (2012) have 2."""
    dropout: Annotated[Float, Field(ge=0, le=0.99)] = 0.5
    """Dropout probability after each hidden fully connected layer."""
    input: Literal["standard", "paper"] = "standard"
    """"standard", or "paper": a first layer converts to [-128, 128] minus the mean image."""
    size: Annotated[Int, Field(ge=1, le=4096)] = 224
    """Side of the square input in pixels."""
    init: Literal["auto", "paper", "he"] = "auto"
    """Initial weights: "paper" (standard deviation 0.01, section 3), "he" (He et al. 2015, but 0.01
    in the last layer), or "auto": "he" with BatchNorm, else "paper". Biases are 0."""


KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "dict": "keys and values",
    "dataclass": "keys and values",
}


def unknown_key(error: Any) -> bool:
    """Whether an error of pydantic is about a key that does not exist."""
    return error["type"] in ("unexpected_keyword_argument", "invalid_key")


def explain(error: Any, schema: Any, prefix: str = "") -> str:
    """Turn an error of pydantic into a sentence that begins with the dotted key.

    Args:
        error: One of `ValidationError.errors()`.
        schema: The dataclass that was validated.
        prefix: Dotted key of the dataclass itself, such as "stages[1].optim".
    """
    section, key = schema, prefix
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    for part in error["loc"][:-1]:
        if isinstance(part, str):  # descend; a tuple's elements have the type of its first argument
            annotation = section.__pydantic_fields__[part].annotation
            section = next(iter(get_args(annotation)), annotation)
    key = key.removeprefix(".")
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if unknown_key(error):
        return f"unknown option {key}; available: {', '.join(section.__pydantic_fields__)}"
    if kind == "literal_error":
        return f"{key} must be {context['expected']}, got {value!r}"
    for name, words in (("ge", "at least"), ("le", "at most")):
        if name in context:
            return f"{key} must be {words} {context[name]}, got {value}"
    expected = KINDS.get(kind.split("_")[0], kind)
    return f"{key} must be {expected}, got {value!r}" if key else f"expected {expected}"
