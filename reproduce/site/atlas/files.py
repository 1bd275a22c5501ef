"""The files of an atlas: the page, its script, and its data.

The data files are scripts, `ATLAS["name"] = {...};`, since browsers do not fetch from file://.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reproduce.site.rendering import STATIC, render
from zfnet.data.cache import DataError
from zfnet.data.io import atomic_write

SCRIPT = "atlas.js"
SCRIPT_PARTS = (
    "elements", "sprites", "network", "search", "layers", "features", "classes", "occlusion",
    "look", "routes",
)  # fmt: skip
SIGNATURE = "// Draws the pages of an atlas, or"  # an atlas.js of ours begins with it
FOLDERS = ("data", "sheets", "demos")


def write_page(out: Path) -> Path:
    """Write the page and its script, and return the page."""
    parts = [(STATIC / f"{name}.js").read_text("utf-8") for name in SCRIPT_PARTS]
    write_text(out / SCRIPT, "\n".join(parts))
    write_text(out / "index.html", render("atlas.html"))
    return out / "index.html"


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, "utf-8")


def save(out: Path, name: str, values: dict[str, Any] | list[Any]) -> None:
    """Write the data file `out/data/<name>.js`. It is ASCII, for any encoding of the page."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    write_text(out / "data" / f"{name}.js", f"{_assignment(name)}{text};\n")


def read(out: Path, name: str) -> Any:
    """The values of a data file; None if it is missing, damaged, or not a data file."""
    try:
        text = (out / "data" / f"{name}.js").read_text("ascii")
        if not text.startswith(_assignment(name)):
            return None
        return json.loads(text.removeprefix(_assignment(name)).removesuffix(";\n"))
    except (OSError, ValueError):
        return None


def _assignment(name: str) -> str:
    return f"ATLAS[{json.dumps(name)}] = "


def prepare(out: Path, parts: str, look: bool = False) -> dict[str, Any]:
    """Prepare a folder for an atlas, or for the page of one image.

    An atlas replaces an atlas, and a page of one image replaces another one.

    Args:
        out: The folder. It may be missing or empty.
        parts: Hash of what the pictures depend on.
        look: Prepare for the page of one image.

    Returns:
        The index of the atlas to continue, or an empty one. Old files are removed then.

    Raises:
        DataError: The folder has other files.
    """
    index, kind = read(out, "index"), "look" if look else "atlas"
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_ours(out))):
        raise DataError(f"{out} exists and is not a page of this kind ({kind}); name a new folder")
    if index is not None and ("look" in index) != look:
        other = "an atlas" if look else "the page of one image"
        raise DataError(f"{out} contains {other}, which is not overwritten; choose another folder")
    if index is not None and index.get("parts") == parts and not look:
        return index
    for folder in FOLDERS:
        shutil.rmtree(out / folder, ignore_errors=True)
    return {}


def _is_ours(out: Path) -> bool:
    """Whether the folder's atlas.js is ours: someone else's may have a data folder beside it."""
    try:
        return (out / SCRIPT).read_bytes().startswith(SIGNATURE.encode())
    except OSError:
        return False
