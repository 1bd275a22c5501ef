"""Judge claims by intervals, and sum up the judgments in a verdict.

An interval is [mean, low, high]. A judgment is True, False, or None if it is undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

WORDS = {True: "holds", False: "does not hold", None: "undecided"}


def above(interval: Sequence[float], limit: float = 0.0) -> bool | None:
    """Whether an interval is above a limit; None if it contains the limit or has no bounds."""
    if len(interval) < 3:  # one image has no interval
        return None
    _, low, high = interval
    return True if low > limit else False if high < limit else None


def below(interval: Sequence[float], limit: float = 0.0) -> bool | None:
    """Whether an interval is below a limit; None if it contains the limit or has no bounds."""
    judgment = above(interval, limit)
    return None if judgment is None else not judgment


def higher(first: Sequence[float] | None, second: Sequence[float] | None) -> bool | None:
    """Whether the first interval is above the second; None if they overlap or lack bounds."""
    if first is None or second is None or min(len(first), len(second)) < 3:
        return None
    return True if first[1] > second[2] else False if first[2] < second[1] else None


def every(judgments: Iterable[bool | None]) -> bool | None:
    """Whether all hold: False if one does not; None if one is undecided, or there are none."""
    distinct = set(judgments)
    return False if False in distinct else True if distinct == {True} else None


def verdict(judgments: Mapping[str, bool | None], main: str = "") -> tuple[dict[str, str], str]:
    """Sum up the judgments of claims.

    Args:
        judgments: A judgment for each claim.
        main: A claim that has to hold for any verdict better than its own.

    Returns:
        The judgments in words, and the verdict. It is "reproduced" if all claims hold, "partial"
        if some do, "differs" if none holds and one is refuted, and "not comparable" if all are
        undecided.
    """
    kinds = set(judgments.values())
    if main and not judgments[main]:
        kinds = {judgments[main]}
    if True in kinds:
        summary = "reproduced" if kinds == {True} else "partial"
    else:
        summary = "differs" if False in kinds else "not comparable"
    return {claim: WORDS[judgment] for claim, judgment in judgments.items()}, summary
