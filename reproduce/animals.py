"""Accuracy by groups of classes on photographs that are independent of ImageNet.

The teacher of the distilled network was trained on all of ImageNet, perhaps also on our validation
images, so accuracy on these may be optimistic for both. Animal Pose (Cao et al., ICCV 2019) has
boxes of dogs, cats, horses, sheep and cows on images of PASCAL VOC. FOLDER contains
`keypoints.json` and `images/`.

    python -m reproduce.animals FOLDER --model imagenet65k --teacher
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import zfnet
from zfnet.data.io import write_text
from zfnet.data.labels import ILSVRC_GROUPS
from zfnet.model import Network
from zfnet.training.teacher import efficientnet_lite

# Classes of ILSVRC 2012, which are sorted by WordNet id.
GROUPS: dict[str, Sequence[int]] = {
    "dog": [i for part in ILSVRC_GROUPS["dog"] for i in part],
    "cat": [i for part in ILSVRC_GROUPS["cat"] for i in part],
    "horse": [339],  # sorrel
    "sheep": [348, 349],  # ram, bighorn
    "cow": [345],  # ox
}
MARGIN = 256 / 224  # the side of the crop over the longer side of the box
BATCH = 32
COLUMNS = ("classifier", "group", "photographs", "top1", "among5")

Probabilities = Callable[[Sequence[Image.Image]], Tensor]  # N photographs -> (N, 1000)


@dataclass(frozen=True)
class Animal:
    """The largest animal of a photograph: its group and its box (left, top, right, bottom)."""

    path: Path
    group: str
    box: tuple[int, int, int, int]

    def crop(self) -> Image.Image:
        """Return a square around the box, shifted to stay inside the photograph."""
        image = Image.open(self.path).convert("RGB")
        left, top, right, bottom = self.box
        side = min(round(MARGIN * max(right - left, bottom - top)), *image.size)
        x, y = (
            min(max((low + high - side) // 2, 0), length - side)
            for low, high, length in zip(self.box[:2], self.box[2:], image.size, strict=True)
        )
        return image.crop((x, y, x + side, y + side))


def read_animals(folder: Path) -> list[Animal]:
    """Read the VOC photographs of Animal Pose that show animals of one group only."""
    data = json.loads((folder / "keypoints.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    annotations: dict[str, list[dict]] = {}
    for annotation in data["annotations"]:
        annotations.setdefault(data["images"][str(annotation["image_id"])], []).append(annotation)
    animals = []
    for file, boxes in sorted(annotations.items()):
        groups = {names[box["category_id"]] for box in boxes}
        if len(groups) == 1 and re.fullmatch(r"20\d\d_\d{6}\.jpg", file):
            largest = max((box["bbox"] for box in boxes), key=_area)
            animals.append(Animal(folder / "images" / file, groups.pop(), tuple(largest)))
    return animals


def group_accuracy(probabilities: Probabilities, animals: Sequence[Animal]) -> dict[str, dict]:
    """Measure how often a classifier of ILSVRC's 1000 classes recognizes each group.

    Args:
        probabilities: Maps N square photographs to probabilities (N, 1000).
        animals: The photographs.

    Returns:
        For each group, and for the mean over groups: the number of photographs `n`; `top1`, percent
        whose most probable class belongs to the group; `among5`, percent where the group has the
        largest total probability among the five.
    """
    top1, among5 = [], []
    names = list(GROUPS)
    for start in tqdm(range(0, len(animals), BATCH), desc="animals", leave=False):
        batch = animals[start : start + BATCH]
        p = probabilities([animal.crop() for animal in batch])
        totals = torch.stack([p[:, list(GROUPS[name])].sum(1) for name in names], 1)  # (N, 5)
        predicted, predicted_group = p.argmax(1).tolist(), totals.argmax(1).tolist()
        top1 += [i in GROUPS[a.group] for i, a in zip(predicted, batch, strict=True)]
        among5 += [names[i] == a.group for i, a in zip(predicted_group, batch, strict=True)]
    groups = np.array([animal.group for animal in animals])
    table = {}
    for name in sorted(set(groups), key=names.index):
        members = groups == name
        table[name] = {
            "n": int(members.sum()),
            "top1": round(100 * float(np.mean(np.array(top1)[members])), 1),
            "among5": round(100 * float(np.mean(np.array(among5)[members])), 1),
        }
    means = {
        k: round(float(np.mean([row[k] for row in table.values()])), 1) for k in ("top1", "among5")
    }
    return table | {"mean": {"n": len(animals), **means}}


def student(model: Network) -> Probabilities:
    """Return a function that computes a network's probabilities, sorted by WordNet id."""
    order = np.argsort(model.wnids).tolist()

    @torch.inference_mode()
    def probabilities(photographs: Sequence[Image.Image]) -> Tensor:
        x = torch.cat([zfnet.preprocess(photograph) for photograph in photographs])
        return model(x).softmax(1)[:, order]

    return probabilities


def teacher() -> Probabilities:
    """Return a function that computes the probabilities of the teacher, at its resolution."""
    lite = efficientnet_lite(0)

    def probabilities(photographs: Sequence[Image.Image]) -> Tensor:
        size = round(lite.size * MARGIN)
        edge = (size - lite.size) // 2
        pixels = np.stack(
            [np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in photographs]
        )
        inner = pixels[:, edge : edge + lite.size, edge : edge + lite.size]  # (N, 224, 224, 3)
        return lite.probabilities(torch.from_numpy(inner).permute(0, 3, 1, 2).float())

    return probabilities


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the accuracy by group of a network, of the teacher, or of both."""
    parser = argparse.ArgumentParser(prog="python -m reproduce.animals")
    parser.add_argument("folder", type=Path, help="folder with keypoints.json and images/")
    parser.add_argument("--model", help="a bundled network or a checkpoint")
    parser.add_argument("--teacher", action="store_true", help="measure the teacher too")
    parser.add_argument("-o", "--out", type=Path, help="CSV file in which to replace their rows")
    options = parser.parse_args(arguments)
    animals = read_animals(options.folder)
    classifiers = (
        {options.model: lambda: student(zfnet.load(options.model))} if options.model else {}
    )
    classifiers |= {"teacher": teacher} if options.teacher else {}
    for name, build in classifiers.items():
        print(f"\n{name}: percent of photographs (top-1 in group; largest of five groups)")
        table = group_accuracy(build(), animals)
        for group, row in table.items():
            print(f"  {group:<6} {row['n']:>5} {row['top1']:6.1f} {row['among5']:6.1f}")
        if options.out:
            write_rows(options.out, name, table)
            print(f"wrote {options.out}")
    return 0


def write_rows(path: Path, classifier: str, table: dict[str, dict]) -> None:
    """Replace one classifier's rows in a CSV file."""
    rows: list[dict] = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["classifier"] != classifier]
    for group, row in table.items():
        values = (classifier, group, row["n"], row["top1"], row["among5"])
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _area(box: Sequence[int]) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


if __name__ == "__main__":
    sys.exit(main())
