"""Images in: ImageNet-like trees, the sample photographs, drawn scenes; each decoded once and kept as uint8."""

from collections.abc import Iterable


def silent(items: Iterable, total: int | None = None, desc: str = "") -> Iterable:
    """The progress bar of a function that was given none; pass `tqdm.tqdm` to see one."""
    return items
