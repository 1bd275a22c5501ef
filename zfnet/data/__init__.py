"""Images in: trees, benchmarks, sample photographs, digits, drawn scenes and moving pictures; decoded once, kept as uint8."""

from collections.abc import Iterable


def silent(items: Iterable, total: int | None = None, desc: str = "") -> Iterable:
    """The progress bar of a function that was given none; pass `tqdm.tqdm` to see one."""
    return items
