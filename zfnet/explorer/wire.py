"""The binary responses of the API: a JSON header, then arrays.

    bytes 0-3   the header's length in bytes, uint32, little-endian
    header      JSON, padded with spaces to a multiple of 8 bytes with the length before it
    arrays      in the order of header["arrays"], each padded with zeros to a multiple of 8 bytes

Each entry of `arrays` has a `name`, a `dtype` ("float32" or "uint8") and a `shape`. Values are
little-endian, in C order. A number that is not finite is null in the header.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

DTYPES = {"float32": "<f4", "uint8": "u1"}
ALIGNMENT = 8


def pack(header: Mapping[str, Any], **arrays: np.ndarray) -> bytes:
    """Encode a header and arrays of float32 or uint8 as one answer.

    Example:
        >>> header, arrays = unpack(pack({"unit": 17}, map=np.zeros((2, 3), np.float32)))
        >>> header["unit"], arrays["map"].shape
        (17, (2, 3))
    """
    listed = [
        {"name": name, "dtype": array.dtype.name, "shape": array.shape}
        for name, array in arrays.items()
    ]
    text = to_json({**header, "arrays": listed}).encode()
    text += b" " * (-(len(text) + 4) % ALIGNMENT)
    parts = [struct.pack("<I", len(text)), text]
    for array in arrays.values():
        values = np.ascontiguousarray(array, DTYPES[array.dtype.name]).tobytes()
        parts += [values, b"\0" * (-len(values) % ALIGNMENT)]
    return b"".join(parts)


def unpack(answer: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Decode what `pack` returned: the header and the arrays by name."""
    (length,) = struct.unpack_from("<I", answer)
    header = json.loads(answer[4 : 4 + length])
    arrays, offset = {}, 4 + length
    for entry in header.pop("arrays"):
        count = math.prod(entry["shape"])
        values = np.frombuffer(answer, DTYPES[entry["dtype"]], count, offset)
        arrays[entry["name"]] = values.reshape(entry["shape"])
        offset += values.nbytes + -values.nbytes % ALIGNMENT
    return header, arrays


def to_json(value: Any) -> str:
    """Encode JSON, with null for numbers that are not finite, which JSON does not have."""
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Convert an image in [0, 1] to uint8."""
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
