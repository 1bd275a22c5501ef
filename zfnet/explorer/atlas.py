"""The nine strongest images of a feature, read from an atlas (`python -m reproduce atlas`)."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KINDS = ("patches", "projections")
NO_ATLAS = "no atlas: `python -m reproduce atlas` makes one, and --atlas DIR names it"


class Atlas:
    """An atlas folder: `data/*.js` with the numbers, `sheets/*.webp` with the pictures.

    Args:
        folder: The folder, or None.
        checkpoint: The hash of the network's weights; an atlas of another network is refused.
    """

    def __init__(self, folder: Path | None, checkpoint: str):
        self.folder, self.checkpoint = folder, checkpoint

    @cached_property
    def index(self) -> dict[str, Any]:
        """The metadata of the atlas; empty if it cannot be used."""
        index = self._read("index") if self.folder else None
        usable = isinstance(index, dict) and index.get("checkpoint") == self.checkpoint
        return index if usable and index else {}

    @property
    def status(self) -> str:
        """Where the neighbors come from, or why there are none."""
        if self.index:
            return f"{self.index['images']:,} images ({self.index['corpus']})"
        if self.folder and self._read("index") is not None:
            return (
                f"{self.folder} is the atlas of another network; "
                "`python -m reproduce atlas` makes one, and --atlas DIR names it"
            )
        return NO_ATLAS

    def neighbors(self, layer: str, unit: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The values, and the patches and projections (up to 9, side, side, 3) uint8, of a feature.

        The arrays are empty if the atlas has no pictures of it; `why` says why.
        """
        listed = {entry["name"]: entry for entry in self.index.get("layers", [])}.get(layer)
        if listed is None or layer in self.index["missing"]:
            return _nothing(f"the atlas has no {layer}" if self.index else self.status)
        if unit not in listed["numbers"]:
            return _nothing(f"the atlas has no pages for {layer}/{unit}")
        slot, data = listed["numbers"].index(unit), self._read(layer)
        try:
            feature = data["features"][slot]  # pyright: ignore[reportOptionalSubscript]
            count = len(feature["value"])
            tiles = {
                kind: self._tiles(f"{layer}-{kind}", slot, listed["side"])[:count] for kind in KINDS
            }
        except (OSError, ValueError, LookupError, TypeError):
            return _nothing(f"{self.folder}: the atlas is damaged at {layer}/{unit}")
        why = "" if count else f"no image of the atlas activates {layer}/{unit}"
        return {
            "values": feature["value"],
            "names": self._names(feature["image"]),
            "why": why,
        }, tiles

    def _names(self, images: list[int]) -> list[str]:
        names = self._read("names")
        return [names["name"][i] for i in images] if names else [""] * len(images)

    def _tiles(self, sheet: str, slot: int, side: int) -> np.ndarray:
        """The tiles of a feature. A sheet has blocks of 3 x 3 tiles, `across` per row."""
        rows, across, block = (self.index[name] for name in ("rows", "across", "block"))
        assert self.folder is not None
        with Image.open(self.folder / "sheets" / f"{sheet}-{slot // rows}.webp") as image:
            row, column = divmod(slot % rows, across)
            left, top, size = column * block * side, row * block * side, block * side
            tiles = image.convert("RGB").crop((left, top, left + size, top + size))
        # (block x side, block x side, 3) -> (block x block, side, side, 3)
        split = np.asarray(tiles).reshape(block, side, block, side, 3).swapaxes(1, 2)
        return split.reshape(-1, side, side, 3)

    def _read(self, name: str) -> Any:
        assert self.folder is not None
        return _read_script(self.folder / "data" / f"{name}.js")


def _nothing(why: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    empty = np.zeros((0, 1, 1, 3), np.uint8)
    return {"values": [], "names": [], "why": why}, dict.fromkeys(KINDS, empty)


@lru_cache(maxsize=16)
def _read_script(path: Path) -> Any:
    """The values of ATLAS["name"] = {...}; or None if the file is missing or damaged."""
    try:
        text = path.read_text("ascii")
        return json.loads(text[text.index("=") + 1 :].strip().removesuffix(";"))
    except (OSError, ValueError):
        return None


def find_atlas(root: Path, checkpoint: str) -> Path | None:
    """The atlas written by `make figures` or included in a clone, if any.

    An atlas of the network with this checkpoint hash comes first, then that of imagenet65k.
    """
    folders = [f for f in root.glob("figures/*/atlas") if (f / "data" / "index.js").exists()]

    def order(folder: Path) -> tuple[bool, bool, Path]:
        matches = bool(Atlas(folder, checkpoint).index)
        return not matches, folder.parent.name != "imagenet65k", folder

    return min(folders, key=order, default=None)
