"""Image sources: folders, benchmarks, sample photographs, digits, drawn scenes and animations."""

from collections.abc import Iterable


def no_progress(items: Iterable, total: int | None = None, desc: str = "") -> Iterable:
    """Return `items` unchanged: the default `progress`, which shows no bar.

    Args:
        items: What a progress bar would iterate over.
        total: Ignored; the number of items.
        desc: Ignored; the bar's label.

    Returns:
        `items`. Pass `tqdm.tqdm` as `progress` to see a bar.

    Example:
        >>> list(no_progress([1, 2], total=2))
        [1, 2]
    """
    return items
