"""The images that we annotated: which are in a corpus, the same bytes, and what in them an occluder covers."""

import hashlib
from pathlib import Path

import torch

from reproduce.figure import Context

DISTRACTOR = (
    "face"  # a person's, beside the object; every other kind of box is a part of the object
)


def present(ctx: Context, hashes: dict[str, str]) -> tuple[dict[str, int], str]:
    """The number in the corpus of each annotated file, in the order of `hashes` (name to SHA-256), and a word on the others."""
    places = {name.split("/")[-1]: i for i, name in enumerate(ctx.images.names)}
    root, found, other = Path(ctx.data or "").expanduser(), {}, []
    for name, sha256 in hashes.items():
        if ctx.data is None or name not in places:
            continue
        paths = [
            p
            for p in (folder / ctx.images.names[places[name]] for folder in (root / "val", root))
            if p.is_file()
        ]
        if not paths:
            continue  # of a tree that is kept elsewhere, as torchvision keeps Imagenette
        if hashlib.sha256(paths[0].read_bytes()).hexdigest() == sha256:
            found[name] = places[name]
        else:
            other.append(f"{name} (another file of that name)")
    absent = len(hashes) - len(found) - len(other)
    said = ", ".join([f"{absent} absent"] * (absent > 0) + other)
    return found, f"Left out: {said}." if said else ""


def where(occluders: torch.Tensor, boxes: dict[str, list[list[int]]]) -> dict[str, torch.Tensor]:
    """For each kind of box, the occluder positions (rows, cols) that cover it; and those that touch none, "elsewhere"."""
    coverage = {}
    area = (occluders[..., 2:] - occluders[..., :2]).prod(-1)
    for kind, found in boxes.items():
        shares = []
        for box in torch.tensor(found):
            overlap = (
                (
                    torch.minimum(occluders[..., 2:], box[2:])
                    - torch.maximum(occluders[..., :2], box[:2])
                )
                .clamp_min(0)
                .prod(-1)
            )
            shares.append(overlap / torch.minimum(area, (box[2:] - box[:2]).prod()))
        coverage[kind] = torch.stack(shares).amax(0)
    if not coverage:
        return {}
    most = torch.stack(list(coverage.values())).amax(0)
    positions = {kind: (share >= 0.5) & (share == most) for kind, share in coverage.items()}
    return positions | {"elsewhere": most == 0}


def positions(
    boxes: dict[str, list[list[int]]], occluders: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The occluder's positions by the kind of box that they cover; faces only where no object is covered too."""
    groups = where(occluders, boxes)
    if DISTRACTOR in groups:  # where it covers an object too, what changes is not its doing
        groups[DISTRACTOR] &= where(occluders, {k: v for k, v in boxes.items() if k != DISTRACTOR})[
            "elsewhere"
        ]
    return groups


def covered(projection: torch.Tensor, occluders: torch.Tensor) -> torch.Tensor:
    """The share of a projection's (3, H, W) energy that each occluder covers: (rows, cols)."""
    energy = (
        torch.nn.functional.pad((projection.double() ** 2).sum(0), (1, 0, 1, 0)).cumsum(0).cumsum(1)
    )
    top, left, bottom, right = occluders.unbind(-1)
    inside = energy[bottom, right] - energy[top, right] - energy[bottom, left] + energy[top, left]
    return inside / energy[-1, -1].clamp_min(1e-30)
