"""The annotated images of a corpus, and which parts of them an occluder covers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from reproduce.core.context import Context

DISTRACTOR = "face"  # a person's, next to the object; boxes of other kinds are parts of the object
Boxes = dict[str, list[list[int]]]  # (top, left, bottom, right) by kind


def find_annotated(ctx: Context, hashes: dict[str, str]) -> tuple[dict[str, int], str]:
    """Find annotated files in the corpus.

    Args:
        ctx: The corpus.
        hashes: The SHA-256 of each annotated file, by name.

    Returns:
        The index in the corpus of each file that has the same bytes, in the order of `hashes`; and
        a sentence on the others, empty if there are none.
    """
    rows = {name.split("/")[-1]: i for i, name in enumerate(ctx.images.names)}
    indices, different = {}, []
    for name, sha256 in hashes.items():
        path = _find_file(ctx, ctx.images.names[rows[name]]) if name in rows else None
        if path is None:
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            indices[name] = rows[name]
        else:
            different.append(f"{name} (another file of that name)")
    absent = len(hashes) - len(indices) - len(different)
    omitted = ", ".join([f"{absent} absent"] * (absent > 0) + different)
    return indices, f"Left out: {omitted}." if omitted else ""


def _find_file(ctx: Context, name: str) -> Path | None:
    """The file of an image below `--data`; None for the samples and for a downloaded Imagenette."""
    if ctx.data is None:
        return None
    root = Path(ctx.data).expanduser()
    return next((path for path in (root / "val" / name, root / name) if path.is_file()), None)


def covering_positions(occluders: Tensor, boxes: Boxes) -> dict[str, Tensor]:
    """For each kind of box, the positions at which the occluder covers it.

    A position counts for the kind that it covers most, if the occluder covers half of a box, or
    half of the occluder is in the box.

    Args:
        occluders: (rows, cols, 4), boxes of the occluder at all positions.
        boxes: The annotated boxes.

    Returns:
        Masks (rows, cols) by kind. "elsewhere" are the positions that touch no box. Empty without
        boxes.
    """
    if not boxes:
        return {}
    coverage = {
        kind: torch.stack([_coverage(occluders, box) for box in torch.tensor(of_kind)]).amax(0)
        for kind, of_kind in boxes.items()
    }
    most = torch.stack(list(coverage.values())).amax(0)
    positions = {kind: (share >= 0.5) & (share == most) for kind, share in coverage.items()}
    return positions | {"elsewhere": most == 0}


def _coverage(occluders: Tensor, box: Tensor) -> Tensor:
    """The intersection with a box, as a share of the smaller of occluder and box: (rows, cols)."""
    low = torch.maximum(occluders[..., :2], box[:2])
    high = torch.minimum(occluders[..., 2:], box[2:])
    intersection = (high - low).clamp_min(0).prod(-1)
    area = (occluders[..., 2:] - occluders[..., :2]).prod(-1)
    return intersection / torch.minimum(area, (box[2:] - box[:2]).prod())


def position_groups(occluders: Tensor, boxes: Boxes) -> dict[str, Tensor]:
    """Like `covering_positions`, but the distractor counts only where no object is covered too."""
    groups = covering_positions(occluders, boxes)
    if DISTRACTOR in groups:
        objects = {kind: of_kind for kind, of_kind in boxes.items() if kind != DISTRACTOR}
        groups[DISTRACTOR] &= covering_positions(occluders, objects)["elsewhere"]
    return groups


def covered_energy(projection: Tensor, occluders: Tensor) -> Tensor:
    """The share of a projection's energy that each occluder covers.

    Args:
        projection: (3, H, W).
        occluders: (rows, cols, 4).

    Returns:
        (rows, cols), in [0, 1].
    """
    energy = (projection.double() ** 2).sum(0)
    integral = torch.nn.functional.pad(energy, (1, 0, 1, 0)).cumsum(0).cumsum(1)  # (H + 1, W + 1)
    top, left, bottom, right = occluders.unbind(-1)
    inside = (
        integral[bottom, right] - integral[top, right] - integral[bottom, left]
        + integral[top, left]
    )  # fmt: skip
    return inside / integral[-1, -1].clamp_min(1e-30)
