"""Data sets: folders, benchmarks, sample photographs, digits, synthetic scenes, animations."""

from collections.abc import Iterable


def no_progress(items: Iterable, total: int | None = None, desc: str = "") -> Iterable:
    """Return the items unchanged: the default `progress` argument, which shows no bar.

    Pass `tqdm.tqdm` as `progress` to see a bar.

    Args:
        items: The items to iterate over.
        total: The number of items; ignored.
        desc: The label of the bar; ignored.

    Returns:
        The items.

    Example:
        >>> list(no_progress([1, 2], total=2))
        [1, 2]
    """
    return items
