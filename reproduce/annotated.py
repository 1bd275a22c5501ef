"""Which of the images that we annotated are in a corpus: the same file name, and the same bytes."""

import hashlib
from pathlib import Path

from reproduce.figure import Context


def present(ctx: Context, hashes: dict[str, str]) -> tuple[dict[str, int], str]:
    """The number in the corpus of each annotated file, in the order of `hashes` (name to SHA-256), and a word on the others."""
    places = {name.split("/")[-1]: i for i, name in enumerate(ctx.images.names)}
    root, found, other = Path(ctx.data or "").expanduser(), {}, []
    for name, sha256 in hashes.items():
        if ctx.data is None or name not in places:
            continue
        paths = [p for p in (folder / ctx.images.names[places[name]] for folder in (root / "val", root)) if p.is_file()]
        if not paths:
            continue  # of a tree that is kept elsewhere, as torchvision keeps Imagenette
        if hashlib.sha256(paths[0].read_bytes()).hexdigest() == sha256:
            found[name] = places[name]
        else:
            other.append(f"{name} (another file of that name)")
    absent = len(hashes) - len(found) - len(other)
    said = ", ".join([f"{absent} absent"] * (absent > 0) + other)
    return found, f"Left out: {said}." if said else ""
