"""Recover the boxes of Stanford Dogs in the images of another tree.

Stanford Dogs (Khosla et al., 2011) has boxes of dogs in images of ImageNet. A public repository
holds the boxes' contents only: each dog, cut from its image and resized to 224 x 224 pixels. Where
a tree has the image of the same name, the crop is a template: the rectangle that looks like it is
the box. Only boxes and hashes are written, never an image.

    git clone --bare https://github.com/kassya-rosa/IA_Racas_Caninas dogs.git
    python -m reproduce.dog_boxes dogs.git --data IMAGENET65K
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import subprocess
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from reproduce.template import match
from zfnet.data.io import atomic_write
from zfnet.data.tree import scan

BOXES = Path(__file__).parent / "lectures" / "dogs.csv"
COLUMNS: tuple[str, ...] = ("file", "sha256", "top", "left", "bottom", "right", "correlation")
LEAST = 0.95  # correlation of an accepted match; crops of other images stay below


def read_gray(data: bytes) -> Tensor:
    """Decode an image file as gray values (H, W) in [0, 1]."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=np.float32)
    return torch.from_numpy(pixels / 255)


def read_crops(repository: Path, names: Container[str]) -> dict[str, bytes]:
    """Read the crops below data/ of a git directory whose name without suffix is in `names`."""
    git = ["git", "--git-dir", str(repository)]
    listing = subprocess.run(
        [*git, "ls-tree", "-r", "-z", "HEAD", "data/"], capture_output=True, check=True
    )
    crops = {}
    for entry in listing.stdout.decode().split("\0"):
        meta, _, path = entry.partition("\t")
        if path and (name := Path(path).stem) in names:
            blob = [*git, "cat-file", "blob", meta.split()[2]]
            crops[name] = subprocess.run(blob, capture_output=True, check=True).stdout
    return crops


def find_boxes(
    files: dict[str, Path], crops: dict[str, bytes]
) -> tuple[list[dict[str, Any]], float]:
    """Match crops with the images of the same name.

    Args:
        files: Image files by name without suffix.
        crops: The bytes of crops by name.

    Returns:
        The rows of accepted matches, with boxes in pixels of the file, clipped to the image; and
        the largest correlation of an image with the next image's crop, which is no match.
    """
    names = sorted(files.keys() & crops.keys())
    rows, mismatched = [], -1.0
    for number, name in enumerate(tqdm(names, desc="matching", leave=False)):
        data = files[name].read_bytes()
        image = read_gray(data)
        found = match(read_gray(crops[name]), image)
        other = crops[names[(number + 1) % len(names)]]
        mismatched = max(mismatched, match(read_gray(other), image).correlation)
        if found.correlation < LEAST:
            continue
        sides = image.shape * 2  # rows, columns, rows, columns
        box = [
            round(min(max(edge, 0), 1) * side) for edge, side in zip(found.box, sides, strict=True)
        ]
        file = f"{files[name].parent.name}/{files[name].name}"
        values = (file, hashlib.sha256(data).hexdigest(), *box, round(found.correlation, 4))
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows, mismatched


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the boxes of the images that a tree shares with Stanford Dogs."""
    parser = argparse.ArgumentParser(prog="python -m reproduce.dog_boxes")
    parser.add_argument("crops", type=Path, help="git directory of IA_Racas_Caninas")
    parser.add_argument("--data", type=Path, required=True, help="folder with val/<wnid>/*.JPEG")
    parser.add_argument("--out", type=Path, default=BOXES, help="CSV file to write")
    options = parser.parse_args(arguments)
    files = {path.stem: path for path in scan(options.data / "val")[1]}
    crops = read_crops(options.crops, files)
    rows, mismatched = find_boxes(files, crops)
    with atomic_write(options.out) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {options.out}: {len(rows)} boxes of {len(crops)} images")
    print(f"largest correlation of an image with another image's crop: {mismatched:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
