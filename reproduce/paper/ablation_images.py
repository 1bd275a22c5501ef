"""The images of Tables 2 and 3 and Figures 4 and 6: which classes, and which are held out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import yaml

from reproduce.core.context import Context
from reproduce.paper.ablations import Plan
from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.data.folders import load_files
from zfnet.data.labels import class_names
from zfnet.data.tree import scan

MINI_IMAGENET = Path(__file__).with_name("mini_imagenet.yaml")
# miniImageNet's files: ImageNet's own names have an underscore. Where a class has these, only they
# are used, because the same photograph may be in the tree under ImageNet's name too.
MINI_NAME = re.compile(r"n\d{16}\.jpg")


def load_images(ctx: Context, plan: Plan) -> dict[str, Images]:
    """The "train" and "val" images of a plan."""
    return {split: load_split(ctx, plan, split) for split in ("train", "val")}


def load_split(ctx: Context, plan: Plan, split: str) -> Images:
    """The images of a split ("train" or "val") of a plan's classes.

    Raises:
        DataError: A class has too few training images to hold some out.
    """
    assert ctx.tree is not None
    root = ctx.tree / ("train" if plan.held_out else split)
    folders, files, labels = scan(root)
    chosen = _choose_classes(plan, root, folders)
    rows = np.concatenate([_class_rows(plan, split, root, files, labels, c) for c in chosen])
    names = class_names(folders)
    return load_files(
        root,
        [files[i] for i in rows],
        np.searchsorted(chosen, labels[rows]),
        [names[i] for i in chosen],
        [folders[i] for i in chosen],
        side=plan.side,
        size=plan.size,
        progress=ctx.progress,
    )


def mini_imagenet() -> list[str]:
    """The WordNet ids of miniImageNet's classes."""
    return yaml.safe_load(MINI_IMAGENET.read_text())["wnids"]


def _choose_classes(plan: Plan, root: Path, folders: list[str]) -> np.ndarray:
    """The classes of a plan, as sorted indices of the tree's folders."""
    if plan.classes < 0:
        chosen = np.flatnonzero(np.isin(folders, mini_imagenet()))
        if len(chosen) < 2:
            raise DataError(f"{root}: fewer than two classes of {MINI_IMAGENET.name}")
        return chosen
    if plan.classes and plan.classes < len(folders):
        return np.linspace(0, len(folders) - 1, plan.classes).astype(int)
    return np.arange(len(folders))


def _class_rows(
    plan: Plan, split: str, root: Path, files: list[Path], labels: np.ndarray, label: int
) -> np.ndarray:
    """The files of a class that belong to a split."""
    rows = np.flatnonzero(labels == label)
    if not plan.held_out:
        return rows
    mini = [row for row in rows if MINI_NAME.fullmatch(files[row].name)]
    rows = np.array(mini) if mini else rows
    if len(rows) < 2 * plan.held_out:
        raise DataError(
            f"{root}: {files[rows[0]].parent.name} has {len(rows)} images, too few to hold out "
            f"{plan.held_out}"
        )
    test = np.linspace(0, len(rows) - 1, plan.held_out).round().astype(int)
    return rows[test] if split == "val" else np.delete(rows, test)
