"""The files of an atlas: the page, its script and style, and data as scripts, since browsers refuse to fetch from file://."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from zfnet.data.cache import DataError
from zfnet.record import write_text

HERE = Path(__file__).parent
PAGE = {
    "atlas.js": "atlas.js",
    "atlas.css": "atlas.css",
    "atlas.html": "index.html",
}  # by the script a folder is known
FOLDERS = ("data", "sheets", "demos")
BEFORE, AFTER = "ATLAS[", "] = "  # a data file is ATLAS["name"] = {...};


def save(out: Path, name: str, values: dict[str, Any] | list) -> None:
    """Write `out/data/<name>.js`, which puts the values into the page's one global, ATLAS."""
    text = json.dumps(
        values, allow_nan=False, separators=(",", ":")
    )  # ASCII, as scripts take it whatever their encoding
    write_text(out / "data" / f"{name}.js", f"{BEFORE}{json.dumps(name)}{AFTER}{text};\n")


def read(out: Path, name: str) -> Any:
    """The values of a file of `save`, or None where it is missing or of another kind."""
    try:
        text = (out / "data" / f"{name}.js").read_text("ascii")
        before = f"{BEFORE}{json.dumps(name)}{AFTER}"
        return (
            json.loads(text.removeprefix(before).removesuffix(";\n"))
            if text.startswith(before)
            else None
        )
    except (OSError, ValueError):
        return None


def prepare(out: Path, parts: str, look: bool = False) -> dict[str, Any]:
    """Make `out` ready for pages whose pictures depend on `parts`, and return the index of those that are to be continued.

    What is there of the same kind is removed otherwise, and the index empty: an atlas makes room for an atlas, a `look` for a
    `look`. Raises DataError where `out` is anything else.
    """
    index, kind = read(out, "index"), "look" if look else "atlas"
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _ours(out))):
        raise DataError(f"{out}: there is something there that is no {kind}; name a new folder")
    if index is not None and ("look" in index) != look:
        raise DataError(
            f"{out}: there is {'an atlas' if look else 'a look'} there, not to be overwritten; name another folder"
        )
    if index is not None and index.get("parts") == parts and not look:
        return index
    for folder in FOLDERS:
        shutil.rmtree(out / folder, ignore_errors=True)
    return {}


def _ours(out: Path) -> bool:
    """Whether the script there is a page's: someone else's atlas.js may have a data folder beside it."""
    try:
        return (
            (out / "atlas.js")
            .read_bytes()
            .startswith((HERE / "atlas.js").read_bytes().splitlines()[0])
        )
    except OSError:
        return False


def shell(out: Path) -> Path:
    """Write the page, its script and its style, and return the page."""
    for source, name in PAGE.items():
        write_text(out / name, (HERE / source).read_text("utf-8"))
    return out / "index.html"
